"""Boot a guest that has what the lab needs: a real kernel, an IOMMU, two SR-IOV NVMe controllers, and this file system.

The guest is Debian's packaged kernel under pure emulation (no hardware virtualisation is asked for), booted by
virtme-ng over a read-only share of the running system's own root, so the virtual environment and this repository are
inside it as they are outside. One directory is shared writable: what the guest leaves there is what comes back::

    scratch/            on the host, /lab-share by path inside
      command.sh        what to run
      status            its exit status, written as the last thing; absent: the guest did not get that far
      dmesg.txt         the kernel's log at the end

Two physical functions in different subsystems stand below root ports of their own: serial LABA0001, the source, and
LABB0001, the destination.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

MiB = 1024 * 1024

SERIAL_A = "LABA0001"
SERIAL_B = "LABB0001"

#: Set inside the guest, and only there; tests of the lab refuse to touch a machine that has not got it.
GUEST_VARIABLE = "NVMELM_LAB_GUEST"
HMLMS_VARIABLE = "NVMELM_LAB_HMLMS"
VFS_VARIABLE = "NVMELM_LAB_VFS"
#: The path of a VMM whose VMs can move; not set where there is none.
VMM_VARIABLE = "NVMELM_LAB_VMM"

#: How a cached share is mounted inside.
CACHED = "trans=virtio,version=9p2000.L,msize=512000,access=any,cache=loose,ro"

DEADLINE_STATUS = 124  # as timeout(1) has it
_PR_SET_PDEATHSIG = 1
_NAMESPACE_BYTES = 64 * MiB
#: Both controllers call their one medium by the same names, without which no two would be taken for one.
_NAMES = "eui64=0x5254000000000001,uuid=52540000-0000-4000-8000-000000000001"

#: Directories of the shared root that are writable inside; what is written there ends with the guest.
_WRITABLE = ("/etc", "/var", "/tmp")


#: Drivers of emulated hardware nobody here uses; probing them takes udev longer than all the rest of the start.
_UNWANTED_MODULES = (
    *("kvm", "kvm_amd", "kvm_intel", "ccp", "powernow_k8", "acpi_cpufreq", "intel_rapl_common"),
    *("aesni_intel", "ghash_clmulni_intel", "sha512_ssse3", "sha256_ssse3", "sha1_ssse3"),
    *("ahci", "libahci", "libata", "lpc_ich", "i2c_i801", "iTCO_wdt", "i6300esb", "psmouse", "pcspkr", "floppy"),
)

#: An emulated processor on a busy machine may see no tick of the timer in the moment in which the kernel looks for one,
#: and would panic; no_timer_check has it not look.
_KERNEL_OPTIONS = (
    f"module_blacklist={','.join(_UNWANTED_MODULES)}",
    *("intel_iommu=on", "iommu=pt", "loglevel=4", "no_timer_check"),
)


class LabError(Exception):
    """The lab cannot be started here; the message says what to install or to change."""


@dataclass(frozen=True, kw_only=True)
class Guest:
    """What the guest is made of.

    Attributes:
        vfs: virtual functions each physical function can have.
        qemu: the emulator, by path or by name.
        vmm: a stock QEMU from 8.1 on, for VMs inside that move; None where there is none.
        kernel: the kernel image; the newest of Debian's packages when None.
        deadline_s: seconds until the guest is ended, whatever it does.
        environment: variables for the command inside.
        init: the script the kernel starts instead of virtme's first process; it mounts the shares itself, and has
            to run ``command.sh``.
        cached: directories shared a second time, as :func:`cached_shares` has it, besides those it names.
    """

    vfs: int = 4
    qemu: str = "qemu-system-x86_64"
    vmm: Path | None = None
    kernel: Path | None = None
    memory_mib: int = 1536
    cpus: int = 2
    deadline_s: float = 2400.0
    environment: dict[str, str] = field(default_factory=dict)
    init: Path | None = None
    cached: tuple[Path, ...] = ()


def find_kernel(boot: Path = Path("/boot")) -> Path:
    """Return the newest packaged kernel that can be read and has its modules.

    Raises:
        LabError: there is none; the message says which package has one.
    """
    found = sorted(boot.glob("vmlinuz-*"), key=_version, reverse=True)
    for image in found:
        release = image.name.removeprefix("vmlinuz-")
        if os.access(image, os.R_OK) and Path("/lib/modules", release).is_dir():
            return image
    if found:
        raise LabError(
            f"{found[0]} cannot be read by this user, or its modules are not in /lib/modules: run the lab as root, "
            "or chmod a+r the image"
        )
    raise LabError(f"there is no kernel image in {boot}: apt-get install linux-image-amd64")


def _version(image: Path) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", image.name)]


def find_programs(qemu: str) -> str:
    """Return the emulator's path after a look at what else the lab needs.

    Raises:
        LabError: something is missing; the message names its package.
    """
    if platform.machine() != "x86_64":
        raise LabError(f"the lab emulates an x86_64 machine with this machine's programs, and this is {os.uname()[4]}")
    path = shutil.which(qemu)
    if path is None:
        raise LabError(f"{qemu} is not there: apt-get install qemu-system-x86, or name a binary with QEMU=")
    for program, package in (("busybox", "busybox-static"), ("setpriv", "util-linux")):
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/bin:/sbin:/usr/sbin") is None:
            raise LabError(f"{program} is not there: apt-get install {package}")
    try:
        import virtme.commands.run  # type: ignore[import-untyped]  # noqa: F401 - it starts the emulator
    except ImportError as error:
        raise LabError("virtme-ng is not there: pip install -e '.[lab]' (make lab does it)") from error
    return path


def has_hmlms(qemu: str) -> bool:
    """Return whether an emulator's nvme device implements Host Managed Live Migration."""
    done = subprocess.run([qemu, "-device", "nvme,help"], capture_output=True, text=True, check=False, timeout=60)
    return re.search(r"^\s*hmlms=", done.stdout, re.MULTILINE) is not None


