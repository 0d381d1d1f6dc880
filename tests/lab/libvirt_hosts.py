"""Two hosts of libvirt on one kernel: each daemon has roots, sockets and an identity of its own, and nvmelm's agent.

A mount namespace gives each daemon empty directories where it keeps things, and the VMM beside the launcher that is the
domains' ``<emulator>``. What both see is :data:`PLACE`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab import libvirtd
from tests.lab.libvirtd import address_element
from tests.lab.machine import Cli, wait_for
from tests.lab.mailbox import Processor, firmware
from tests.lab.vms import ANSWER_S, DOWNTIME_MS, FIRST_SLOT, MEMORY_MIB, MOVE_S

PLACE = Path("/run/nvmelm-lab-libvirt")
EMULATOR = "/usr/local/bin/nvmelm-qemu-system-x86_64"
_LAUNCHER = Path(sys.executable).with_name("nvmelm-vmm")
_OWN = ("etc/libvirt", "etc/nvmelm", "var/lib/libvirt", "run/libvirt", "var/cache/libvirt", "var/log/libvirt")


@dataclass(frozen=True)
class LibvirtHost:
    """A host's libvirt, asked by virsh."""

    name: str

    @property
    def uri(self) -> str:
        """Return where virsh, and the other daemon, connect."""
        return f"qemu+unix:///system?socket={PLACE}/{self.name}/libvirt-sock"

    @property
    def log(self) -> str:
        """Return what the agent and the daemon said."""
        return "".join((PLACE / f"{self.name}.{part}.log").read_text(errors="replace") for part in ("agent", "daemon"))

    def virsh(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run virsh; with ``check`` it must succeed."""
        done = subprocess.run(
            ["virsh", "-c", self.uri, *words], capture_output=True, text=True, check=False, timeout=MOVE_S
        )
        assert not check or done.returncode == 0, f"virsh {' '.join(words)}: {done.stderr}\n{self.log}"
        return done

    def start(self, function: str) -> None:
        """Start the domain ``vm`` with a function."""
        path = PLACE / "vm.xml"
        path.write_text(_domain(function))
        self.virsh("create", str(path))

    def processor(self) -> Processor:
        """Return the processor of the domain's guest, by the file that libvirt has made for its memory."""
        found = [
            path
            for path in (PLACE / self.name).rglob("*")
            if path.is_file() and path.stat().st_size == MEMORY_MIB << 20
        ]
        assert len(found) == 1, found
        return Processor(found[0])

    def migrate(self, to: LibvirtHost, function: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Have libvirt migrate the domain, to where another function is its own."""
        target = PLACE / "target.xml"
        described = self.virsh("dumpxml", "--migratable", "vm").stdout
        target.write_text(re.sub(r"(<source>\s*)<address [^>]*/>", rf"\g<1>{address_element(function)}", described))
        self.virsh("migrate-setmaxdowntime", "vm", str(DOWNTIME_MS))
        over = ("--migrateuri", f"unix://{PLACE}/{self.name}.migration", "--xml", str(target))
        return self.virsh("migrate", "--live", "vm", to.uri, *over, check=check)


@contextmanager
def libvirt_host(name: str, host: Cli, vmm: str) -> Iterator[LibvirtHost]:
    """Run an agent and a daemon of libvirt that know nothing of another host's, until the block ends."""
    place = PLACE / name
    place.mkdir(parents=True, exist_ok=True)
    (PLACE / "firmware").write_bytes(firmware())
    libvirtd.make_user()
    environment = {**os.environ, "NVMELM_STATE_DIR": str(host.state_dir)}
    agent = [sys.executable, "-m", "nvmelm", "vm", "agent", "--socket", str(PLACE / f"{name}.agent")]
    script = PLACE / f"{name}.sh"
    script.write_text("".join(f"{line}\n" for line in _own_world(name, Path(vmm))))
    with ExitStack() as stack:
        _running(stack, agent, environment, name, "agent")
        wait_for(lambda: (PLACE / f"{name}.agent").exists(), f"the agent of {name}", ANSWER_S)
        _running(stack, ["unshare", "--mount", "sh", str(script)], environment, name, "daemon")
        wait_for(lambda: (place / "libvirt-sock").exists(), f"libvirtd of {name}", 2 * ANSWER_S)
        started = LibvirtHost(name)
        stack.callback(started.virsh, "destroy", "vm", check=False)
        yield started


def _running(stack: ExitStack, words: list[str], environment: dict[str, str], name: str, part: str) -> None:
    log = stack.enter_context((PLACE / f"{name}.{part}.log").open("wb"))
    process = stack.enter_context(
        subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    )
    stack.callback(process.terminate)


def _own_world(name: str, vmm: Path) -> Iterator[str]:
    """Give the script that becomes a daemon: directories of its own, its configuration, the VMM and the launcher."""
    place = PLACE / name
    yield "set -e; mount --make-rprivate /"
    for own in (*_OWN, "usr/local/bin"):
        yield f"mkdir -p /{own}; mount -t tmpfs own /{own}"
    yield f"ln -s {shlex.quote(str(vmm))} /usr/local/bin/qemu-system-x86_64; ln -s {_LAUNCHER} {EMULATOR}"
    # An installed QEMU's modules are no other QEMU's: it aborts when libvirt has it look for them.
    for modules in vmm.parent.glob("root/usr/lib/*/qemu"):
        yield f"mount --bind {shlex.quote(str(modules))} /{modules.relative_to(vmm.parent / 'root')}"
    settings = {
        "/etc/nvmelm/launcher.conf": f"socket={PLACE}/{name}.agent\nrequired=yes\n",
        "/etc/libvirt/qemu.conf": f'{libvirtd.CONFIGURATION}memory_backing_dir = "{place}"\n',
        "/etc/libvirt/libvirtd.conf": f'unix_sock_dir = "{place}"\nhost_uuid = "{uuid.uuid4()}"\n'
        'auth_unix_rw = "none"\nlog_outputs = "3:stderr"\n',
    }
    for path, text in settings.items():
        yield f"printf %s {shlex.quote(text)} >{path}"
    yield "exec libvirtd --pid-file /run/libvirt/libvirtd.pid"


def _domain(function: str) -> str:
    """Return a domain of one function behind a root port, whose memory is a file."""
    return f"""
    <domain type='qemu'>
      <name>vm</name><memory unit='MiB'>{MEMORY_MIB}</memory><vcpu>1</vcpu>
      <memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>
      <os><type arch='x86_64' machine='q35'>hvm</type><loader readonly='yes' type='rom'>{PLACE}/firmware</loader></os>
      <features><acpi/></features>
      <devices>
        <emulator>{EMULATOR}</emulator>
        <controller type='usb' model='none'/><controller type='pci' index='0' model='pcie-root'/>
        <controller type='pci' index='1' model='pcie-root-port'>
          <address type='pci' domain='0' bus='0' slot='{FIRST_SLOT}' function='0'/>
        </controller>
        <hostdev mode='subsystem' type='pci' managed='no'>
          <source>{address_element(function)}</source><address type='pci' domain='0' bus='1' slot='0' function='0'/>
        </hostdev>
        <memballoon model='none'/>
      </devices>
    </domain>"""
