"""The I/O side of a controller: it fetches commands from queues in memory, and completes them there.

Fetching and completing are two steps, so that commands can be in flight between them. A suspend completes what was
fetched and fetches no more; the head of each submission queue then says exactly where a destination has to go on.

Sources: NVM Express Base Specification 2.1, Memory-Based Transport Queue Model, Physical Region Page Entry and List;
NVM Command Set Specification 1.2, Read, Write, Write Zeroes and Flush commands.
"""

from __future__ import annotations

from nvmelm.emulator.device import data_queue, media
from nvmelm.emulator.device.command_words import BLOCKS_12, qword
from nvmelm.emulator.device.request import (
    DATA_TRANSFER_ERROR,
    INVALID_FIELD,
    INVALID_NAMESPACE,
    INVALID_OPCODE,
    LBA_OUT_OF_RANGE,
    CommandRefusal,
)
from nvmelm.emulator.device.resets import CSTS_FATAL
from nvmelm.emulator.device.tracking import written
from nvmelm.emulator.machine.generations import NamespaceRow
from nvmelm.emulator.machine.machine import Machine
from nvmelm.emulator.machine.memory import PAGE, Memory
from nvmelm.emulator.machine.state import CompletionQueue, EmulatedController, EmulatedPrimary, Io
from nvmelm.wire.opcodes import IoOpcode
from nvmelm.wire.queue_entry import CompletionQueueEntry, SubmissionQueueEntry

SQE_BYTES = SubmissionQueueEntry.size
CQE_BYTES = CompletionQueueEntry.size
CSTS_READY = 0x1
CC_ENABLE = 0x1
_BUS_MASTER = 0x4  # of the Command register


