"""Boot the guest with systemd as its first process, nvmelm's units and rule installed as a package would.

What :mod:`tests.lab.guest` boots starts udev and one command. Here a script mounts the same overlays and shares, puts
files into them, and becomes systemd, which then boots as on any host: udev's coldplug finds the controllers, the rule
asks for the unit, and when ``multi-user.target`` is reached the lab's command runs.
"""

from __future__ import annotations

import io
import shlex
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nvmelm
from tests.lab import guest
from tests.lab.guest import Guest, LabError

#: Which boot of a host this is, 1 or 2; set only inside a guest that systemd booted.
BOOT_VARIABLE = "NVMELM_LAB_BOOT"
SHARE_VARIABLE = "NVMELM_LAB_SHARE"

SYSTEMD = Path("/lib/systemd/systemd")

#: Inside: what the VM manager's stand-in found when it started, a line for each VF.
MANAGER_FOUND = Path("/run/lab/found")

#: Inside: there as soon as the basic system is up, which is when services, VM managers too, may start.
_BASIC = "/run/lab/basic"
_STATE = "/var/lib/nvmelm"

_SHARE = Path(nvmelm.__file__).parent / "share"
UNITS, RULES = "usr/lib/systemd/system", "usr/lib/udev/rules.d"
_OWN_UNITS, _OWN_RULES = "etc/systemd/system", "etc/udev/rules.d"
_WANTS = f"{_OWN_UNITS}/multi-user.target.wants"
_LAYERS, _PARTS = "/run/lab/layers", ("upper", "work")

#: Writable inside over what this machine has, and empty inside; all of it ends with the guest.
OVER = ("/etc", "/var", "/usr/local/bin", f"/{UNITS}", f"/{RULES}")
EMPTY = ("/tmp", "/var/tmp", "/var/log", "/var/cache")

