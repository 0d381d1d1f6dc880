"""Which system calls of a VMM are handed over, as a program for the kernel's seccomp filter.

::

    nr is not ioctl                        run
    numbers of another architecture        run
    low 32 bits of args[1] in the list     hand over
    anything else                          run

The kernel compares the request of an ioctl as an ``unsigned int``, so the upper half of the register means nothing.
``nr`` comes first: the kernel then knows at install time that no other call needs the filter at all (Linux 5.11,
8e01b51a31a1), and it costs them nothing.

Standard library only: the launcher uses this.

Sources: Linux include/uapi/linux/filter.h, bpf_common.h, seccomp.h; vfio.h, iommufd.h.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from nvmelm.interposer.syscalls import Architecture

#: ioctls that concern migration: what is opened, what is asked of it, what brings it back to its beginning; and what a
#: VMM does next when it has closed its group's last device.
VFIO_GROUP_UNSET_CONTAINER = 0x3B69
VFIO_GROUP_GET_DEVICE_FD = 0x3B6A
VFIO_DEVICE_RESET = 0x3B6F
VFIO_DEVICE_FEATURE = 0x3B75
VFIO_DEVICE_BIND_IOMMUFD = 0x3B76
#: ioctls that say where the VM's memory is. On a device, the first two numbers are other calls.
VFIO_IOMMU_MAP_DMA = 0x3B71
VFIO_IOMMU_UNMAP_DMA = 0x3B72
IOMMU_IOAS_MAP = 0x3B85
IOMMU_IOAS_UNMAP = 0x3B86
IOMMU_IOAS_MAP_FILE = 0x3B8F

MIGRATION_CALLS = (
    VFIO_GROUP_UNSET_CONTAINER,
    VFIO_GROUP_GET_DEVICE_FD,
    VFIO_DEVICE_RESET,
    VFIO_DEVICE_FEATURE,
    VFIO_DEVICE_BIND_IOMMUFD,
)
MEMORY_CALLS = (
    VFIO_IOMMU_MAP_DMA,
    VFIO_IOMMU_UNMAP_DMA,
    IOMMU_IOAS_MAP,
    IOMMU_IOAS_UNMAP,
    IOMMU_IOAS_MAP_FILE,
)

_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

#: struct seccomp_data: nr, arch, instruction_pointer, args[6]; both processors are little-endian.
_NR, _ARCH, _REQUEST = 0, 4, 24

ALLOW = 0x7FFF_0000  # SECCOMP_RET_ALLOW
NOTIFY = 0x7FC0_0000  # SECCOMP_RET_USER_NOTIF


class Instruction(NamedTuple):
    """``struct sock_filter``: jumps count instructions from the next one."""

    code: int
    jump_true: int = 0
    jump_false: int = 0
    value: int = 0


def instructions(architecture: Architecture, requests: tuple[int, ...]) -> tuple[Instruction, ...]:
    """Return the filter that hands over these ioctls.

    Args:
        requests: at most 250; a jump is a byte.
    """
    count = len(requests)
    compare = (
        Instruction(_JUMP_EQUAL, jump_true=count - number, value=request)  # over the rest and over "run"
        for number, request in enumerate(requests)
    )
    return (
        Instruction(_LOAD_WORD, value=_NR),
        Instruction(_JUMP_EQUAL, jump_false=count + 3, value=architecture.ioctl),
        Instruction(_LOAD_WORD, value=_ARCH),
        Instruction(_JUMP_EQUAL, jump_false=count + 1, value=architecture.audit),
        Instruction(_LOAD_WORD, value=_REQUEST),
        *compare,
        Instruction(_RETURN, value=ALLOW),
        Instruction(_RETURN, value=NOTIFY),
    )


def program(architecture: Architecture, *, memory: bool = True) -> bytes:
    """Return the filter as the kernel takes it.

    ``struct sock_filter``, 8 bytes an instruction, in the host's byte order.

    Args:
        memory: hand over the calls that map memory, too. A guest with a virtual IOMMU makes them all the time, and
            each then waits for an answer.
    """
    requests = MIGRATION_CALLS + (MEMORY_CALLS if memory else ())
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions(architecture, requests))
