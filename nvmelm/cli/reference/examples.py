"""One command line for each verb, as somebody would type it; the man pages and the reference print them.

A test proves that each verb has one and that the command line reads what is typed here.
"""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """A command line, and what it is for."""

    typed: str
    about: str


EXAMPLES: dict[str, Example] = {
    "status": Example("nvmelm status --last 5", "This host at a glance, with the last five moves."),
    "list": Example("nvmelm list --json", "The controlling functions of this host, for a script."),
    "show": Example("nvmelm show nvme0", "All that matters of one for a migration."),
    "watch": Example("nvmelm watch --seconds 60", "Every change of the next minute, a line each."),
    "host check": Example("nvmelm host check", "What is missing on this host, each with its fix."),
    "source prepare": Example("nvmelm source prepare nvme0 --vfs 4 --dry-run", "The plan, with every write."),
    "destination prepare": Example("nvmelm destination prepare nvme0 --vfs 4 --vq 8 --vi 8", "As large as the source."),
    "apply": Example("nvmelm apply --dry-run", "What differs from /etc/nvmelm.toml."),
    "release": Example("nvmelm release nvme0", "Everything back as it was found."),
    "libvirt-hook": Example(
        "nvmelm libvirt-hook --dry-run vm1 prepare begin - < vm1.xml", "What the hook would do before vm1 starts."
    ),
    "sriov enable": Example("nvmelm sriov enable nvme0 --vfs 4", "Four VFs, left to nvmelm."),
    "sriov disable": Example("nvmelm sriov disable nvme0", "No VFs."),
    "secondary list": Example("nvmelm secondary list nvme0", "Each controlled function: state, mark, who has it."),
    "secondary assign": Example("nvmelm secondary assign nvme0 0x42 --vq 8 --vi 8", "Eight queue pairs and vectors."),
    "secondary online": Example("nvmelm secondary online nvme0 0x42", "The controller takes its driver."),
    "secondary offline": Example("nvmelm secondary offline nvme0 0x42", "The controller ends."),
    "secondary allow-migration": Example(
        "nvmelm secondary allow-migration nvme0 0x42 --expires 8h", "It may leave this host until tonight."
    ),
    "secondary allow-resume": Example("nvmelm secondary allow-resume nvme0 0x42", "A state may be put into it."),
    "secondary revoke": Example("nvmelm secondary revoke nvme0 0x42", "Neither."),
    "vfio bind": Example("nvmelm vfio bind 0000:01:00.1 0000:01:00.2", "Two VFs to vfio-pci."),
    "vfio unbind": Example("nvmelm vfio unbind 0000:01:00.1", "One goes back to its driver."),
    "vm attach": Example("nvmelm vm attach nvme0/0x42 --qmp /run/vm1.qmp", "Into a running QEMU."),
    "vm detach": Example("nvmelm vm detach nvme0/0x42 --qmp /run/vm1.qmp", "Out of it, when its guest lets go."),
    "vm run": Example(
        "nvmelm vm run -- qemu-system-x86_64 -m 4G -device vfio-pci,host=0000:01:00.1", "A VM that moves with its VF."
    ),
    "vm agent": Example("nvmelm vm agent --user libvirt-qemu", "The service that answers libvirt's VMMs."),
    "vm check": Example("nvmelm vm check --libvirt vm1", "Whether the domain can migrate with its VFs."),
    "migrate": Example("nvmelm migrate nvme0 0x42 --to ssh://other/nvme0 --dry-run", "Whether it would move."),
    "state suspend": Example("nvmelm state suspend nvme0 0x42", "The controller stands still."),
    "state resume": Example("nvmelm state resume nvme0 0x42", "It goes on."),
    "state save": Example("nvmelm state save nvme0 0x42 vf1.state", "Its state, into a file."),
    "state restore": Example("nvmelm state restore nvme0 0x42 vf1.state", "A state, into another controller."),
    "state show": Example("nvmelm state show vf1.state", "What a file holds, and whether it is whole."),
    "recover": Example("nvmelm recover --dry-run", "What was cut off here, and what recover would do."),
    "serve": Example("ssh other nvmelm serve", "What migrate starts; typed by nobody."),
    "compat export": Example("nvmelm compat export nvme0 0x42 -o source.json", "A manifest of one function."),
    "compat check": Example("nvmelm compat check source.json ssh://other/nvme0", "Does it fit over there?"),
    "compat token": Example("nvmelm compat token nvme0/0x42", "The function in one opaque string."),
    "compat steps": Example("nvmelm compat steps source.json ssh://other/nvme0/0x42", "The five steps, with reasons."),
    "compat match": Example(
        "nvmelm compat match --sources sources.ndjson --destinations dest.ndjson", "Who goes where in a fleet."
    ),
    "compat parameters info": Example("nvmelm compat parameters info nvme0/0x42", "The destination's parameters."),
    "compat parameters list": Example("nvmelm compat parameters list nvme0/0x42 --json", "The source's."),
    "compat parameters check": Example("nvmelm compat parameters check list.json nvme0/0x42", "Does the list fit?"),
    "compat parameters apply": Example("nvmelm compat parameters apply list.json nvme0 0x42", "Set what can be set."),
    "demo": Example("nvmelm demo", "All six steps on two emulated hosts."),
    "emulate generations": Example("nvmelm emulate generations", "The kinds of device."),
    "emulate create": Example("nvmelm emulate create /tmp/host --max-vfs 4", "A host to try things on."),
    "emulate vmm": Example("nvmelm emulate vmm /tmp/host --socket /tmp/vm.qmp", "A virtual machine on it."),
    "emulate guest": Example("nvmelm emulate guest /tmp/vm.qmp", "What its guest has seen."),
    "emulate rsh": Example("nvmelm emulate rsh /tmp/hosts b 'nvmelm list'", "A command on the host /tmp/hosts/b."),
    "emulate fault add": Example(
        "nvmelm emulate fault add /tmp/host 'admin/0x41#1=status:0x4006'", "The next Migration Send fails."
    ),
    "emulate fault list": Example("nvmelm emulate fault list /tmp/host", "What will still go wrong."),
    "emulate fault clear": Example("nvmelm emulate fault clear /tmp/host", "Nothing any more."),
    "fixture record": Example("nvmelm fixture record survey.json nvme0", "A device, to be replayed elsewhere."),
    "fixture replay": Example("nvmelm fixture replay survey.json -- show nvme0", "A verb on that recording."),
    "fixture show": Example("nvmelm fixture show survey.json", "The recording in sentences."),
    "version": Example("nvmelm version", "What this is."),
    "explain": Example("nvmelm explain 0x13a", "What an NVMe status means, and what to do."),
    "share": Example("nvmelm share systemd", "Where the units are."),
    "bug-report": Example("nvmelm bug-report -o report.tar.gz", "What a report needs, without secrets."),
}
