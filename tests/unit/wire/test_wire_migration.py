"""Controller State: sizes are exact, parts are found, and only whole structures are read."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.errors import MalformedError
from nvmelm.wire.migration import (
    ControllerStateHeader,
    IoCompletionQueue,
    IoSubmissionQueue,
    NvmeControllerState,
    NvmeStateHeader,
    WholeControllerState,
    pack_controller_state,
)
from tests.unit import golden

GOLDEN = golden.data("controller_state_v0_1sq_1cq_vss2")


def queues(
    *, sq: dict[str, int] | None = None, cq: dict[str, int] | None = None
) -> tuple[IoSubmissionQueue, IoCompletionQueue]:
    submission = {"iosqprp1": 0x1000, "iosqqsize": 7, "iosqqid": 1, "iosqcqid": 1, "iosqa": 1} | (sq or {})
    completion = {"iocqprp1": 0x2000, "iocqqsize": 7, "iocqqid": 1, "iocqa": 1} | (cq or {})
    return (
        IoSubmissionQueue(IoSubmissionQueue.pack(**submission)),
        IoCompletionQueue(IoCompletionQueue.pack(**completion)),
    )


def state(**kwargs: dict[str, int]) -> NvmeControllerState:
    submission, completion = queues(**kwargs)
    return NvmeControllerState((submission,), (completion,))


def test_the_golden_state_reads_as_what_it_was_built_from() -> None:
    parsed = WholeControllerState.parse(GOLDEN)
    header = parsed.header
    assert (header.ver, header.suspended, header.nvmecss, header.vss) == (0, True, 14, 2)
    assert (header.nvme_bytes, header.vendor_bytes, header.total_bytes) == (56, 8, 112)
    assert parsed.nvme is not None
    (sq,), (cq,) = parsed.nvme.submission_queues, parsed.nvme.completion_queues
    assert (sq.iosqprp1, sq.iosqqsize, sq.slots, sq.iosqqid, sq.iosqcqid) == (0x1_2345_6000, 0x3FF, 1024, 1, 1)
    assert (sq.contiguous, sq.priority, sq.iosqhp, sq.iosqtp, sq.pending) == (True, 2, 17, 19, 2)
    assert (cq.iocqprp1, cq.iocqqid, cq.iocqhp, cq.iocqtp) == (0x2_2345_6000, 1, 16, 17)
    assert (cq.contiguous, cq.interrupts_enabled, cq.slot_0_phase, cq.interrupt_vector) == (True, True, 1, 3)
    assert parsed.vendor == bytes.fromhex("deadbeef01020304")
    assert parsed.nvme.problems() == []


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        (0x0000_0001, (True, False, 0, 0)),
        (0x0000_0002, (False, True, 0, 0)),
        (0x0000_0004, (False, False, 1, 0)),
        (0x0001_0000, (False, False, 0, 1)),
        (0x8000_0000, (False, False, 0, 0x8000)),
        (0x0000_FFF8, (False, False, 0, 0)),
    ],
)
def test_each_attribute_of_a_completion_queue_is_its_own_bits(
    attributes: int, said: tuple[bool, bool, int, int]
) -> None:
    cq = IoCompletionQueue(bytes(16) + attributes.to_bytes(4, "little") + bytes(4))
    assert (cq.contiguous, cq.interrupts_enabled, cq.slot_0_phase, cq.interrupt_vector) == said


def test_the_golden_state_is_built_byte_for_byte() -> None:
    sq = IoSubmissionQueue.pack(
        iosqprp1=0x1_2345_6000, iosqqsize=0x3FF, iosqqid=1, iosqcqid=1, iosqa=0b101, iosqhp=17, iosqtp=19
    )
    cq = IoCompletionQueue.pack(
        iocqprp1=0x2_2345_6000, iocqqsize=0x3FF, iocqqid=1, iocqhp=16, iocqtp=17, iocqa=0b111 | 3 << 16
    )
    nvme = NvmeControllerState((IoSubmissionQueue(sq),), (IoCompletionQueue(cq),)).pack()
    vendor = bytes.fromhex("deadbeef01020304")
    assert pack_controller_state(nvme=nvme, vendor=vendor, suspended=True) == GOLDEN


def test_the_state_of_a_real_controller() -> None:
    exchanges = golden.recording("tp4159-controller")
    whole = WholeControllerState.parse(exchanges[27].data_in)
    assert whole.header.suspended
    assert whole.nvme is not None
    (sq,), (cq,) = whole.nvme.submission_queues, whole.nvme.completion_queues
    assert (sq.iosqprp1, sq.slots, sq.iosqqid, sq.iosqcqid, sq.iosqa, sq.pending) == (0x0517_0000, 1024, 1, 1, 1, 0)
    assert (cq.iocqprp1, cq.slots, cq.iocqqid, cq.iocqa) == (0x045D_4000, 1024, 1, 0x0001_0007)
    assert whole.vendor == b""
    assert whole.nvme.problems() == []


def test_a_running_controller_says_so_and_its_header_alone_gives_the_size() -> None:
    exchanges = golden.recording("tp4159-controller")
    running, suspended = (ControllerStateHeader(exchanges[number].data_in) for number in (21, 26))
    assert (running.suspended, running.total_bytes) == (False, 104)
    assert (suspended.suspended, suspended.total_bytes) == (True, 104)


def test_two_parts_are_the_whole_and_the_destination_has_the_same_queues() -> None:
    exchanges = golden.recording("tp4159-controller")
    assert exchanges[28].data_in + exchanges[29].data_in == exchanges[27].data_in
    assert exchanges[39].data_in == exchanges[27].data_in


def test_without_a_version_the_nvme_part_is_left_out() -> None:
    header = ControllerStateHeader(golden.recording("tp4159-controller")[33].data_in)
    assert (header.suspended, header.total_bytes) == (True, 48)


def test_sizes_of_2_to_the_128_are_exact() -> None:
    largest = (1 << 128) - 1
    header = ControllerStateHeader(ControllerStateHeader.pack(nvmecss=largest, vss=largest))
    assert header.total_bytes == 48 + 8 * largest
    assert (header.nvmecss, header.vss) == (largest, largest)


@pytest.mark.parametrize("change", [-1, 1, -64])
def test_missing_and_trailing_bytes_are_errors(change: int) -> None:
    raw = GOLDEN + b"\0" if change > 0 else GOLDEN[:change]
    with pytest.raises(MalformedError):
        WholeControllerState.parse(raw)


def test_queue_counts_must_agree_with_the_size() -> None:
    with pytest.raises(MalformedError, match="2 submission and 1 completion") as caught:
        NvmeControllerState.parse(NvmeStateHeader.pack(niosq=2, niocq=1) + bytes(48))
    assert "80 bytes" in caught.value.cause


def test_another_version_survives_without_being_understood() -> None:
    raw = bytes.fromhex("0100 aabb ccdd eeff 00112233")
    parsed = NvmeControllerState.parse(raw)
    assert (parsed.ver, parsed.understood, parsed.submission_queues) == (1, False, ())
    assert parsed.pack() == raw


def test_parts_are_whole_dwords() -> None:
    with pytest.raises(ValueError, match="vendor part has 3 bytes"):
        pack_controller_state(vendor=b"abc", suspended=True)


@pytest.mark.parametrize(
    ("kwargs", "problem"),
    [
        ({"sq": {"iosqcqid": 9}}, "uses completion queue 9"),
        ({"sq": {"iosqqid": 0}}, "identifier 0"),
        ({"cq": {"iocqqid": 0}}, "identifier 0"),
        ({"sq": {"iosqtp": 8}}, "8 slots, and head 0, tail 8"),
        ({"cq": {"iocqhp": 8}}, "8 slots, and head 8, tail 0"),
    ],
)
def test_queues_that_cannot_be_are_named(kwargs: dict[str, dict[str, int]], problem: str) -> None:
    assert any(problem in sentence for sentence in state(**kwargs).problems())


def test_queues_out_of_order_are_named() -> None:
    sq, cq = queues()
    assert NvmeControllerState((sq, sq), (cq,)).problems() == [
        "the I/O submission queues are not in ascending order of their identifiers"
    ]


@given(st.binary(max_size=160))
def test_any_bytes_are_a_state_or_malformed(raw: bytes) -> None:
    for parse in (WholeControllerState.parse, NvmeControllerState.parse):
        with contextlib.suppress(MalformedError):
            parse(raw)


@given(st.binary(min_size=24, max_size=24), st.binary(min_size=24, max_size=24), st.binary(max_size=40))
def test_any_queues_survive_packing(sq: bytes, cq: bytes, vendor: bytes) -> None:
    vendor += bytes(-len(vendor) % 4)
    nvme = NvmeControllerState((IoSubmissionQueue(sq),), (IoCompletionQueue(cq),))
    raw = pack_controller_state(nvme=nvme.pack(), vendor=vendor, suspended=False)
    parsed = WholeControllerState.parse(raw)
    assert (parsed.nvme, parsed.vendor, parsed.header.suspended) == (nvme, vendor, False)
    assert isinstance(nvme.problems(), list)
