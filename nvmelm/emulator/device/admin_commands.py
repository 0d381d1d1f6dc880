"""What a secondary controller does with the commands on its own admin queue.

The queues of the create commands become real ones; what returns data is what the same command returns on any admin
queue, put where the command's PRP entries point to, whatever lies there now.

Source: NVM Express Base Specification 2.1, Admin Command Set; Create I/O Completion Queue command; Create I/O
Submission Queue command.
"""

from __future__ import annotations

from nvmelm.emulator.device.admin_rings import AdminRings
from nvmelm.emulator.device.command_words import (
    IO_COMPLETION_QUEUE_11,
    IO_QUEUE_10,
    IO_SUBMISSION_QUEUE_11,
    LOG_PAGE_10,
)
from nvmelm.emulator.device.engine import prp_pieces
from nvmelm.emulator.device.registers import Port
from nvmelm.emulator.device.request import DATA_TRANSFER_ERROR, AdminRequest, CommandRefusal, Execute
from nvmelm.emulator.device.resets import CSTS_FATAL
from nvmelm.emulator.device.tracking import written
from nvmelm.host import AdminCommand
from nvmelm.wire.opcodes import IDENTIFY_BYTES, Opcode
from nvmelm.wire.queue_entry import SubmissionQueueEntry

_AERL = 259  # byte of Identify Controller


class ControllerAdminQueue:
    """The admin queue of one controller whose registers somebody writes; lives inside a transaction."""

    def __init__(self, port: Port, execute: Execute) -> None:
        self._port = port
        self._execute = execute

    def ring_sq(self, tail: int) -> None:
        """Write the tail doorbell: the controller fetches and completes what it can."""
        rings = self._rings()
        if rings is not None:
            rings.ring_sq(tail)
            self._work(rings)

    def ring_cq(self, head: int) -> None:
        """Write the head doorbell: what waited for room is posted."""
        rings = self._rings()
        if rings is not None:
            rings.ring_cq(head)
            self._work(rings)

    def work(self) -> None:
        """Go on, after a resume."""
        rings = self._rings()
        if rings is not None:
            self._work(rings)

    def finish(self) -> bool:
        """Complete what was fetched; return whether nothing waits for room."""
        rings = self._rings()
        return rings is None or rings.finish()

    def event(self, result: int) -> None:
        """Let an event happen, with this DW0."""
        rings = self._rings()
        if rings is not None:
            rings.event(result)

    def _work(self, rings: AdminRings) -> None:
        if not self._port.works:
            return
        try:
            rings.work()
        except ValueError:
            if self._port.io is not None:
                self._port.io["csts"] |= CSTS_FATAL  # a ring lies where no memory is

    def _rings(self) -> AdminRings | None:
        port, io = self._port, self._port.io
        if io is None or "admin" not in io or not io["memory"]:
            return None
        return AdminRings(
            io["admin"],
            port.machine.memory(io["memory"]),
            aqa=io["aqa"],
            asq=io["asq"],
            acq=io["acq"],
            run=self._run,
            limit=self._limit(),
            posted=self._posted,
        )

    def _limit(self) -> int:
        row = self._port.machine.generation(self._port.primary)
        identify = dict(row.identify)
        raw = bytes.fromhex(identify.get(_AERL - 1, "0303"))  # ACL and AERL stand side by side
        return raw[1] + 1

    def _posted(self, address: int) -> None:
        written(self._port.controller, address, 16)
        self._port.interrupt(0)

    def _run(self, entry: SubmissionQueueEntry) -> tuple[int, int]:
        created = self._queue_command(entry)
        if created is not None:
            return created, 0
        command = _admin_command(entry)
        port = self._port
        row = port.machine.generation(port.primary)
        request = AdminRequest(port.machine, port.primary, row, port.controller, command, self._execute)
        completion = self._execute(request)
        if completion.status == 0 and completion.data:
            try:
                self._scatter(entry, completion.data)
            except CommandRefusal as refusal:
                return refusal.status, 0
        return completion.status, completion.result & 0xFFFF_FFFF

    def _scatter(self, entry: SubmissionQueueEntry, data: bytes) -> None:
        io = self._port.io
        if io is None:
            return
        memory, at = self._port.machine.memory(io["memory"]), 0
        for address, size in prp_pieces(memory, entry.prp1, entry.prp2, len(data)):
            try:
                memory.write(address, data[at : at + size])
            except ValueError as error:
                raise CommandRefusal(DATA_TRANSFER_ERROR) from error
            written(self._port.controller, address, size)
            at += size

    def _queue_command(self, entry: SubmissionQueueEntry) -> int | None:
        """Create or delete an I/O queue and return the status; None for another command."""
        port, word = self._port, IO_QUEUE_10.unpack(entry.cdw10)
        qid, size = word["qid"], word["qsize"]
        match entry.opcode:
            case Opcode.CREATE_IO_COMPLETION_QUEUE:
                vector = IO_COMPLETION_QUEUE_11.unpack(entry.cdw11)["iv"]
                return port.create_io_cq(qid, prp1=entry.prp1, size=size, vector=vector)
            case Opcode.CREATE_IO_SUBMISSION_QUEUE:
                cqid = IO_SUBMISSION_QUEUE_11.unpack(entry.cdw11)["cqid"]
                return port.create_io_sq(qid, prp1=entry.prp1, size=size, cqid=cqid)
            case Opcode.DELETE_IO_SUBMISSION_QUEUE:
                return port.delete_io_queue("sqs", qid)
            case Opcode.DELETE_IO_COMPLETION_QUEUE:
                return port.delete_io_queue("cqs", qid)
        return None


def _admin_command(entry: SubmissionQueueEntry) -> AdminCommand:
    length = {Opcode.IDENTIFY: IDENTIFY_BYTES, Opcode.GET_LOG_PAGE: 4 * (LOG_PAGE_10.unpack(entry.cdw10)["numdl"] + 1)}
    return AdminCommand(
        name=f"admin command {entry.opcode:#04x}",
        opcode=entry.opcode,
        nsid=entry.nsid,
        cdw10=entry.cdw10,
        cdw11=entry.cdw11,
        cdw12=entry.cdw12,
        cdw13=entry.cdw13,
        cdw14=entry.cdw14,
        cdw15=entry.cdw15,
        data_in_length=next((size for opcode, size in length.items() if opcode == entry.opcode), 0),
    )