#: What a start of Debian does besides and nothing here needs: under emulation it takes longer than all the rest.
_MASKED = (
    *("dbus.service", "dbus.socket", "getty.target", "systemd-logind.service", "systemd-user-sessions.service"),
    *("systemd-tmpfiles-setup.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service"),
    *("systemd-random-seed.service", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount"),
    *("systemd-sysusers.service", "systemd-machine-id-commit.service", "kmod-static-nodes.service"),
    "apparmor.service",  # compiles every profile, which takes minutes under emulation
    *("sys-fs-fuse-connections.mount", "sys-kernel-config.mount", "sys-kernel-tracing.mount"),
)
_ENABLED = ("nvmelm-boot.service", "libvirtd.service", "lab-basic.service")

_LAB_FILES = {
    "etc/nvmelm.toml": f"[[pf]]\nserial = '{guest.SERIAL_A}'\nvfs = 2\n",
    f"{_OWN_UNITS}/lab.target": "[Unit]\nRequires=multi-user.target\nAfter=multi-user.target\nWants=lab.service\n",
    # It starts as early as a service can; a real one waits for more.
    f"{_OWN_UNITS}/libvirtd.service": f"""\
[Unit]
Description=A VM manager that notes which VFs it finds, and their drivers

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'cd /sys/bus/pci/devices; for vf in */physfn; do if test -e $$vf; then \
echo $${{vf%%/*}} $$(basename $$(readlink $${{vf%%/*}}/driver)); fi; done >{MANAGER_FOUND}'
""",
    f"{_OWN_UNITS}/lab-basic.service": f"""\
[Unit]
Description=Say that the basic system is up

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/touch {_BASIC}
""",
    # The worst case for the order: no controller shows itself before a VM manager could have started.
    f"{_OWN_RULES}/00-lab.rules": f"""\
ACTION=="add", SUBSYSTEM=="pci", ATTR{{class}}=="0x010802", \
PROGRAM="/usr/bin/timeout 100 /bin/sh -c 'until test -e {_BASIC}; do sleep 0.1; done'"
SUBSYSTEM=="nvme", ENV{{NVME_EVENT}}=="connected", ENV{{LAB_CONNECTED}}="$env{{SEQNUM}}"
SUBSYSTEM=="virtio-ports", TAG+="systemd"
""",
}

# Runs last, with its output where that of any command of the lab goes.
_COMMAND = """\
[Unit]
Description=Run what the lab was started for, and switch the machine off
After=multi-user.target dev-virtio\\x2dports-virtme.stdout.device
Requires=dev-virtio\\x2dports-virtme.stdout.device

[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/sh -c 'sh {share}/command.sh >/dev/virtio-ports/virtme.stdout 2>&1; \
rm -rf {share}/state; cp -a {state} {share}/state; journalctl -b -o short-monotonic >{share}/journal.txt'
ExecStopPost=/bin/systemctl poweroff --force --force
"""


def run(command: list[str], settings: Guest, *, boot: int = 1, scratch: Path | None = None) -> int:
    """Boot with systemd, run one command when it has booted, and return the command's exit status.

    Args:
        command: as for :func:`tests.lab.guest.run`.
        boot: which boot of the host this is; what the one before left in nvmelm's state directory is there again.
        scratch: the writable share; a temporary one when None.

    Raises:
        LabError: as for :func:`tests.lab.guest.run`.
    """
    if scratch is None:
        with tempfile.TemporaryDirectory(prefix="nvmelm-lab-") as name:
            return run(command, settings, boot=boot, scratch=Path(name))
    if not SYSTEMD.exists():
        raise LabError(f"{SYSTEMD} is not there: apt-get install systemd")
    environment = {**settings.environment, BOOT_VARIABLE: str(boot), SHARE_VARIABLE: str(scratch)}
    # systemd reads hundreds of files below /usr; one by one through the emulator that takes half a minute.
    settings = replace(settings, init=scratch / "init.sh", environment=environment, cached=(Path("/usr"),))
    scratch.mkdir(parents=True, exist_ok=True)
    with tarfile.open(scratch / "files.tar", "w") as archive:
        for path, text in files(scratch).items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(text.encode()), 0o755 if text.startswith("#!") else 0o644
            archive.addfile(entry, io.BytesIO(text.encode()))
    (scratch / "fstab").write_text("".join(f"{line}\n" for line in mounts(settings, scratch)))
    (scratch / "init.sh").write_text("".join(f"{line}\n" for line in first_process(scratch)))
    (scratch / "init.sh").chmod(0o755)
    return guest.run(command, settings, scratch=scratch)


def files(scratch: Path) -> dict[str, str]:
    """Return what the guest has in its overlays, by path from the root."""
    return {
        **_LAB_FILES,
        **{f"{UNITS}/{one.name}": one.read_text() for one in (_SHARE / "systemd").iterdir()},
        **{f"{RULES}/{one.name}": one.read_text() for one in (_SHARE / "udev").iterdir()},
        **{f"{_OWN_UNITS}/{unit}": "" for unit in _MASKED},  # an empty file masks a unit
        f"{_OWN_UNITS}/lab.service": _COMMAND.format(share=shlex.quote(str(scratch)), state=_STATE),
        # Units have systemd's own PATH, and the virtual environment is not in it.
        "usr/local/bin/nvmelm": f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m nvmelm "$@"\n',
    }


def mounts(settings: Guest, scratch: Path) -> list[str]:
    """Return the table by which one mount makes the guest's file system, outer directories first."""
    table = {place: f"empty {place} tmpfs mode=1777" for place in EMPTY}
    for number, place in enumerate(OVER):
        layer = f"{_LAYERS}/{number}"
        table[place] = f"overlay {place} overlay lowerdir={place},upperdir={layer}/upper,workdir={layer}/work"
    for tag, path in guest.cached_shares(settings).items():
        table[str(path)] = f"{tag} {_field(path)} 9p {guest.CACHED},X-mount.mkdir"
    share = "version=9p2000.L,trans=virtio,access=any"
    table[str(scratch)] = f"virtme.initmount0 {_field(scratch)} 9p {share},X-mount.mkdir"
    return [f"{table[place]} 0 0" for place in sorted(table)]


def _field(place: Path) -> str:
    return str(place).replace(" ", "\\040")  # as fstab(5) has it


def first_process(scratch: Path) -> Iterator[str]:
    """Give the script that the kernel starts; systemd is what it becomes."""
    share = shlex.quote(str(scratch))
    yield "#!/bin/sh"
    yield "mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev; mount -t tmpfs run /run"
    yield f"mkdir -p {' '.join(f'{_LAYERS}/{number}/{part}' for number in range(len(OVER)) for part in _PARTS)}"
    yield f"mount -a -T {share}/fstab"
    # What this machine itself would start is none of the lab's business.
    yield f"rm -rf /{_OWN_UNITS}/*.wants /etc/rc?.d /etc/fstab {_STATE}; mkdir /{_WANTS}"
    yield f"tar -x -f {share}/files.tar -C /; if test -d {share}/state; then cp -a {share}/state {_STATE}; fi"
    yield f"for unit in {' '.join(_ENABLED)}; do ln -s ../$unit /{_WANTS}/; done"
    # Empty: this is no container, whatever files of one the root has.
    yield f"export container=; exec {SYSTEMD} --unit=lab.target </dev/null >/dev/null 2>&1"