class Engine:
    """What a controller does by itself with its queues; lives inside a transaction."""

    def __init__(self, machine: Machine, primary: EmulatedPrimary, controller: EmulatedController) -> None:
        self.machine = machine
        self.primary = primary
        self.controller = controller

    @property
    def io(self) -> Io | None:
        """Return registers and queues, None when nobody enabled or holds the controller."""
        return self.controller["io"]

    @property
    def works(self) -> bool:
        """Return whether the controller fetches commands now."""
        io = self.io
        return (
            io is not None
            and self.controller["online"]
            and not self.controller["suspended"]
            and not self.primary["gone"]
            and bool(io["cc"] & CC_ENABLE)
            and io["csts"] == CSTS_READY
            and bool(io["memory"])
            and self._masters
        )

    @property
    def _masters(self) -> bool:
        """Return whether the function may do DMA: bus master is on, where a VMM has said anything about it."""
        function = self.machine.function_of(self.primary, self.controller)
        holder = self.machine.opened(function["bdf"]) if function is not None else None
        return holder is None or bool(holder.get("command", _BUS_MASTER) & _BUS_MASTER)

    def fetch(self, limit: int) -> int:
        """Fetch up to ``limit`` commands, one from each submission queue in turn; return how many."""
        io = self.io
        if io is None or not self.works:
            return 0
        memory, fetched, progress = self.machine.memory(io["memory"]), 0, True
        while fetched < limit and progress:
            progress = False
            for number, queue in io["sqs"].items():
                if queue["head"] == queue["tail"] or fetched == limit:
                    continue
                try:
                    raw = memory.read(queue["prp1"] + SQE_BYTES * queue["head"], SQE_BYTES)
                except ValueError:
                    io["csts"] = CSTS_FATAL  # the queue lies where no memory is
                    return fetched
                queue["head"] = (queue["head"] + 1) % (queue["size"] + 1)
                io["inflight"].append({"sqid": int(number), "entry": raw.hex()})
                fetched, progress = fetched + 1, True
        return fetched

    def complete(self, limit: int, *, newest_first: bool = False) -> int:
        """Complete up to ``limit`` fetched commands; return how many. A full completion queue stops it.

        Args:
            newest_first: complete out of order, as a controller may.
        """
        io = self.io
        if io is None or self.primary["gone"] or not io["memory"]:
            return 0
        memory, done = self.machine.memory(io["memory"]), 0
        while io["inflight"] and done < limit:
            fetched = io["inflight"][-1 if newest_first else 0]
            queue = io["cqs"][str(io["sqs"][str(fetched["sqid"])]["cqid"])]
            if (queue["tail"] + 1) % (queue["size"] + 1) == queue["head"]:
                break
            io["inflight"].pop(-1 if newest_first else 0)
            self._complete(io, memory, fetched["sqid"], queue, SubmissionQueueEntry(bytes.fromhex(fetched["entry"])))
            done += 1
        return done

    def _complete(self, io: Io, memory: Memory, sqid: int, queue: CompletionQueue, entry: SubmissionQueueEntry) -> None:
        try:
            self._run(memory, entry)
            status = 0
        except CommandRefusal as refusal:
            status = refusal.status
        raw = CompletionQueueEntry.pack(
            sqhd=io["sqs"][str(sqid)]["head"], sqid=sqid, cid=entry.cid, status=status << 1 | queue["phase"]
        )
        address = queue["prp1"] + CQE_BYTES * queue["tail"]
        memory.write(address, raw)
        written(self.controller, address, CQE_BYTES)
        queue["tail"] += 1
        if queue["tail"] > queue["size"]:
            queue["tail"], queue["phase"] = 0, queue["phase"] ^ 1
        io["completed"] += 1
        if queue["attributes"] >> 1 & 1:
            self.interrupt(queue["attributes"] >> 16)

    def interrupt(self, vector: int) -> None:
        """Raise a vector; one that the VMM has not set up, or that is dead, is lost."""
        io = self.io
        if io is None or vector in io.get("dead", []):
            return
        function = self.machine.function_of(self.primary, self.controller)
        holder = self.machine.opened(function["bdf"]) if function is not None else None
        if holder is not None and vector >= holder.get("vectors", vector + 1):
            return
        io["interrupts"] += 1
        raised = io.setdefault("raised", {})
        raised[str(vector)] = raised.get(str(vector), 0) + 1

    def _run(self, memory: Memory, entry: SubmissionQueueEntry) -> None:
        row = self.machine.generation(self.primary)
        opcode = entry.opcode
        if not any(code == opcode for code, _ in row.io_effects):
            raise CommandRefusal(INVALID_OPCODE)
        attached = self.primary["attached"].get(str(entry.nsid), [])
        spec = next((namespace for namespace in row.namespaces if namespace.nsid == entry.nsid), None)
        if spec is None or self.controller["cntlid"] not in attached:
            raise CommandRefusal(INVALID_NAMESPACE)
        if opcode == IoOpcode.FLUSH:
            return
        if opcode not in (IoOpcode.READ, IoOpcode.WRITE, IoOpcode.WRITE_ZEROES):
            raise CommandRefusal(INVALID_OPCODE)
        start = qword(entry.cdw10, entry.cdw11)
        count = BLOCKS_12.unpack(entry.cdw12)["nlb"] + 1
        if (start + count) << spec.lba_shift > spec.size:
            raise CommandRefusal(LBA_OUT_OF_RANGE)
        self._transfer(memory, entry, spec, start, count, row.mdts_bytes)

    def _transfer(
        self, memory: Memory, entry: SubmissionQueueEntry, spec: NamespaceRow, start: int, count: int, limit: int
    ) -> None:
        offset, length = start << spec.lba_shift, count << spec.lba_shift
        if entry.opcode == IoOpcode.WRITE_ZEROES:
            media.zero(self.machine, self.primary, spec, offset, length)
        elif limit and length > limit:
            raise CommandRefusal(INVALID_FIELD)
        else:
            pieces = prp_pieces(memory, entry.prp1, entry.prp2, length)
            if entry.opcode == IoOpcode.READ:
                data = media.read(self.machine, self.primary, spec, offset, length)
                self._scatter(memory, pieces, data)
                return
            data = b"".join(_read(memory, address, size) for address, size in pieces)
            media.write(self.machine, self.primary, spec, offset, data)
        data_queue.changed(self.machine, self.primary, self.controller, entry.nsid, (start, start + count))

    def _scatter(self, memory: Memory, pieces: list[tuple[int, int]], data: bytes) -> None:
        at = 0
        for address, size in pieces:
            try:
                memory.write(address, data[at : at + size])
            except ValueError as error:
                raise CommandRefusal(DATA_TRANSFER_ERROR) from error
            written(self.controller, address, size)
            at += size


def _read(memory: Memory, address: int, size: int) -> bytes:
    try:
        return memory.read(address, size)
    except ValueError as error:
        raise CommandRefusal(DATA_TRANSFER_ERROR) from error


def prp_pieces(memory: Memory, prp1: int, prp2: int, length: int) -> list[tuple[int, int]]:
    """Return the pieces of memory that PRP entries describe, as (address, size)."""
    first = min(length, PAGE - prp1 % PAGE)
    pieces, left = [(prp1, first)], length - first
    if 0 < left <= PAGE:
        pieces.append((prp2, left))
        return pieces
    place = prp2
    while left > 0:
        entry = int.from_bytes(_read(memory, place, 8), "little")
        if (place + 8) % PAGE == 0 and left > PAGE:
            place = entry  # the last entry of a full list page points to the next list
            continue
        size = min(left, PAGE)
        pieces.append((entry, size))
        place, left = place + 8, left - size
    return pieces