def nvme_devices(guest: Guest, scratch: Path, *, hmlms: bool) -> list[str]:
    """Return the emulator's arguments for the IOMMU and both controllers; makes their (sparse) images.

    Resources are ample: each VF can have 4 VQ and 2 VI resources, twice what it needs, so that even shares, minimums
    and explicit counts differ. The private resources of the primary (2 VQ, 1 VI) come on top.

    Both controllers have one medium: what a VM wrote through one it finds through the other. A kernel that sees two
    subsystems with namespaces of one name may drop either (nvme_global_check_duplicate_ids).
    """
    image = scratch / "medium.img"
    with image.open("wb") as handle:
        handle.truncate(_NAMESPACE_BYTES)
    vq, vi = 4 * guest.vfs, 2 * guest.vfs
    # intremap: without it vfio in the guest refuses (EPERM); it needs the split irqchip.
    arguments = ["-machine", "kernel-irqchip=split", "-device", "intel-iommu,intremap=on,caching-mode=on"]
    for number, (letter, serial) in enumerate((("a", SERIAL_A), ("b", SERIAL_B))):
        controller = [
            f"nvme,serial={serial},id=nvme-{letter},bus=rp-{letter},subsys=subsys-{letter}",
            f"sriov_max_vfs={guest.vfs},sriov_vq_flexible={vq},sriov_vi_flexible={vi}",
            "sriov_max_vq_per_vf=4,sriov_max_vi_per_vf=2",
            f"max_ioqpairs={vq + 2},msix_qsize={vi + 1}",
        ] + (["hmlms=on"] if hmlms else [])
        arguments += [
            *("-device", f"pcie-root-port,id=rp-{letter},chassis={number + 1},slot={number + 1}"),
            *("-device", f"nvme-subsys,id=subsys-{letter},nqn=lab-{letter}"),
            *("-drive", f"file={image},if=none,format=raw,file.locking=off,id=drive-{letter}"),
            *("-device", ",".join(controller)),
            *("-device", f"nvme-ns,drive=drive-{letter},bus=nvme-{letter},nsid=1,shared=on,{_NAMES}"),
        ]
    return arguments


def cached_shares(guest: Guest) -> dict[str, Path]:
    """Return what is shared a second time, by mount tag: the interpreter and the repository.

    The root's share is uncached, so every start of Python would read the interpreter and its packages again through
    the emulator. Nobody changes these while the guest runs, so inside they are mounted with the page cache, over the
    same paths.
    """
    places = [*guest.cached, Path(sys.base_prefix).resolve(), Path.cwd()]
    environment = Path(sys.prefix).resolve()
    if not any(environment.is_relative_to(place) for place in places):
        places.append(environment)
    return {f"lab.cached{number}": place for number, place in enumerate(dict.fromkeys(places))}


def cached_mounts(guest: Guest) -> str:
    """Return the shell lines that mount the cached shares inside."""
    shares = ((tag, shlex.quote(str(place))) for tag, place in cached_shares(guest).items())
    return "\n".join(f"mkdir -p {place}; mount -t 9p -o {CACHED} {tag} {place}" for tag, place in shares)


def share_devices(guest: Guest) -> list[str]:
    """Return the emulator's arguments for the cached shares."""
    arguments = []
    for tag, place in cached_shares(guest).items():
        identity = tag.replace(".", "-")
        arguments += [
            *("-fsdev", f"local,id={identity},path={place},security_model=none,readonly=on,multidevs=remap"),
            *("-device", f"virtio-9p-pci,fsdev={identity},mount_tag={tag}"),
        ]
    return arguments


