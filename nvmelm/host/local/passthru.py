"""Admin commands through the kernel's nvme driver: ``NVME_IOCTL_ADMIN64_CMD`` on the primary's ``/dev/nvmeX``.

The only caller of ``ioctl``. A command is packed into a reused ``struct nvme_passthru_cmd64``, its data travels in a
reused, page-aligned buffer, and each thread has one of each; what comes back is the controller's status, or an errno of
the driver which becomes a typed error here.

The three answers of the ioctl: 0, success; a positive number, the status field of the completion; -1 with an errno,
the driver refused or gave up. The result is valid for the first two.

Sources: Linux include/uapi/linux/nvme_ioctl.h, drivers/nvme/host/ioctl.c, drivers/nvme/host/core.c
(nvme_set_queue_limits).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import re
import stat
import struct
import threading
from fcntl import ioctl

import ioctl_opt

from nvmelm.errors import DeviceGoneError, HostError, NotSupportedError, TimedOutError, host_error
from nvmelm.host import AdminCommand, Completion, Sysfs
from nvmelm.numbers import decimal
from nvmelm.process.descriptor import Descriptor, DescriptorClosedError

KiB = 1024

#: struct nvme_passthru_cmd64: opcode, flags, rsvd1; nsid, cdw2, cdw3; metadata, addr; metadata_len, data_len, cdw10 to
#: cdw15, timeout_ms, rsvd2; result. The 32-bit form is its first 72 bytes, with the result in place of rsvd2.
#: The kernel's structure and not the controller's, so it stands beside the ioctl that takes it; packed in one call and
#: in place, as every command pays for it.
COMMAND = struct.Struct("<BBH3I2Q10IQ")
_pack = COMMAND.pack_into
_RESULT64 = slice(72, 80)
_RESULT32 = slice(68, 72)
_NARROW_BYTES = 72

NVME_IOCTL_ADMIN64_CMD: int = ioctl_opt.IOWR(ord("N"), 0x47, ctypes.c_char * COMMAND.size)
NVME_IOCTL_ADMIN_CMD: int = ioctl_opt.IOWR(ord("N"), 0x41, ctypes.c_char * _NARROW_BYTES)

#: A page the kernel maps the buffer with; every segment of a scattered buffer is at least one.
_PAGE_BYTES = 4 * KiB
_ZERO_PAGE = bytes(_PAGE_BYTES)

#: Segments the nvme driver puts in one command where sysfs says nothing (NVME_MAX_SEGS, drivers/nvme/host/nvme.h).
_DEFAULT_SEGMENTS = 127

#: Track Send reports in completion DW1, which the 32-bit ioctl drops.
_OPCODES_THAT_NEED_DW1 = frozenset({0x3D})

_U32 = 0xFFFF_FFFF
_CONTROLLER_NAME = re.compile(r"nvme[0-9]{1,9}")
_NAMESPACE_NAME = re.compile(r"nvme[0-9]+(c[0-9]+)?n[0-9]+")


class _Room(threading.local):
    """What one thread packs its commands into: the structure of the ioctl, and the buffer for their data."""

    def __init__(self) -> None:
        self.words = bytearray(COMMAND.size)
        self.map, self.address = _data_buffer(_PAGE_BYTES)
        self.size = _PAGE_BYTES

    def grow(self, length: int) -> None:
        """Replace the data buffer by a larger one."""
        self.size = -(-length // _PAGE_BYTES) * _PAGE_BYTES
        self.map.close()
        self.map, self.address = _data_buffer(self.size)


class PassthruQueue:
    """The admin queue of a kernel-owned controller.

    Several threads may use an instance: the kernel takes commands as they come, and each thread has words and a buffer
    of its own.

    Args:
        node: ``/dev/nvme0``; never a namespace's node, which may lead to another controller of the subsystem.
        sysfs: where the controller's identity and its queues' limits are read.
        controller: the kernel's name of the controller, ``nvme0``.

    Raises:
        NotSupportedError: the node is not that controller's character device.
        PermissionDeniedError: the node needs root.
        DeviceGoneError: there is no such node.
    """

    def __init__(self, node: str, sysfs: Sysfs, controller: str) -> None:
        self._node = node
        self._controller = controller
        self._request = NVME_IOCTL_ADMIN64_CMD
        self._open = Descriptor(_open_controller(node, sysfs, controller))
        self._max_transfer_bytes = max_transfer_bytes(sysfs, controller)
        self._room = _Room()

    @property
    def max_transfer_bytes(self) -> int:
        """Return the largest data buffer the kernel carries in one command, bytes, a multiple of 4 KiB.

        The device's own limit (MDTS) may be lower where no namespace told the kernel.
        """
        return self._max_transfer_bytes

    def submit(self, command: AdminCommand) -> Completion:
        """Run one command and return its completion, whatever its status.

        Raises:
            TimedOutError: the driver gave up on the command and reset the primary controller.
            DeviceGoneError: the controller is dead or was removed.
            PermissionDeniedError: not root.
            NotSupportedError: this kernel's ioctl cannot return what the command answers.
            HostError: anything else the driver refuses, such as a buffer it cannot map.
        """
        # One straight line, locals and no helpers: this runs for every command, and the budget is one bare ioctl.
        data_out, room = command.data_out, self._room
        words = room.words
        length = command.data_in_length if data_out is None else len(data_out)
        if length > room.size:
            room.grow(length)
        if data_out is not None:
            room.map[:length] = data_out
        elif length == _PAGE_BYTES:
            room.map[:_PAGE_BYTES] = _ZERO_PAGE  # so that a short answer never shows an earlier command's data
        elif length:
            ctypes.memset(room.address, 0, length)
        _pack(
            words, 0,
            command.opcode, 0, 0,
            command.nsid, command.cdw2, command.cdw3,
            0, room.address if length else 0,
            0, length,
            command.cdw10, command.cdw11, command.cdw12, command.cdw13, command.cdw14, command.cdw15,
            command.timeout_ms, 0,
            0,
        )  # fmt: skip
        try:
            with self._open as descriptor:
                status = ioctl(descriptor, self._request, words, True)
        except DescriptorClosedError as error:
            raise self._refused(command, OSError(errno.EBADF, "it was closed here")) from error
        except OSError as error:
            if error.errno == errno.ENOTTY and self._request == NVME_IOCTL_ADMIN64_CMD:
                return self._submit_narrow(command)  # a kernel without the 64-bit form; nothing was sent
            raise self._refused(command, error) from error
        result = int.from_bytes(words[_RESULT64], "little")
        return Completion(status, result, b"" if data_out is not None else room.map[:length])

    def close(self) -> None:
        """Close the node and give the buffer back: another thread's command ends first, one that comes later fails."""
        if not self._open.closed:
            self._open.close()
            self._room.map.close()  # that of another thread goes with it

    def _refused(self, command: AdminCommand, error: OSError) -> HostError | TimedOutError:
        """Return the error that says what an errno of the ioctl means for this command."""
        what, node = f"{command.name} was not carried out", self._node
        match error.errno:
            case errno.EINTR:
                return TimedOutError(
                    f"{what}: {node}: the driver gave up on it",
                    cause=f"no completion within {command.timeout_ms // 1000} s, or the controller was reset or "
                    "removed meanwhile; the driver reset the primary, and with it every secondary controller went "
                    "Offline and lost its resources, whatever sysfs shows",
                    fix=f"nvmelm secondary list {self._controller}, then nvmelm recover",
                    reason="admin-timeout",
                )
            case errno.ENODEV | errno.ENXIO | errno.EIO | errno.ESHUTDOWN:
                return DeviceGoneError(
                    f"{what}: {node}: {os.strerror(error.errno)}",
                    path=node,
                    errno=error.errno,
                    cause="the controller is dead, or was removed",
                    fix="nvmelm list; dmesg tells what the driver saw",
                    reason="controller-gone",
                )
            case errno.EINVAL:
                return HostError(
                    f"{what}: {node}: {os.strerror(error.errno)}",
                    path=node,
                    errno=error.errno,
                    cause=f"the driver cannot map a buffer of {command.data_length} bytes; it takes at most "
                    f"{self._max_transfer_bytes} here"
                    if command.data_length
                    else "the driver refuses a field of the command",
                    fix="transfer less in one command" if command.data_length else "report this: it is a defect",
                    reason="unmappable",
                )
            case errno.ENOMEM:
                raised = host_error(what, node, error, fix="free memory, then try again")
                raised.cause = "the kernel had no memory for the command or its buffer"
                return raised
            case _:
                return host_error(what, node, error)

    def _submit_narrow(self, command: AdminCommand) -> Completion:
        """Send the command that was just packed by the 32-bit form, which drops the completion's second dword.

        Raises:
            NotSupportedError: the command answers in that dword.
        """
        if command.opcode in _OPCODES_THAT_NEED_DW1:
            raise NotSupportedError(
                f"{command.name} cannot be sent through {self._node}",
                cause="this kernel has no NVME_IOCTL_ADMIN64_CMD, and its 32-bit form drops the completion's second "
                "dword, in which the command answers",
                fix="use a newer kernel; NVME_IOCTL_ADMIN64_CMD came with Linux 5.5",
                reason="no-admin64",
            )
        room = self._room
        try:
            with self._open as descriptor:
                status = ioctl(descriptor, NVME_IOCTL_ADMIN_CMD, room.words, True)
        except (OSError, DescriptorClosedError) as met:
            error = met if isinstance(met, OSError) else OSError(errno.EBADF, "it was closed here")
            raise self._refused(command, error) from error
        result = int.from_bytes(room.words[_RESULT32], "little")
        return Completion(status, result, b"" if command.data_out is not None else room.map[: command.data_in_length])


