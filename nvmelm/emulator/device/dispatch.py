"""The admin queue's other end: one command in, one completion out."""

from __future__ import annotations

from collections.abc import Callable

from nvmelm.emulator.device import attachment, data_queue, features, identify, migration, tracking, virtualization
from nvmelm.emulator.device.request import INVALID_FIELD, INVALID_OPCODE, AdminRequest, Answer, CommandRefusal
from nvmelm.host import Completion
from nvmelm.wire.opcodes import Opcode

Handler = Callable[[AdminRequest], Answer]

#: Commands that leave everything as it is, so the state need not be written.
READ_ONLY = frozenset({Opcode.GET_LOG_PAGE, Opcode.IDENTIFY, Opcode.GET_FEATURES, Opcode.ABORT})


def execute(request: AdminRequest) -> Completion:
    """Run one admin command."""
    command, row = request.command, request.row
    handler = _handler(request)
    try:
        if handler is None:
            raise CommandRefusal(INVALID_OPCODE)
        if row.mdts_bytes and command.data_length > row.mdts_bytes:
            raise CommandRefusal(INVALID_FIELD)
        result, data = handler(request)
    except CommandRefusal as refusal:
        return Completion(refusal.status, refusal.result, bytes(command.data_in_length))
    if command.data_in_length and len(data) != command.data_in_length:
        data = data[: command.data_in_length].ljust(command.data_in_length, b"\0")
    return Completion(0, result, data)


def _handler(request: AdminRequest) -> Handler | None:
    opcode = request.command.opcode
    if not request.row.supports(opcode):
        return None
    if not request.is_primary and opcode in _PRIMARY_ONLY:
        return None
    return _HANDLERS.get(opcode)


#: A migratable controller has none of these (Base Specification 2.1, Host Managed Live Migration).
_PRIMARY_ONLY = frozenset(
    {
        Opcode.TRACK_SEND,
        Opcode.TRACK_RECEIVE,
        Opcode.MIGRATION_SEND,
        Opcode.MIGRATION_RECEIVE,
        Opcode.CONTROLLER_DATA_QUEUE,
    }
)


def _abort(_: AdminRequest) -> Answer:
    """Answer Abort: the command was not aborted (DW0 bit 0), since no admin command waits here."""
    return 1, b""


_HANDLERS: dict[int, Handler] = {
    Opcode.GET_LOG_PAGE: identify.get_log_page,
    Opcode.IDENTIFY: identify.identify,
    Opcode.ABORT: _abort,
    Opcode.SET_FEATURES: features.set_features,
    Opcode.GET_FEATURES: features.get_features,
    Opcode.NAMESPACE_ATTACHMENT: attachment.namespace_attachment,
    Opcode.VIRTUALIZATION_MANAGEMENT: virtualization.manage,
    Opcode.TRACK_SEND: tracking.track_send,
    Opcode.TRACK_RECEIVE: tracking.track_receive,
    Opcode.MIGRATION_SEND: migration.migration_send,
    Opcode.MIGRATION_RECEIVE: migration.migration_receive,
    Opcode.CONTROLLER_DATA_QUEUE: data_queue.controller_data_queue,
}
