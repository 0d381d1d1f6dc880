"""The filter, run by an interpreter of the kernel's classic BPF: what it hands over, and what it leaves alone."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.interposer import filter as filter_program
from nvmelm.interposer.syscalls import ARCHITECTURES, Architecture

ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000

#: Typed from include/uapi/linux/vfio.h and iommufd.h.
GROUP_UNSET_CONTAINER = 0x3B69
GROUP_GET_DEVICE_FD, DEVICE_RESET, DEVICE_FEATURE, BIND_IOMMUFD = 0x3B6A, 0x3B6F, 0x3B75, 0x3B76
MEMORY = (0x3B71, 0x3B72, 0x3B85, 0x3B86, 0x3B8F)
MIGRATION = (GROUP_UNSET_CONTAINER, GROUP_GET_DEVICE_FD, DEVICE_RESET, DEVICE_FEATURE, BIND_IOMMUFD)

WORD = st.integers(0, (1 << 32) - 1)
processors = pytest.mark.parametrize("processor", ARCHITECTURES.values(), ids=ARCHITECTURES.keys())


def decide(program: bytes, nr: int, arch: int, args: tuple[int, ...]) -> int:
    """Run a program on a system call, as net/core/filter.c would."""
    data = struct.pack("<iIQ6Q", nr, arch, 0, *args)
    rows = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, jump_true, jump_false, value = rows[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x15:
            at += jump_true if accumulator == value else jump_false
        else:
            assert code == 0x06
            return value


@processors
@pytest.mark.parametrize("request_number", MIGRATION + MEMORY)
def test_the_calls_that_concern_migration_are_handed_over(processor: Architecture, request_number: int) -> None:
    program = filter_program.program(processor)
    args = (7, request_number, 0xDEAD, 0, 0, 0)
    assert decide(program, processor.ioctl, processor.audit, args) == NOTIFY
    args = (7, request_number | 0xFFFFFFFF << 32, 0xDEAD, 0, 0, 0)  # the kernel looks at the lower half
    assert decide(program, processor.ioctl, processor.audit, args) == NOTIFY


@processors
@pytest.mark.parametrize("request_number", MEMORY)
def test_calls_that_map_memory_run_on_where_nobody_asks_for_them(processor: Architecture, request_number: int) -> None:
    program = filter_program.program(processor, memory=False)
    assert decide(program, processor.ioctl, processor.audit, (7, request_number, 0, 0, 0, 0)) == ALLOW
    assert decide(program, processor.ioctl, processor.audit, (7, DEVICE_FEATURE, 0, 0, 0, 0)) == NOTIFY


@processors
@given(nr=WORD, arch=WORD, first=st.integers(0, (1 << 64) - 1), request_number=WORD, near=st.booleans())
def test_nothing_else_is_touched(
    processor: Architecture, nr: int, arch: int, first: int, request_number: int, near: bool
) -> None:
    if near:
        nr, arch = processor.ioctl, processor.audit
    expected = (nr, arch) == (processor.ioctl, processor.audit) and request_number in MIGRATION + MEMORY
    signed = nr - (1 << 32) if nr >> 31 else nr
    args = (first, request_number, 0, 0, 0, 0)
    assert decide(filter_program.program(processor), signed, arch, args) == (NOTIFY if expected else ALLOW)


@processors
def test_another_processors_numbers_mean_nothing(processor: Architecture) -> None:
    (other,) = (each for each in ARCHITECTURES.values() if each is not processor)
    program = filter_program.program(processor)
    assert decide(program, processor.ioctl, other.audit, (7, DEVICE_FEATURE, 0, 0, 0, 0)) == ALLOW
    assert decide(program, other.ioctl, processor.audit, (7, DEVICE_FEATURE, 0, 0, 0, 0)) == ALLOW


def test_system_call_numbers_are_the_kernels() -> None:
    # arch/x86/entry/syscalls/syscall_64.tbl; include/uapi/asm-generic/unistd.h; include/uapi/linux/audit.h
    assert ARCHITECTURES["x86_64"] == (0xC000003E, 16, 317, 312, 438)
    assert ARCHITECTURES["aarch64"] == (0xC00000B7, 29, 277, 272, 438)
