"""The position of an admin queue is worked out of its rings, against a controller that knows nothing of this."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelm.emulator.device.admin_rings import AdminRings, fresh
from nvmelm.emulator.guest.admin_driver import AdminDriver
from nvmelm.errors import NotSupportedError
from nvmelm.vfio import admin_queue
from nvmelm.vfio.admin_queue import Position, Shape, commands_needed, reconstruct
from nvmelm.wire.opcodes import Opcode
from nvmelm.wire.queue_entry import SubmissionQueueEntry

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
