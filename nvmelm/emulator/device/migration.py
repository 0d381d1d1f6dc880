"""Migration Send and Migration Receive: suspend, resume, and a controller's state in and out.

What has arrived of a state that comes in parts lies in a file until its last part succeeds; then the queues of the
state exist all at once, and the file becomes the target's vendor specific state. A part that fails discards all of it,
so that the whole structure has to come again.

Source: NVM Express Base Specification 2.1, Migration Send command; Migration Receive command; Host Managed Live
Migration.
"""

from __future__ import annotations

import struct
from pathlib import Path

from nvmelm.emulator.device import controller_state, data_queue, vendor
from nvmelm.emulator.device.admin_commands import ControllerAdminQueue
from nvmelm.emulator.device.command_words import (
    MIGRATION_RECEIVE_10,
    MIGRATION_RECEIVE_11,
    MIGRATION_SEND_10,
    SET_STATE_11,
    SUSPEND_11,
    qword,
)
from nvmelm.emulator.device.engine import Engine
from nvmelm.emulator.device.registers import Port
from nvmelm.emulator.device.request import (
    COMMAND_SEQUENCE_ERROR,
    CONTROLLER_NOT_SUSPENDED,
    DATA_TRANSFER_ERROR,
    INTERNAL_ERROR,
    INVALID_CONTROLLER_IDENTIFIER,
    INVALID_FIELD,
    AdminRequest,
    CommandRefusal,
)
from nvmelm.emulator.device.resets import discard_transfer, discard_vendor_state
from nvmelm.emulator.machine.state import EmulatedController, Transfer
from nvmelm.wire.extents import Extent, merge
from nvmelm.wire.migration import ControllerStateHeader, IoCompletionQueue, IoSubmissionQueue, NvmeStateHeader
from nvmelm.wire.opcodes import MigrationReceiveSelect, MigrationSendSelect, Sequence, SuspendType

_UNLIMITED = 1 << 32
#: Where a part of a state begins and ends, in bytes. A record of the emulator's own file beside a transfer, which only
#: grows; no structure of the specification, so it is not in the wire room.
_PART = struct.Struct("<QQ")
#: No NVMe part is larger than that of a controller with every queue there can be.
_NVME_PART_MAX = NvmeStateHeader.size + 0xFFFF * (IoSubmissionQueue.size + IoCompletionQueue.size)


def migration_send(request: AdminRequest) -> tuple[int, bytes]:
    """Suspend, resume, or set state."""
    cntlid = SUSPEND_11.unpack(request.command.cdw11)["cntlid"]
    controller = request.secondary(cntlid, request.row.bad_cntlid_send)
    match request.select:
        case MigrationSendSelect.SUSPEND:
            _suspend(request, controller)
        case MigrationSendSelect.RESUME:
            _resume(request, controller)
        case MigrationSendSelect.SET_CONTROLLER_STATE:
            _set_state(request, controller)
        case _:
            raise CommandRefusal(INVALID_FIELD)
    return 0, b""


def _suspend(request: AdminRequest, controller: EmulatedController) -> None:
    word = SUSPEND_11.unpack(request.command.cdw11)
    kind = word["stype"]
    if kind not in (SuspendType.SUSPEND_NOTIFICATION, SuspendType.SUSPEND):
        raise CommandRefusal(INVALID_FIELD)
    if not controller["online"] and not request.row.suspends_offline:
        raise CommandRefusal(INVALID_CONTROLLER_IDENTIFIER)
    if kind == SuspendType.SUSPEND_NOTIFICATION:
        controller["notified"] = True
        return
    if controller["suspended"]:
        return
    Engine(request.machine, request.primary, controller).complete(_UNLIMITED)
    admin_done = ControllerAdminQueue(Port(request.machine, request.primary, controller), request.execute).finish()
    if not admin_done or (controller["io"] is not None and controller["io"]["inflight"]):
        # A full completion queue keeps a command from completing; a later try finds it read.
        raise CommandRefusal(INTERNAL_ERROR & ~0x4000)
    controller["suspended"] = True
    data_queue.suspended(request.machine, request.primary, controller, delete_queue=bool(word["dudmq"]))


def _resume(request: AdminRequest, controller: EmulatedController) -> None:
    if not controller["suspended"]:
        raise CommandRefusal(CONTROLLER_NOT_SUSPENDED)
    if controller["transfer"] is not None:
        raise CommandRefusal(COMMAND_SEQUENCE_ERROR)
    controller["suspended"] = controller["notified"] = False
    ControllerAdminQueue(Port(request.machine, request.primary, controller), request.execute).work()
    data_queue.resumed(request.machine, request.primary, controller)