def _data_buffer(size: int) -> tuple[mmap.mmap, int]:
    """Return private, page-aligned memory that stays out of core dumps, and its address."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_DONTDUMP)
    # The ctypes object that yields the address would hold the map open; it is let go at once, so that it can be closed.
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))


def max_transfer_bytes(sysfs: Sysfs, controller: str) -> int:
    """Return the largest buffer the kernel carries in one admin command of a controller, a multiple of 4 KiB.

    The driver gives the admin queue and every namespace of the controller the same limits, and only namespaces show
    them: ``max_hw_sectors_kb``, which holds MDTS, and ``max_segments``. A page-aligned buffer takes one segment a page
    when its pages are scattered, so ``max_segments`` pages always fit.
    """
    limit = _DEFAULT_SEGMENTS * _PAGE_BYTES
    known = []
    for name in sysfs.listdir(f"class/nvme/{controller}"):
        if not _NAMESPACE_NAME.fullmatch(name):
            continue
        queue = f"class/nvme/{controller}/{name}/queue"
        sectors_kb, segments = _number(sysfs, f"{queue}/max_hw_sectors_kb"), _number(sysfs, f"{queue}/max_segments")
        if sectors_kb and segments:
            known.append(min(sectors_kb * KiB, segments * _PAGE_BYTES))
    limit = min(known, default=limit)
    return max(limit - limit % _PAGE_BYTES, _PAGE_BYTES)


def _number(sysfs: Sysfs, path: str) -> int:
    """Return a decimal attribute, or 0 when it is absent or no number."""
    if not sysfs.exists(path):
        return 0
    text = sysfs.read(path)
    return decimal(text, most=_U32) or 0


def _open_controller(node: str, sysfs: Sysfs, controller: str) -> int:
    """Open a node read-only (enough for root's passthrough) after proving that it is the controller's own."""
    if not _CONTROLLER_NAME.fullmatch(controller):
        raise NotSupportedError(
            f"{controller!r} is not a controller",
            cause="admin commands go through a controller's node, /dev/nvmeX; a namespace's node may lead to another "
            "controller of the subsystem",
            fix="nvmelm list shows the controllers",
            reason="not-a-controller",
        )
    try:
        descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise DeviceGoneError(
            f"cannot open {node}: {os.strerror(errno.ENOENT)}",
            path=node,
            errno=errno.ENOENT,
            cause="there is no such controller, or its node is not visible here",
            fix="nvmelm list",
        ) from error
    except OSError as error:
        raise host_error("cannot open", node, error) from error
    try:
        _check_identity(descriptor, node, sysfs, controller)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_identity(descriptor: int, node: str, sysfs: Sysfs, controller: str) -> None:
    """Refuse a node that is not the character device sysfs names for the controller."""
    about = os.fstat(descriptor)
    number = f"{os.major(about.st_rdev)}:{os.minor(about.st_rdev)}"
    if not stat.S_ISCHR(about.st_mode) or sysfs.read(f"class/nvme/{controller}/dev") != number:
        raise NotSupportedError(
            f"{node} is not the node of controller {controller}",
            cause=f"sysfs gives the controller another device number than the node's ({number})",
            fix="nvmelm list shows the controllers",
            reason="not-a-controller",
        )
