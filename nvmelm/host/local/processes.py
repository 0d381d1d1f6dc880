"""What ``/proc`` knows of devices in use: who has a node open, what is mounted, what this process may do.

Sources: Linux Documentation/filesystems/proc.rst; proc(5).
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from nvmelm.errors import host_error
from nvmelm.harmless import harmless
from nvmelm.host import Mount, Opener, Sysfs
from nvmelm.numbers import decimal

# Bits of the capability sets in /proc/PID/status (include/uapi/linux/capability.h).
_CAP_DAC_OVERRIDE = 1
_CAP_SYS_ADMIN = 21

_Identity = tuple[int, int, int]

#: What QEMU is called; a distribution's own name for it may have a directory, an architecture or nothing behind it.
_QEMU = re.compile(r"qemu|kvm")
#: libvirt names the machine first; a command line of many devices has some tens of kilobytes.
_MAX_COMMAND_LINE = 128 * 1024
_LONGEST_NAME = 80

_OCTAL_ESCAPE = re.compile(r"\\([0-7]{3})")


def read_proc(path: Path) -> str:
    """Return a file of proc; empty when it is not there (a kernel without swap has no ``swaps``).

    Raises:
        HostError: it is there, and cannot be read.
    """
    try:
        return path.read_text(errors="backslashreplace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise host_error("cannot read", str(path), error) from error


def privileged(proc: Path) -> bool:
    """Return whether this process may write sysfs (root's files) and send any admin command (CAP_SYS_ADMIN)."""
    match = re.search(r"^CapEff:\s*([0-9a-f]+)$", read_proc(proc / "self/status"), re.MULTILINE)
    capabilities = int(match[1], 16) if match else 0
    writes = os.geteuid() == 0 or bool(capabilities >> _CAP_DAC_OVERRIDE & 1)
    return writes and bool(capabilities >> _CAP_SYS_ADMIN & 1)


#: PID_MAX_LIMIT of 64-bit kernels (include/linux/threads.h).
_MAX_PID = 1 << 22


def openers(proc: Path, dev: Path, nodes: Sequence[str]) -> list[Opener]:
    """Return the processes that have any of the device nodes open, by pid, this one left out; one look for all nodes.

    Processes end while they are looked at, and without root other users' cannot be looked at: neither is an error,
    they are left out. A node of another mount namespace (a virtual machine's private ``/dev``) is recognised by its
    device number, as long as it lies below ``/dev`` or has the same name.
    """
    wanted: dict[_Identity, str] = {}
    for node in nodes:
        about = _stat(dev / node)
        if about is not None:
            wanted[_identity(about)] = node
    if not wanted:
        return []
    own, names = os.getpid(), {node.rpartition("/")[2] for node in wanted.values()}
    holders = []
    for pid in sorted(pid for entry in _names(proc) if (pid := decimal(entry, most=_MAX_PID)) is not None):
        if pid != own:
            held = _held(proc / str(pid) / "fd", wanted, names)
            if held:
                name, vm = _process_name(proc, pid), _machine_name(proc, pid)
                holders += [Opener(node, pid, name, vm) for node in sorted(held)]
    return holders


def exclusively_held(node: Path) -> bool:
    """Return whether somebody has claimed a block device, or a part of it, for himself.

    open(2): O_EXCL without O_CREAT fails with EBUSY for a block device that is in use by the system. It is opened for
    reading: closing what was open for writing would have udev look at the disk again.

    Raises:
        HostError: the kernel refused for another reason.
    """
    about = _stat(node)
    if about is None or not stat.S_ISBLK(about.st_mode):
        return False
    try:
        os.close(os.open(node, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        if error.errno in (errno.ENXIO, errno.ENODEV, errno.ENOENT, errno.ENOMEDIUM):  # it has just gone
            return False
        raise host_error("cannot ask who has", str(node), error) from error
    return False


def mounts(proc: Path, dev: Path, sysfs: Sysfs) -> list[Mount]:
    """Return mounted file systems of this mount namespace, and active swap, that lie on block devices."""
    mounted = []
    for line in read_proc(proc / "self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        words, source = left.split(" "), right.split(" ")
        if len(words) < 5 or len(source) < 2:
            continue
        # File systems with device numbers of their own (btrfs) name the block device only as their source.
        device = _by_number(sysfs, words[2]) or _by_path(sysfs, dev, _unescape(source[1]))
        if device:
            mounted.append(Mount(device, _unescape(words[4])))
    for line in read_proc(proc / "swaps").splitlines()[1:]:
        words = line.split()
        device = _by_path(sysfs, dev, _unescape(words[0])) if words else ""
        if device:  # a swap *file* lies on a mounted file system, which is in the list already
            mounted.append(Mount(device, "swap"))
    return mounted


def _stat(node: Path) -> os.stat_result | None:
    try:
        return node.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise host_error("cannot look at", str(node), error) from error


def _identity(about: os.stat_result) -> _Identity:
    """Return what makes two names the same device: kind and number, or for any other file its inode."""
    kind = stat.S_IFMT(about.st_mode)
    if stat.S_ISCHR(about.st_mode) or stat.S_ISBLK(about.st_mode):
        return (kind, about.st_rdev, 0)
    return (kind, about.st_dev, about.st_ino)


def _held(directory: Path, wanted: dict[_Identity, str], names: set[str]) -> set[str]:
    """Return which of the wanted nodes a process's descriptors lead to."""
    held = set()
    for name in _names(directory):
        try:
            target = str((directory / name).readlink())
            # Asking for a file on a dead network mount would hang, so only what may be a wanted node is asked for.
            if target.startswith("/dev/") or target.rpartition("/")[2] in names:
                held.add(wanted.get(_identity((directory / name).stat()), ""))
        except OSError:  # closed meanwhile
            continue
    return held - {""}


def _names(directory: Path) -> Iterator[str]:
    try:
        with os.scandir(directory) as entries:
            yield from [entry.name for entry in entries]
    except OSError:  # the process has ended, or belongs to somebody else
        return


def _process_name(proc: Path, pid: int) -> str:
    """Return a process's name with nothing in it a terminal would obey, or ``?`` when the process has ended."""
    try:
        raw = (proc / str(pid) / "comm").read_text(errors="backslashreplace").rstrip("\n")
    except OSError:
        return "?"
    return harmless(raw)


def _machine_name(proc: Path, pid: int) -> str:
    """Return the name of the machine that a QEMU process runs, or empty: ``-name guest=vm1,…`` or ``-name vm1``.

    Source: QEMU, invocation, ``-name``; a comma within the name is doubled. libvirt starts QEMU with it.
    """
    try:
        with (proc / str(pid) / "cmdline").open("rb") as file:
            words = file.read(_MAX_COMMAND_LINE).decode(errors="backslashreplace").split("\0")
    except OSError:  # the process has ended
        return ""
    if not _QEMU.match(words[0].rpartition("/")[2]) or "-name" not in words[:-1]:
        return ""
    for part in words[words.index("-name") + 1].replace(",,", "\0").split(","):
        key, equals, value = part.replace("\0", ",").partition("=")
        if key == "guest" or not equals:
            return harmless((value or key)[:_LONGEST_NAME])
    return ""


def _by_number(sysfs: Sysfs, number: str) -> str:
    """Return the kernel name of block device ``259:1``, or empty; major 0 is a file system's own number."""
    link = None if number.startswith("0:") else sysfs.readlink(f"dev/block/{number}")
    return link.rpartition("/")[2] if link else ""


def _by_path(sysfs: Sysfs, dev: Path, path: str) -> str:
    """Return the kernel name of the block device behind a path such as ``/dev/disk/by-uuid/...``, or empty."""
    if not path.startswith("/dev/"):
        return ""
    try:
        about = (dev / path.removeprefix("/dev/")).stat()
    except OSError:
        return ""
    if not stat.S_ISBLK(about.st_mode):
        return ""
    return _by_number(sysfs, f"{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}")


def _unescape(text: str) -> str:
    r"""Undo proc's escapes: a blank in a path is ``\040``."""
    return _OCTAL_ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def start_of(pid: int) -> int:
    """Return when a process started, clock ticks after boot, since a pid is used again; -1 when it is not there."""
    try:
        raw = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return -1
    return int(raw[raw.rfind(b")") + 2 :].split()[19])


def vm_name(pid: int, proc: Path = Path("/proc")) -> str:
    """Return what a VM is called, by its VMM's process: its machine's name, or the program's."""
    return _machine_name(proc, pid) or _process_name(proc, pid)