def migration_receive(request: AdminRequest) -> tuple[int, bytes]:
    """Get Controller State."""
    command, row = request.command, request.row
    word = MIGRATION_RECEIVE_11.unpack(command.cdw11)
    controller = request.secondary(word["cntlid"], row.bad_cntlid_receive)
    version, format_ = MIGRATION_RECEIVE_10.unpack(command.cdw10)["csvi"], word["csuuidi"]
    start, length = qword(command.cdw12, command.cdw13), 4 * (command.cdw15 + 1)
    if request.select != MigrationReceiveSelect.GET_CONTROLLER_STATE:
        raise CommandRefusal(INVALID_FIELD)
    if version > len(row.state_versions) or format_ > len(row.vendor_uuids) or start % 4:
        raise CommandRefusal(INVALID_FIELD)
    if command.data_in_length < length:
        raise CommandRefusal(DATA_TRANSFER_ERROR)
    before = controller["vendor"]
    raw = controller_state.window(
        request, controller, nvme=version > 0, vendor_part=format_ > 0, offset=start, length=length
    )
    if controller["vendor"] == before:
        request.machine.store.untouched()
    return int(controller["suspended"] and row.reports_csup), raw


def _set_state(request: AdminRequest, controller: EmulatedController) -> None:
    row, sequence = request.row, _sequence(request)
    if sequence != Sequence.ONLY and not row.multi_part:
        raise CommandRefusal(row.part_not_supported)
    if row.needs_suspension and controller["online"] and not controller["suspended"]:
        raise CommandRefusal(INVALID_CONTROLLER_IDENTIFIER)
    try:
        if sequence == Sequence.ONLY:
            _set_whole(request, controller)
            return
        if sequence == Sequence.FIRST:
            _begin(request, controller)
        _take(request, controller)
        if sequence == Sequence.LAST:
            _commit(request, controller)
    except CommandRefusal:
        discard_transfer(request.machine, controller)
        raise


def _sequence(request: AdminRequest) -> int:
    """Return SEQIND: which part of a state the data is."""
    return MIGRATION_SEND_10.unpack(request.command.cdw10)["seqind"]


def _formats(request: AdminRequest) -> tuple[int, int]:
    """Return CSVI and CSUUIDI: which parts the data has, and in which format."""
    word, row = SET_STATE_11.unpack(request.command.cdw11), request.row
    version, format_ = word["csvi"], word["csuuidi"]
    if version > len(row.state_versions) or format_ > len(row.vendor_uuids) or not (version or format_):
        raise CommandRefusal(INVALID_FIELD)
    return version, format_


def _set_whole(request: AdminRequest, controller: EmulatedController) -> None:
    """Make the target's what came in one command."""
    formats, command = _formats(request), request.command
    data = request.data_out(4 * command.cdw15)
    if command.cdw12 or command.cdw13 or len(data) < ControllerStateHeader.size:
        raise CommandRefusal(INVALID_FIELD)
    header = _checked(request, ControllerStateHeader(bytes(data[: ControllerStateHeader.size])), formats)
    if len(data) < header.total_bytes:
        raise CommandRefusal(INVALID_FIELD)
    file = ""
    if header.vss:
        file = request.machine.files.new()
        request.machine.doom(file)  # unless it becomes the controller's
        request.machine.files.write(file, data, 0)
    at = ControllerStateHeader.size + header.nvme_bytes
    _adopt(request, controller, header, formats, bytes(data[ControllerStateHeader.size : at]), file)
    discard_transfer(request.machine, controller)


def _begin(request: AdminRequest, controller: EmulatedController) -> None:
    version, format_ = _formats(request)
    discard_transfer(request.machine, controller)
    controller["transfer"] = Transfer(
        file=request.machine.files.new(), csvi=version, csuuidi=format_, covered=[], total=-1
    )


