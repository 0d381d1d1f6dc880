"""Winding an admin queue on a controller that takes its time: what a doorbell announces is fetched when it likes."""

from __future__ import annotations

from typing import cast

import pytest

from nvmelm.emulator.device import admin_rings
from nvmelm.emulator.device.admin_rings import AdminRings
from nvmelm.vfio.admin_queue import SQE_BYTES, Position
from nvmelm.vfio.registers import AdminRegisters, Controller
from nvmelm.vfio.winding import wind
from nvmelm.wire.opcodes import Opcode
from nvmelm.wire.queue_entry import SubmissionQueueEntry

SLOTS = 32
ASQ, ACQ = 0x1000, 0x3000
REGISTERS = AdminRegisters(cc=0x46_0001, aqa=(SLOTS - 1) << 16 | (SLOTS - 1), asq=ASQ, acq=ACQ)


class Ram:
    """The guest's memory, from address 0 on."""

    def __init__(self) -> None:
        self.raw = bytearray(0x4000)

    def read(self, address: int, length: int) -> bytes:
        return bytes(self.raw[address : address + length])

    def write(self, address: int, raw: bytes) -> None:
        self.raw[address : address + len(raw)] = raw


class LateController:
    """A controller that fetches event requests, and all that follows, when it is told to; it notes what it executes."""

    timeout_s = 5.0

    def __init__(self, ram: Ram) -> None:
        self.ram = ram
        self.executed: list[int] = []
        self.rings = AdminRings(admin_rings.fresh(), ram, aqa=REGISTERS.aqa, asq=ASQ, acq=ACQ, run=self._run, limit=4)

    def ring_sq(self, tail: int) -> None:
        self.rings.ring_sq(tail)
        last = SubmissionQueueEntry(self.ram.read(ASQ + SQE_BYTES * ((tail - 1) % SLOTS), SQE_BYTES))
        if last.opcode != Opcode.ASYNCHRONOUS_EVENT_REQUEST:
            self.rings.work()

    def ring_cq(self, head: int) -> None:
        self.rings.ring_cq(head)

    def _run(self, entry: SubmissionQueueEntry) -> tuple[int, int]:
        self.executed.append(entry.opcode)
        return 0, 0


@pytest.mark.parametrize("completions", [0, 5, 42, 63])
def test_an_event_request_that_is_fetched_late_is_fetched_and_no_old_command_is_executed(completions: int) -> None:
    """Once its slot held the guest's old Identify again, which ran a second time over memory that was others'."""
    ram = Ram()
    for slot in range(SLOTS):
        ram.write(ASQ + SQE_BYTES * slot, SubmissionQueueEntry.pack(opcode=Opcode.IDENTIFY, cid=slot, cdw10=1))
    position = Position(completions, sq_head=(completions + 1) % SLOTS, event_requests=(31,))
    controller = LateController(ram)
    wind(cast("Controller", controller), ram, REGISTERS, position)

    controller.rings.work()
    assert Opcode.IDENTIFY not in controller.executed
    state = controller.rings.state
    assert (state["requests"], state["sq_head"], state["cq_tail"]) == ([31], position.sq_head, completions % SLOTS)
