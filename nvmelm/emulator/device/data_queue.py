"""Controller Data Queues: memory of the host in which the controller posts what changed.

The queue's memory must stay where it is for as long as the queue lives. A queue whose command carried a plain buffer
is what the kernel's passthrough makes of it: the buffer is unmapped when the command ends, so every entry goes to
memory that belongs to somebody else. It is counted in the queue's ``wild``, and nobody ever reads it.

Source: NVM Express Base Specification 2.1, Controller Data Queue command; Controller Data Queue feature; NVM Command
Set Specification 1.2, LBA Migration Queue Entry Type 0.
"""

from __future__ import annotations

from nvmelm.emulator.device.command_words import CREATE_QUEUE_10, CREATE_QUEUE_11, QUEUE_11, QUEUE_FEATURE_11
from nvmelm.emulator.device.request import (
    CONTROLLER_SUSPENDED,
    INVALID_CONTROLLER_IDENTIFIER,
    INVALID_DATA_QUEUE,
    INVALID_FIELD,
    PRP_OFFSET_INVALID,
    AdminRequest,
    CommandRefusal,
)
from nvmelm.emulator.machine.machine import Machine
from nvmelm.emulator.machine.memory import PAGE
from nvmelm.emulator.machine.state import DataQueue, EmulatedController, EmulatedPrimary
from nvmelm.wire.data_queue import DataQueueFeature
from nvmelm.wire.opcodes import DataQueueSelect, DataQueueType
from nvmelm.wire.tracking import EntryMarker, MigrationQueueEntry, pack_entry

_ENTRY_DWORDS = MigrationQueueEntry.size // 4


def controller_data_queue(request: AdminRequest) -> tuple[int, bytes]:
    """Create or delete a queue."""
    match request.select:
        case DataQueueSelect.CREATE:
            return _create(request), b""
        case DataQueueSelect.DELETE:
            delete(request.primary, QUEUE_11.unpack(request.command.cdw11)["cdqid"])
            return 0, b""
    raise CommandRefusal(INVALID_FIELD)


def _create(request: AdminRequest) -> int:
    command, primary, row = request.command, request.primary, request.row
    word = CREATE_QUEUE_11.unpack(command.cdw11)
    controller = request.secondary(word["cntlid"])
    dwords, contiguous = command.cdw12, word["pc"]
    kind = CREATE_QUEUE_10.unpack(command.cdw10)["qt"]
    slots, remainder = divmod(dwords, _ENTRY_DWORDS)
    if kind != DataQueueType.USER_DATA_MIGRATION_QUEUE or not row.user_data_logging:
        raise CommandRefusal(INVALID_FIELD)
    if remainder or slots < 2 or (row.contiguous_queue_only and not contiguous) or controller["udmq"]:
        raise CommandRefusal(INVALID_FIELD)
    if row.data_queues and len(primary["queues"]) >= row.data_queues:
        raise CommandRefusal(row.data_queue_limit_status)
    pages = [] if contiguous else _page_list(request, dwords * 4)
    if contiguous:
        request.data_out(dwords * 4)
    queue_id = primary["next_queue"]
    primary["next_queue"] += 1
    controller["udmq"] = queue_id
    primary["queues"][str(queue_id)] = DataQueue(
        cntlid=controller["cntlid"],
        slots=slots,
        memory=request.memory,
        pages=pages,
        head=0,
        tail=0,
        phase=1,
        logging=False,
        full=False,
        trigger=-1,
        wild=0,
    )
    return queue_id


def _page_list(request: AdminRequest, length: int) -> list[int]:
    """Return the pages of a queue that is not contiguous: the buffer is a PRP list of addresses in the same memory."""
    count = -(-length // PAGE)
    raw = request.data_out(8 * count)
    pages = [int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8)]
    if any(page % PAGE for page in pages):
        raise CommandRefusal(PRP_OFFSET_INVALID)
    if request.row.data_queue_ranges and count > request.row.data_queue_ranges:
        raise CommandRefusal(INVALID_FIELD)
    return pages


def find(primary: EmulatedPrimary, queue_id: int) -> DataQueue:
    """Return a queue, or refuse the command."""
    queue = primary["queues"].get(str(queue_id))
    if queue is None:
        raise CommandRefusal(INVALID_DATA_QUEUE)
    return queue


def delete(primary: EmulatedPrimary, queue_id: int) -> None:
    """Delete a queue; what it had posted stays in the host's memory."""
    queue = find(primary, queue_id)
    del primary["queues"][str(queue_id)]
    controller = primary["secondaries"].get(str(queue["cntlid"]))
    if controller is not None:
        controller["udmq"] = 0


