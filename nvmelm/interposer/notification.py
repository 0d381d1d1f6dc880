"""One call of a VMM that waits for an answer, and the listener that hands it over.

::

    receive ── answered(errno) ───────────────── the call returns 0, or -1 with the errno
           ├── answered_with(value) ──────────── the call returns a value
           ├── let_run ───────────────────────── the kernel carries the call out
           └── give_descriptor(fd) ───────────── the call returns a new descriptor of the caller's
               give_descriptor(fd, ends=False) ─ the caller has it, and still waits

A caller can vanish at any moment, killed or interrupted by a signal: every answer says whether it arrived.

Sources: Linux include/uapi/linux/seccomp.h, kernel/seccomp.c, Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from fcntl import ioctl
from typing import NamedTuple

import ioctl_opt

from nvmelm.interposer.record import Recorder, nothing

#: struct seccomp_notif: id, pid, flags; then struct seccomp_data: nr, arch, instruction_pointer, args[6].
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
#: struct seccomp_notif_resp: id, val, error, flags.
_RESPONSE = struct.Struct("=QqiI")
#: struct seccomp_notif_addfd: id, flags, srcfd, newfd, newfd_flags.
_ADDFD = struct.Struct("=QIIII")
#: What SECCOMP_IOCTL_NOTIF_ID_VALID takes: the id of a notification.
_ID = struct.Struct("=Q")

_MAGIC = ord("!")
_RECV = ioctl_opt.IOWR(_MAGIC, 0, ctypes.c_char * _NOTIFICATION.size)
_SEND = ioctl_opt.IOWR(_MAGIC, 1, ctypes.c_char * _RESPONSE.size)
_ID_VALID = ioctl_opt.IOW(_MAGIC, 2, ctypes.c_uint64)
_ADD = ioctl_opt.IOW(_MAGIC, 3, ctypes.c_char * _ADDFD.size)

_CONTINUE = 1 << 0
_ADDFD_FLAG_SEND = 1 << 1


class Notification(NamedTuple):
    """A call that waits.

    Attributes:
        id: the kernel's number for it, unique for its listener.
        tid: the calling thread, in our PID namespace; 0 where we cannot see it.
        request: the ioctl's.
        descriptor: the ioctl's, a number of the caller's.
        argument: the ioctl's, an address in the caller's memory as a rule.
    """

    id: int
    tid: int
    request: int
    descriptor: int
    argument: int


class Listener:
    """What the kernel hands calls over by; ours alone, closed with this.

    Args:
        fd: the listener, of which this becomes the owner.
        record: takes each call, and that it was answered, for a restart.
    """

    def __init__(self, fd: int, record: Recorder = nothing) -> None:
        self._fd = fd
        self._record = record
        self._buffer = bytearray(_NOTIFICATION.size)

    def fileno(self) -> int:
        return self._fd

    def wait(self, wake: int) -> bool:
        """Wait, without an end, for a call, for the last of the VMM's processes to end, or for ``wake`` to be readable.

        Returns:
            False when no more calls will come, or ``wake`` was readable.
        """
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        poll.register(wake, select.POLLIN)
        events = dict(poll.poll())
        if wake in events:
            return False
        return bool(events.get(self._fd, 0) & select.POLLIN)

    def receive(self) -> Notification | None:
        """Take the next call, or None when the one that there was has been given up by its caller."""
        self._buffer[:] = bytes(_NOTIFICATION.size)  # the kernel insists
        try:
            ioctl(self._fd, _RECV, self._buffer, True)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):
                return None
            raise
        call = parse(bytes(self._buffer))
        self._record("call", call.id, self._buffer.hex())
        return call

    def waits(self, call: Notification) -> bool:
        """Return whether the caller still waits: what was read of a process by its number is that caller's then."""
        try:
            ioctl(self._fd, _ID_VALID, _ID.pack(call.id))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise
        return True

    def answered(self, call: Notification, number: int = 0) -> bool:
        """Let the call return 0, or -1 with an errno; return whether the caller was still there."""
        return self._send(call, 0, number, 0)

    def let_run(self, call: Notification) -> bool:
        """Let the kernel carry the call out, as if we were not there."""
        return self._send(call, 0, 0, _CONTINUE)

    def _send(self, call: Notification, value: int, number: int, flags: int) -> bool:
        answered = self._told(_SEND, bytearray(_RESPONSE.pack(call.id, value, -number, flags))) is not None
        self._record("answered", call.id)
        return answered

    def give_descriptor(self, call: Notification, fd: int, *, ends: bool = True) -> int | None:
        """Put a copy of a descriptor of ours into the caller, closed there at an ``exec``.

        Args:
            ends: the call returns the new number (Linux 5.14); else it goes on waiting.

        Returns:
            The number, or None when the caller has gone.

        Raises:
            OSError: EMFILE, the caller has too many; EACCES, EPERM: a security module forbids it.
        """
        flags = _ADDFD_FLAG_SEND if ends else 0
        theirs = self._told(_ADD, bytearray(_ADDFD.pack(call.id, flags, fd, 0, os.O_CLOEXEC)))
        if ends:
            self._record("answered", call.id)
        return theirs

    def gives_descriptors(self) -> bool:
        """Return whether the kernel can put descriptors into callers, and end their calls with them (Linux 5.14)."""
        try:
            ioctl(self._fd, _ADD, _ADDFD.pack(0, _ADDFD_FLAG_SEND, self._fd, 0, os.O_CLOEXEC))
        except OSError as error:
            return error.errno == errno.ENOENT  # no call has this number; a flag it does not know is EINVAL
        return False

    def _told(self, request: int, buffer: bytearray) -> int | None:
        while True:
            try:
                value: int = ioctl(self._fd, request, buffer, True)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINPROGRESS):  # gone, or answered before
                    return None
                if error.errno != errno.EINTR:
                    raise
            else:
                return value

    def close(self) -> None:
        """Close it: calls that wait, and all that come, return ENOSYS. A second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def parse(data: bytes) -> Notification:
    """Read a ``struct seccomp_notif``; struct.error when it is none."""
    number, tid, _flags, _nr, _arch, _ip, descriptor, request, argument, *_ = _NOTIFICATION.unpack(data)
    return Notification(number, tid, request & 0xFFFF_FFFF, _signed(descriptor), argument)


def _signed(descriptor: int) -> int:
    """Return the descriptor as the kernel takes it, an ``unsigned int`` that is no valid one above 31 bits."""
    low = descriptor & 0xFFFF_FFFF
    return low - (1 << 32) if low >> 31 else low