def _take(request: AdminRequest, controller: EmulatedController) -> None:
    """Put the bytes of one part where they belong."""
    transfer, command = controller["transfer"], request.command
    if transfer is None:
        raise CommandRefusal(COMMAND_SEQUENCE_ERROR)
    if _formats(request) != (transfer["csvi"], transfer["csuuidi"]):
        raise CommandRefusal(INVALID_FIELD)
    start, length = qword(command.cdw12, command.cdw13), 4 * command.cdw15
    if start % 4 or (length == 0 and _sequence(request) != Sequence.LAST):
        raise CommandRefusal(INVALID_FIELD)
    if start > ControllerStateHeader.size + _NVME_PART_MAX + request.row.vendor_state_bytes:
        raise CommandRefusal(INVALID_FIELD)
    request.machine.files.write(transfer["file"], request.data_out(length), start)
    _note(request, transfer, start, start + length)
    if 0 <= transfer["total"] < start:
        raise CommandRefusal(INVALID_FIELD)


def _note(request: AdminRequest, transfer: Transfer, start: int, end: int) -> None:
    """Remember which bytes have arrived, and what the header among them says.

    Once the header is there, parts in the middle are noted beside the state: replacing the state as a whole for each
    of thousands of parts would be most of their cost.
    """
    machine = request.machine
    if transfer["total"] >= 0 and start >= ControllerStateHeader.size and _sequence(request) == Sequence.MIDDLE:
        machine.files.append(f"{transfer['file']}.parts", _PART.pack(start, end))
        machine.store.untouched()
        return
    transfer["covered"] = [
        list(extent) for extent in merge([*_covered(transfer, machine.directory), Extent(start, end)])
    ]
    header = _header(request, transfer)
    transfer["total"] = header.total_bytes if header is not None else -1


def _covered(transfer: Transfer, directory: Path) -> list[Extent]:
    """Return the bytes that have arrived of a state."""
    path = directory / f"{transfer['file']}.parts"
    noted = [Extent(*part) for part in _PART.iter_unpack(path.read_bytes())] if path.exists() else []
    return merge([*(Extent(*part) for part in transfer["covered"]), *noted])


def _header(request: AdminRequest, transfer: Transfer) -> ControllerStateHeader | None:
    """Return the header once it has arrived, checked against what the commands say."""
    if not transfer["covered"] or transfer["covered"][0][0] or transfer["covered"][0][1] < ControllerStateHeader.size:
        return None
    header = ControllerStateHeader(request.machine.files.read(transfer["file"], ControllerStateHeader.size, 0))
    return _checked(request, header, (transfer["csvi"], transfer["csuuidi"]))


def _checked(request: AdminRequest, header: ControllerStateHeader, formats: tuple[int, int]) -> ControllerStateHeader:
    """Return a header that says what this device can take, and what the commands say."""
    if header.ver or header.nvme_bytes > _NVME_PART_MAX or header.vendor_bytes > request.row.vendor_state_bytes:
        raise CommandRefusal(INVALID_FIELD)
    if bool(header.nvmecss) != bool(formats[0]) or (header.vss and not formats[1]):
        raise CommandRefusal(INVALID_FIELD)
    return header


def _commit(request: AdminRequest, controller: EmulatedController) -> None:
    """Make the target's what has arrived in parts."""
    transfer = controller["transfer"]
    if transfer is None:
        raise CommandRefusal(COMMAND_SEQUENCE_ERROR)
    header = _header(request, transfer)
    if header is None or transfer["covered"][0][1] < header.total_bytes:
        raise CommandRefusal(INVALID_FIELD)
    raw = request.machine.files.read(transfer["file"], header.nvme_bytes, ControllerStateHeader.size)
    _adopt(request, controller, header, (transfer["csvi"], transfer["csuuidi"]), raw, transfer["file"])
    discard_transfer(request.machine, controller)


def _adopt(
    request: AdminRequest,
    controller: EmulatedController,
    header: ControllerStateHeader,
    formats: tuple[int, int],
    raw: bytes,
    file: str,
) -> None:
    """Make a state the target's: all of it, or nothing.

    Args:
        raw: its NVMe part.
        file: in which its vendor specific part lies, behind the NVMe part.
    """
    row, io = request.row, controller["io"]
    if header.nvmecss:
        io = controller_state.queues_from(request, controller, raw, row.state_versions[formats[0] - 1])
    at = ControllerStateHeader.size + header.nvme_bytes
    if header.vss and not vendor.acceptable(request.machine, row, file, at, header.vendor_bytes):
        raise CommandRefusal(INVALID_FIELD)
    controller["io"] = io
    if header.vss:
        discard_vendor_state(request.machine, controller)
        controller["vendor"], controller["vendor_at"] = file, at
        if row.restores_admin_queue:
            vendor.restore_admin_queue(request.machine, controller)
