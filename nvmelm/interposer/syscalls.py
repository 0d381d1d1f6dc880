"""System calls that Python has no functions for, and the processors they are known for.

Standard library only: the launcher uses this, and a VMM's start waits for it.

Sources: Linux include/uapi/linux/seccomp.h, prctl.h, kcmp.h, audit.h; arch/x86/entry/syscalls/syscall_64.tbl;
include/uapi/asm-generic/unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from typing import NamedTuple


class Architecture(NamedTuple):
    """A processor's system call numbers.

    Attributes:
        audit: ``AUDIT_ARCH_*``, by which a filter knows whose numbers it sees.
    """

    audit: int
    ioctl: int
    seccomp: int
    kcmp: int
    pidfd_getfd: int


ARCHITECTURES = {
    "x86_64": Architecture(audit=0xC000_003E, ioctl=16, seccomp=317, kcmp=312, pidfd_getfd=438),
    "aarch64": Architecture(audit=0xC000_00B7, ioctl=29, seccomp=277, kcmp=272, pidfd_getfd=438),
}

_PR_SET_NO_NEW_PRIVS = 38
_SECCOMP_SET_MODE_FILTER = 1
_FILTER_FLAG_SPEC_ALLOW = 1 << 2
_FILTER_FLAG_NEW_LISTENER = 1 << 3
_FILTER_FLAG_WAIT_KILLABLE_RECV = 1 << 5
_KCMP_FILE = 0

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.process_vm_readv.restype = ctypes.c_ssize_t
_libc.process_vm_writev.restype = ctypes.c_ssize_t


class _Program(ctypes.Structure):
    """``struct sock_fprog``."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


class _Piece(ctypes.Structure):
    """``struct iovec``."""

    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


def architecture() -> Architecture | None:
    """Return this processor's numbers, or None where they are not known."""
    return ARCHITECTURES.get(platform.machine())


def _numbers() -> Architecture:
    numbers = architecture()
    if numbers is None:
        raise OSError(errno.ENOSYS, f"system call numbers of {platform.machine()} are not known")
    return numbers


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def set_no_new_privs() -> None:
    """Promise the kernel that no ``exec`` gives this process more privileges: an unprivileged filter asks for it."""
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def install_filter(program: bytes) -> int:
    """Put a filter on this thread and on all it will start; return its listener, closed at an ``exec``.

    Mitigations against speculation stay as they are: the filter is no sandbox, and must cost nothing.

    Args:
        program: instructions of ``struct sock_filter``.

    Raises:
        OSError: EBUSY, a filter before this one has a listener; EINVAL, a kernel without listeners; EACCES, neither
            CAP_SYS_ADMIN nor the promise of :func:`set_no_new_privs`.
    """
    flags = _FILTER_FLAG_NEW_LISTENER | _FILTER_FLAG_SPEC_ALLOW
    try:
        return _install(program, flags | _FILTER_FLAG_WAIT_KILLABLE_RECV)
    except OSError as error:  # the flag came with Linux 5.19 (c2aa2dfef243)
        if error.errno != errno.EINVAL:
            raise
    return _install(program, flags)


def _install(program: bytes, flags: int) -> int:
    filter_program = _Program(len(program) // 8, program)
    numbers = _numbers()
    return _checked(_libc.syscall(numbers.seccomp, _SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(filter_program)))


def pidfd_getfd(pidfd: int, number: int) -> int:
    """Return a copy, closed at an ``exec``, of another process's descriptor.

    Raises:
        OSError: EBADF, it has no such descriptor; ESRCH, it has ended; EPERM, it may not be traced.
    """
    return _checked(_libc.syscall(_numbers().pidfd_getfd, pidfd, number, 0))


def same_file(pid: int, number: int, other_pid: int, other_number: int) -> bool:
    """Return whether two descriptors are one open file (KCMP_FILE); False when either is not open.

    Also False when it cannot be looked at: kcmp(2) asks for the right to trace both processes.
    """
    numbers = _numbers()
    result: int = _libc.syscall(
        numbers.kcmp, pid, other_pid, _KCMP_FILE, ctypes.c_ulong(number), ctypes.c_ulong(other_number)
    )
    return result == 0


def read_memory(pid: int, address: int, length: int) -> bytes:
    """Return memory of another process, less than asked where its mapping ends.

    Raises:
        OSError: EFAULT, nothing is mapped there; ESRCH, EPERM.
    """
    buffer = ctypes.create_string_buffer(length)
    ours, theirs = _Piece(ctypes.addressof(buffer), length), _Piece(address, length)
    count = _checked(_libc.process_vm_readv(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0))
    return buffer.raw[:count]


def write_memory(pid: int, address: int, data: bytes) -> int:
    """Write to memory of another process as it could itself; return how many bytes were.

    Raises:
        OSError: EFAULT, nothing is mapped there, or it is read-only; ESRCH, EPERM.
    """
    buffer = ctypes.create_string_buffer(data, len(data))
    ours, theirs = _Piece(ctypes.addressof(buffer), len(data)), _Piece(address, len(data))
    return _checked(_libc.process_vm_writev(pid, ctypes.byref(ours), 1, ctypes.byref(theirs), 1, 0))
