"""The register file of a controller as the owner of its function uses it: properties, doorbells, I/O queues.

Creating I/O queues is a method here in place of a command on the controller's admin queue; the queues themselves are
real ones in memory.

Source: NVM Express Base Specification 2.1, Controller Properties; Create I/O Completion Queue command; Create I/O
Submission Queue command; NVMe over PCIe Transport Specification 1.1, Doorbells.
"""

from __future__ import annotations

from typing import Literal

from nvmelm.emulator.device.admin_rings import fresh
from nvmelm.emulator.device.engine import CC_ENABLE, CSTS_READY, Engine
from nvmelm.emulator.device.resets import CSTS_FATAL, reset_controller
from nvmelm.emulator.machine.state import Io

# Command specific status of the Create I/O Queue commands.
COMPLETION_QUEUE_INVALID = 0x4100
INVALID_QUEUE_IDENTIFIER = 0x4101
INVALID_QUEUE_SIZE = 0x4102
INVALID_INTERRUPT_VECTOR = 0x4108
INVALID_QUEUE_DELETION = 0x410C

_SHN = 14  # CC.SHN, two bits
_SHUTDOWN_COMPLETE = 0x8  # CSTS.SHST
_CONTIGUOUS = 0x1
_INTERRUPTS_ENABLED = 0x2


class Port(Engine):
    """A controller's registers, inside a transaction; what is written to a controller that is gone is lost."""

    @property
    def csts(self) -> int:
        """Return Controller Status."""
        io = self.io
        if io is None or self.primary["gone"]:
            return 0xFFFF_FFFF  # a function that does not answer reads all ones
        return io["csts"]

    def write_admin_queues(self, *, aqa: int, asq: int, acq: int) -> None:
        """Write AQA, ASQ and ACQ."""
        io = self.io
        if io is not None:
            io["aqa"], io["asq"], io["acq"] = aqa, asq, acq

    def write_cc(self, value: int) -> int:
        """Write Controller Configuration and return Controller Status; an Offline controller never gets ready."""
        io = self.io
        if io is None:
            return self.csts
        if io["cc"] & CC_ENABLE and not value & CC_ENABLE:
            memory = io["memory"]
            reset_controller(self.machine, self.primary, self.controller)
            if self.controller["io"] is not None:
                self.controller["io"]["memory"] = memory
            return self.csts
        begins = value & CC_ENABLE and not io["cc"] & CC_ENABLE
        io["cc"] = value
        if begins:
            self._enable(io)
        if value >> _SHN & 3 and io["csts"] == CSTS_READY:
            io["csts"] |= _SHUTDOWN_COMPLETE
        return io["csts"]

    def _enable(self, io: Io) -> None:
        row = self.machine.generation(self.primary)
        if not self.controller["online"]:
            io["csts"] = CSTS_FATAL
        elif row.ready_reads:
            io["csts"], io["ready_in"] = 0, row.ready_reads
        else:
            io["csts"] = CSTS_READY
        io["admin"] = fresh()
        if row.vectors_before_queues and self.vectors() == 0:
            io.setdefault("dead", []).append(0)

    def vectors(self) -> int | None:
        """Return how many vectors the VMM has set up; None when it does not say."""
        function = self.machine.function_of(self.primary, self.controller)
        holder = self.machine.opened(function["bdf"]) if function is not None else None
        return holder.get("vectors") if holder is not None else None

    def read_csts(self) -> int:
        """Return Controller Status as a read of the register does: a slow controller gets ready between two reads."""
        io = self.io
        if io is not None and io.get("ready_in", 0) > 0:
            io["ready_in"] -= 1
            if io["ready_in"] == 0:
                io["csts"] = CSTS_READY
        return self.csts

    def create_io_cq(self, qid: int, *, prp1: int, size: int, vector: int = 0) -> int:
        """Create an I/O completion queue of ``size`` entries, 0's based; return the status."""
        io = self.io
        status = self._check(qid, size)
        if status or io is None:
            return status or INVALID_QUEUE_IDENTIFIER
        if str(qid) in io["cqs"]:
            return INVALID_QUEUE_IDENTIFIER
        if vector >= max(self.controller["nvi"], 1):
            return INVALID_INTERRUPT_VECTOR
        if self.machine.generation(self.primary).vectors_before_queues and self.vectors() == 0:
            io.setdefault("dead", []).append(vector)
        attributes = _CONTIGUOUS | _INTERRUPTS_ENABLED | vector << 16
        io["cqs"][str(qid)] = {
            "prp1": prp1,
            "size": size,
            "attributes": attributes,
            "head": 0,
            "tail": 0,
            "phase": 1,
        }
        return 0

    def create_io_sq(self, qid: int, *, prp1: int, size: int, cqid: int) -> int:
        """Create an I/O submission queue of ``size`` entries, 0's based; return the status."""
        io = self.io
        status = self._check(qid, size)
        if status or io is None:
            return status or INVALID_QUEUE_IDENTIFIER
        if str(qid) in io["sqs"]:
            return INVALID_QUEUE_IDENTIFIER
        if str(cqid) not in io["cqs"]:
            return COMPLETION_QUEUE_INVALID
        io["sqs"][str(qid)] = {
            "prp1": prp1,
            "size": size,
            "cqid": cqid,
            "attributes": _CONTIGUOUS,
            "head": 0,
            "tail": 0,
        }
        return 0

    def delete_io_queue(self, kind: Literal["sqs", "cqs"], qid: int) -> int:
        """Delete an I/O queue; return the status."""
        io = self.io
        if io is None or str(qid) not in io[kind]:
            return INVALID_QUEUE_IDENTIFIER
        if kind == "cqs" and any(queue["cqid"] == qid for queue in io["sqs"].values()):
            return INVALID_QUEUE_DELETION
        del io[kind][str(qid)]
        return 0

    def _check(self, qid: int, size: int) -> int:
        if self.csts != CSTS_READY or not 1 <= qid < self.controller["nvq"]:
            return INVALID_QUEUE_IDENTIFIER
        if not 1 <= size < self.machine.generation(self.primary).queue_entries_max:
            return INVALID_QUEUE_SIZE
        return 0

    def ring_sq(self, qid: int, tail: int) -> None:
        """Write a submission queue's tail doorbell; one of a queue that is not there is lost."""
        queue = self.io["sqs"].get(str(qid)) if self.io is not None else None
        if queue is not None and tail <= queue["size"]:
            queue["tail"] = tail

    def ring_cq(self, qid: int, head: int) -> None:
        """Write a completion queue's head doorbell; one of a queue that is not there is lost."""
        queue = self.io["cqs"].get(str(qid)) if self.io is not None else None
        if queue is not None and head <= queue["size"]:
            queue["head"] = head