def set_head(request: AdminRequest) -> tuple[int, bytes]:
    """Set Features, Controller Data Queue: the host has read up to a slot."""
    command = request.command
    word = QUEUE_FEATURE_11.unpack(command.cdw11)
    queue = find(request.primary, word["cdqid"])
    head, trigger = command.cdw12, command.cdw13
    armed = bool(word["etpt"])
    waiting = (queue["tail"] - queue["head"]) % queue["slots"]
    if head >= queue["slots"] or (head - queue["head"]) % queue["slots"] > waiting:
        raise CommandRefusal(INVALID_FIELD)
    if armed and trigger >= queue["slots"]:
        raise CommandRefusal(INVALID_FIELD)
    queue["head"] = head
    queue["trigger"] = trigger if armed else -1
    return 0, b""


def get_head(request: AdminRequest) -> tuple[int, bytes]:
    """Get Features, Controller Data Queue."""
    queue = find(request.primary, QUEUE_11.unpack(request.command.cdw11)["cdqid"])
    armed = queue["trigger"] >= 0
    data = DataQueueFeature.pack(hp=queue["head"], tpt=max(queue["trigger"], 0))
    return QUEUE_FEATURE_11.pack(etpt=armed), data


def log(request: AdminRequest, *, start: bool) -> None:
    """Start or stop logging user data changes."""
    queue = find(request.primary, QUEUE_11.unpack(request.command.cdw11)["cdqid"])
    controller = request.secondary(queue["cntlid"], INVALID_CONTROLLER_IDENTIFIER)
    if controller["suspended"]:
        raise CommandRefusal(CONTROLLER_SUSPENDED)
    if start and queue["logging"]:
        raise CommandRefusal(INVALID_DATA_QUEUE)
    if start:
        queue["logging"], queue["full"] = True, False
        _post(request.machine, queue, marker=EntryMarker.FIRST)
    elif queue["logging"]:
        queue["logging"] = False
        _post(request.machine, queue, marker=EntryMarker.LAST_STOPPED)


def changed(
    machine: Machine, primary: EmulatedPrimary, controller: EmulatedController, nsid: int, blocks: tuple[int, int]
) -> None:
    """Log that a controller changed blocks ``[start, end)``."""
    queue = _logging(primary, controller)
    if queue is not None:
        _post(machine, queue, nsid=nsid, blocks=blocks)


def suspended(
    machine: Machine, primary: EmulatedPrimary, controller: EmulatedController, *, delete_queue: bool
) -> None:
    """Post the marker of a suspend, and delete the queue if that was asked for."""
    queue = _logging(primary, controller)
    if queue is not None:
        _post(machine, queue, marker=EntryMarker.LAST_SUSPENDED)
    if delete_queue and controller["udmq"]:
        delete(primary, controller["udmq"])


def resumed(machine: Machine, primary: EmulatedPrimary, controller: EmulatedController) -> None:
    """Post the marker of a resume."""
    queue = _logging(primary, controller)
    if queue is not None:
        _post(machine, queue, marker=EntryMarker.FIRST)


def _logging(primary: EmulatedPrimary, controller: EmulatedController) -> DataQueue | None:
    queue = primary["queues"].get(str(controller["udmq"]))
    return queue if queue is not None and queue["logging"] else None


def _post(
    machine: Machine,
    queue: DataQueue,
    *,
    nsid: int = 0,
    blocks: tuple[int, int] | None = None,
    marker: int = EntryMarker.MIDDLE,
) -> None:
    """Put an entry into the next slot; the last free slot ends the log, unless another last entry goes there."""
    used = (queue["tail"] - queue["head"]) % queue["slots"]
    if used >= queue["slots"] - 1:
        queue["logging"] = False
        return
    if used == queue["slots"] - 2 and marker in (EntryMarker.MIDDLE, EntryMarker.FIRST):
        queue["logging"], queue["full"] = False, True
        nsid, blocks, marker = 0, None, EntryMarker.LAST_FULL
    raw = pack_entry(phase=queue["phase"], nsid=nsid, blocks=blocks, marker=marker)
    _write(machine, queue, raw)
    if queue["tail"] == queue["trigger"]:
        queue["trigger"] = -1  # one-shot: the event fires, and has to be armed again
    queue["tail"] += 1
    if queue["tail"] == queue["slots"]:
        queue["tail"], queue["phase"] = 0, queue["phase"] ^ 1


def _write(machine: Machine, queue: DataQueue, raw: bytes) -> None:
    offset = queue["tail"] * len(raw)
    if queue["pages"]:
        offset = queue["pages"][offset // PAGE] + offset % PAGE
    if not queue["memory"]:
        queue["wild"] += 1
        return
    try:
        machine.memory(queue["memory"]).write(offset, raw)
    except ValueError:
        queue["wild"] += 1