def run(command: list[str], guest: Guest, *, scratch: Path | None = None) -> int:
    """Boot, run one command inside with its output going to stdout as it comes, and return its exit status.

    The guest ends with the command, at the deadline, with Ctrl-C, and when this process dies.

    Args:
        command: program and arguments, as seen from the repository's root.
        scratch: the writable share, kept afterwards; a temporary one when None.

    Returns:
        The command's exit status; 124 when the deadline came first.

    Raises:
        LabError: the lab cannot be started here, or the guest ended without running the command to its end.
    """
    qemu = find_programs(guest.qemu)
    kernel = guest.kernel or find_kernel()
    if scratch is None:
        with tempfile.TemporaryDirectory(prefix="nvmelm-lab-") as name:
            return run(command, guest, scratch=Path(name))
    scratch.mkdir(parents=True, exist_ok=True)
    (scratch / "status").unlink(missing_ok=True)
    hmlms = has_hmlms(qemu)
    # Inside, the repository is read-only and the processor emulated: compile once, out here.
    subprocess.run([sys.executable, "-m", "compileall", "-q", "nvmelm", "tests"], check=False)
    _write_command(command, guest, scratch, hmlms=hmlms)
    arguments = [
        *(sys.executable, "-m", "virtme.commands.run"),
        *("--kimg", str(kernel), "--mods", "auto"),
        *("--qemu-bin", str(_tethered(qemu, scratch))),
        *("--disable-microvm", "--disable-kvm", "--force-9p"),
        *("--memory", f"{guest.memory_mib}M", "--cpus", str(guest.cpus)),
        *("--user", "root", "--rwdir", str(scratch), "--cwd", str(Path.cwd())),
        *(word for path in _WRITABLE for word in ("--overlay-rwdir", path)),
        *(word for option in _KERNEL_OPTIONS for word in ("--kopt", option)),
        *("--script-sh", f"sh {shlex.quote(str(scratch / 'command.sh'))}"),
        *("--qemu-opts", "-accel", "tcg,thread=multi", *share_devices(guest)),
        *nvme_devices(guest, scratch, hmlms=hmlms),
        *(_other_start(guest.init, scratch) if guest.init else ()),
    ]
    if not _stream(arguments, time.monotonic() + guest.deadline_s):
        print(f"lab: the guest was ended after {guest.deadline_s:g} s", flush=True)
        return DEADLINE_STATUS
    status = scratch / "status"
    if not status.exists():
        raise LabError(
            "the guest ended before the command did; its output is above. Common causes: too little memory, a kernel "
            "without its modules, an emulator without the nvme device"
        )
    return int(status.read_text())


def _other_start(init: Path, scratch: Path) -> list[str]:
    """Return the emulator's arguments for another first process: of two command lines the last one counts."""
    words = ["console=ttyS1", "panic=-1", "quiet", *_KERNEL_OPTIONS, f"init={init}"]
    return ["-serial", f"file:{scratch / 'console.txt'}", "-append", " ".join(words)]


def _write_command(command: list[str], guest: Guest, scratch: Path, *, hmlms: bool) -> None:
    variables = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TERM": "dumb",
        GUEST_VARIABLE: "1",
        HMLMS_VARIABLE: "1" if hmlms else "0",
        VFS_VARIABLE: str(guest.vfs),
        **({VMM_VARIABLE: str(guest.vmm)} if guest.vmm else {}),
        **guest.environment,
    }
    share, words = shlex.quote(str(scratch)), " ".join(map(shlex.quote, command))
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())
    mounts = cached_mounts(guest) if guest.init is None else ""
    (scratch / "command.sh").write_text(
        f"{exports}\n{mounts}\ncd {shlex.quote(str(Path.cwd()))}\n"
        f"printf 'lab: Linux %s, up after %s s\\n' \"$(uname -r)\" \"$(cut -d' ' -f1 /proc/uptime)\"\n"
        # Written beside its place and renamed: a status is whole or not there.
        f"{words} 2>&1\necho $? >{share}/status.new\ndmesg >{share}/dmesg.txt\nmv {share}/status.new {share}/status\n"
    )


def _tethered(qemu: str, scratch: Path) -> Path:
    """Return a starter that ends the emulator with its parent, which is itself tied to this process."""
    starter = scratch / "qemu"
    starter.write_text(f'#!/bin/sh\nexec setpriv --pdeathsig KILL -- {shlex.quote(qemu)} "$@"\n')
    starter.chmod(0o755)
    return starter


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stream(arguments: list[str], deadline: float) -> bool:
    """Run the emulator and print what it says as it says it; return False when the deadline ended it."""
    with (
        subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        ) as process,
        selectors.DefaultSelector() as selector,
    ):
        assert process.stdout is not None
        output = process.stdout.fileno()
        selector.register(output, selectors.EVENT_READ)
        try:
            while True:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return False
                chunk = os.read(output, 64 * 1024)
                if not chunk:
                    return True
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End whatever is left of the emulator's session; it holds nothing worth a clean shutdown."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
