"""The position of an admin queue is worked out of its rings, against a controller that knows nothing of this."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelm.emulator.device.admin_rings import AdminRings, fresh
from nvmelm.emulator.guest.admin_driver import FIRST_EVENT_CID, AdminDriver
from nvmelm.errors import NotSupportedError
from nvmelm.vfio import admin_queue
from nvmelm.vfio.admin_queue import Position, Shape, commands_needed, reconstruct
from nvmelm.wire.opcodes import Opcode
from nvmelm.wire.queue_entry import CompletionQueueEntry, SubmissionQueueEntry

_SIZES = st.one_of(st.integers(2, 9), st.sampled_from([16, 31, 32, 33, 64]))


class Ram:
    """Some memory."""

    def __init__(self, size: int = 1 << 17) -> None:
        self.raw = bytearray(size)

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.raw[address : address + length])

    def write(self, address: int, raw: bytes) -> None:
        self.raw[address : address + len(raw)] = raw


ASQ, ACQ = 0, 1 << 16


@dataclass
class Machine:
    """A driver and a controller over one memory; ``ran`` lists what the controller carried out."""

    sq_slots: int
    cq_slots: int
    limit: int = 4
    ram: Ram = field(default_factory=Ram)
    ran: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.driver = AdminDriver(ASQ, ACQ, self.sq_slots, self.cq_slots)
        self.driver.clear(self.ram)
        self.power_on()

    def power_on(self) -> None:
        """Have a fresh controller over the same memory."""
        self.rings = AdminRings(
            fresh(), self.ram, aqa=self.driver.aqa, asq=ASQ, acq=ACQ, run=self._run, limit=self.limit
        )
        self.posted = 0

    def _run(self, entry: SubmissionQueueEntry) -> tuple[int, int]:
        self.ran.append((entry.opcode, entry.cid))
        return 0, 0

    def sq_doorbell(self, tail: int) -> None:
        self.rings.ring_sq(tail)
        self.rings.work()

    def cq_doorbell(self, head: int) -> None:
        self.rings.ring_cq(head)
        self.rings.work()

    def submit(self, count: int) -> None:
        for _ in range(min(count, self.driver.room)):
            self.driver.put(self.ram, Opcode.IDENTIFY)
        self.sq_doorbell(self.driver.sq_tail)

    def reap(self) -> int:
        return self.driver.reap(self.ram, self.sq_doorbell, self.cq_doorbell)

    @property
    def shape(self) -> Shape:
        return Shape(self.sq_slots, self.cq_slots)

    def position(self) -> Position:
        """Work the position out of memory alone."""
        sq, cq = (self.ram.read(at, size) for at, size in ((ASQ, self.shape.sq_bytes), (ACQ, self.shape.cq_bytes)))
        return reconstruct(self.shape, sq, cq, most=self.limit)

    def wind(self, position: Position) -> None:
        """Have a fresh controller brought to a position, as it is done at a destination."""
        before = bytes(self.ram.raw)
        self.power_on()
        old, self.ran = self.ran, []
        self._harmless(commands_needed(self.shape, position))
        tail = self.rings.state["sq_head"]
        taken = admin_queue.identifiers(self.ram.read(ASQ, self.shape.sq_bytes))
        for number, cid in enumerate(position.identifiers(taken)):
            slot = (tail + number) % self.sq_slots
            self.ram.write(
                ASQ + 64 * slot, SubmissionQueueEntry.pack(opcode=Opcode.ASYNCHRONOUS_EVENT_REQUEST, cid=cid)
            )
            self.sq_doorbell((slot + 1) % self.sq_slots)
        assert all(opcode == Opcode.GET_FEATURES for opcode, _ in self.ran)
        self.ram.raw[:] = before
        self.ran = old

    def _harmless(self, count: int) -> None:
        for number in range(count):
            slot = number % self.sq_slots
            self.ram.write(ASQ + 64 * slot, SubmissionQueueEntry.pack(opcode=Opcode.GET_FEATURES, cid=number & 0xFFF))
            self.sq_doorbell((slot + 1) % self.sq_slots)
            self.cq_doorbell((number + 1) % self.cq_slots)


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.integers(1, 40)),
        st.tuples(st.just("event"), st.integers(1, 5)),
        st.tuples(st.just("reap"), st.just(0)),
    ),
    max_size=60,
)


def _worked(sq_slots: int, cq_slots: int, requests: int, steps: list[tuple[str, int]]) -> Machine:
    """Return a machine that has worked and now stands still, with nothing that waits for room."""
    machine = Machine(sq_slots, cq_slots)
    machine.driver.request_events(machine.ram, min(requests, machine.driver.room))
    machine.sq_doorbell(machine.driver.sq_tail)
    for what, number in steps:
        if what == "submit":
            machine.submit(number)
        elif what == "event":
            machine.rings.event(number)
        else:
            machine.reap()
    while not machine.rings.finish():
        machine.reap()
    return machine


@settings(max_examples=300, deadline=None)
@given(_SIZES, _SIZES, st.integers(0, 3), _STEPS)
def test_a_controller_wound_to_the_position_goes_on_as_if_it_were_the_old_one(
    sq_slots: int, cq_slots: int, requests: int, steps: list[tuple[str, int]]
) -> None:
    machine = _worked(sq_slots, cq_slots, requests, steps)
    state = dict(machine.rings.state)
    try:
        position = machine.position()
    except NotSupportedError:
        pytest.fail("an honest controller's rings are never ambiguous")
    machine.wind(position)
    new = machine.rings.state
    assert (new["cq_tail"], new["phase"]) == (state["cq_tail"], state["phase"])
    ran = len(machine.ran)
    machine.reap()
    machine.submit(1)
    for _ in range(2 * (sq_slots + cq_slots)):
        machine.submit(3)
    while machine.reap():
        pass
    machine.reap()
    assert not machine.driver.errors
    expected = {cid for cid, opcode in machine.driver.sent.items() if opcode != Opcode.ASYNCHRONOUS_EVENT_REQUEST}
    assert not expected
    assert {opcode for opcode, _ in machine.ran[ran:]} <= {Opcode.IDENTIFY}


def rings(sq_slots: int, cq_slots: int, posted: list[tuple[int, int]], sq: dict[int, tuple[int, int]]) -> Position:
    """Work out the position of rings given as completions (identifier, SQHD) and entries (opcode, identifier)."""
    cq = bytearray(16 * cq_slots)
    for number, (cid, sqhd) in enumerate(posted):
        passes, slot = divmod(number, cq_slots)
        cq[16 * slot : 16 * slot + 16] = CompletionQueueEntry.pack(cid=cid, sqhd=sqhd, status=1 - passes % 2)
    entries = bytearray(64 * sq_slots)
    for slot, (opcode, cid) in sq.items():
        entries[64 * slot : 64 * slot + 64] = SubmissionQueueEntry.pack(opcode=opcode, cid=cid)
    return reconstruct(Shape(sq_slots, cq_slots), bytes(entries), bytes(cq), most=4)


def test_a_queue_that_was_seen_on_a_real_guest() -> None:
    """15 completions, SQ head 16, one event request with identifier 31: Linux 6.1 on rings of 32."""
    posted = [(number, number + 1) for number in range(10)] + [(number, number + 2) for number in range(10, 15)]
    sq = {slot: (6, slot) for slot in range(16)} | {10: (0x0C, 31)}
    assert rings(32, 32, posted, sq) == Position(15, 16, (31,), 0)


def test_a_completion_queue_that_wrapped_counts_modulo_twice_its_slots() -> None:
    """Firmware with rings of 64 and 256: 259 completions, so 259 modulo 512, and 3 modulo 64 fetched."""
    posted = [(number % 64, (number + 1) % 64) for number in range(259)]
    position = rings(64, 256, posted, {slot: (6, slot) for slot in range(64)})
    assert position == Position(259, 3)
    assert commands_needed(Shape(64, 256), position) == 259


def test_nothing_was_ever_completed() -> None:
    assert rings(32, 32, [], {0: (0x0C, 31)}) == Position(0, 0)


def test_an_event_request_that_was_answered_is_not_outstanding() -> None:
    sq = {0: (0x0C, 31), 1: (6, 0), 2: (6, 1)}
    assert rings(8, 8, [(0, 2), (31, 2), (1, 3)], sq) == Position(3, 3)


def test_one_that_was_asked_for_again_is_outstanding_once() -> None:
    sq = {0: (0x0C, 31), 1: (6, 0), 2: (0x0C, 31), 3: (6, 1)}
    assert rings(8, 8, [(0, 2), (31, 2), (1, 4)], sq) == Position(3, 4, (31,))


def test_one_behind_the_newest_completion_is_left_to_the_next_doorbell() -> None:
    assert rings(8, 8, [(0, 1)], {0: (6, 0), 1: (0x0C, 31)}) == Position(1, 1)


def test_one_whose_entry_was_overwritten_gets_an_identifier_nobody_uses() -> None:
    posted = [(number % 8, (number + 2) % 8) for number in range(9)]
    position = rings(8, 8, posted, {slot: (6, 0xFFF - slot) for slot in range(8)})
    assert position == Position(9, 2, (), 1)
    assert position.identifiers(frozenset({0xFFF, 0xFFE})) == (0xFFD,)


@pytest.mark.parametrize(
    ("posted", "why"),
    [([(0, 9)], "slot"), ([(0, 1), (1, 1), (2, 1)], "no number of outstanding")],
    ids=["a head outside of the ring", "more completions than commands"],
)
def test_rings_that_contradict_themselves_are_refused(posted: list[tuple[int, int]], why: str) -> None:
    with pytest.raises(NotSupportedError, match=why):
        rings(8, 8, posted, {slot: (6, slot) for slot in range(8)})


def test_a_tag_that_flips_twice_is_refused() -> None:
    cq = bytearray(16 * 8)
    for slot in (0, 2):
        cq[16 * slot + 14] = 1
    with pytest.raises(NotSupportedError, match="more than once"):
        reconstruct(Shape(8, 8), bytes(64 * 8), bytes(cq))


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 16), st.integers(2, 16), st.data())
def test_any_memory_gives_a_position_that_can_be_reached_or_a_refusal(sq: int, cq: int, data: st.DataObject) -> None:
    shape = Shape(sq, cq)
    raw = [data.draw(st.binary(min_size=size, max_size=size)) for size in (shape.sq_bytes, shape.cq_bytes)]
    try:
        position = reconstruct(shape, *raw)
    except NotSupportedError:
        return
    position.check(shape)


@pytest.mark.parametrize(
    "position",
    [
        Position(64, 0),
        Position(0, 32),
        Position(-1, 0),
        Position(0, 1),
        Position(0, 1, (31, 31)),
        Position(0, 0, (), 300),
    ],
)
def test_a_position_from_elsewhere_that_no_such_rings_have_is_refused(position: Position) -> None:
    with pytest.raises(NotSupportedError):
        position.check(Shape(32, 32))


def test_sizes_that_would_need_too_many_commands_are_refused() -> None:
    with pytest.raises(NotSupportedError, match="commands would be needed"):
        commands_needed(Shape(4095, 4096), Position(0, 4094))


@settings(max_examples=400, deadline=None)
@given(_SIZES, _SIZES, st.integers(1, 3), _STEPS)
def test_identifiers_are_those_the_controller_holds(
    sq_slots: int, cq_slots: int, requests: int, steps: list[tuple[str, int]]
) -> None:
    """And in their order, but for those right behind SQHD: submitted last, they lie where the oldest would.

    Which of two is the older is of no consequence: an event takes any, and the driver knows each by its identifier.
    """
    machine = _worked(sq_slots, cq_slots, requests, steps)
    held = machine.rings.state["requests"]
    shown = machine.position().event_requests
    assert set(shown) <= set(held)
    ordered = tuple(cid for cid in held if cid in shown)
    assert shown in [ordered[turn:] + ordered[:turn] for turn in range(len(ordered) or 1)]


def test_identifiers_begin_above_what_linux_uses_for_commands() -> None:
    assert all(cid & 0xFFF >= FIRST_EVENT_CID for cid in Position(0, 3, (), 3).identifiers())
