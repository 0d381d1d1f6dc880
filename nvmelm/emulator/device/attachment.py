"""Namespace Attachment: which controllers see which namespaces.

Source: NVM Express Base Specification 2.1, Namespace Attachment command.
"""

from __future__ import annotations

from nvmelm.emulator.device.command_words import ATTACHMENT_10
from nvmelm.emulator.device.request import (
    CONTROLLER_LIST_INVALID,
    INVALID_FIELD,
    INVALID_NAMESPACE,
    NAMESPACE_ALREADY_ATTACHED,
    NAMESPACE_NOT_ATTACHED,
    AdminRequest,
    CommandRefusal,
)
from nvmelm.errors import MalformedError
from nvmelm.wire.identify import parse_controller_list
from nvmelm.wire.opcodes import IDENTIFY_BYTES, AttachmentSelect


def namespace_attachment(request: AdminRequest) -> tuple[int, bytes]:
    """Attach controllers to a namespace, or detach them; all of them or none."""
    attached = request.primary["attached"].get(str(request.command.nsid))
    if attached is None:
        raise CommandRefusal(INVALID_NAMESPACE)
    try:
        wanted = parse_controller_list(request.data_out(IDENTIFY_BYTES))
    except MalformedError as error:
        raise CommandRefusal(CONTROLLER_LIST_INVALID) from error
    first = request.primary["first_cntlid"]
    if not wanted or not all(first <= cntlid <= first + request.row.max_vfs for cntlid in wanted):
        raise CommandRefusal(CONTROLLER_LIST_INVALID)
    match ATTACHMENT_10.unpack(request.command.cdw10)["sel"]:
        case AttachmentSelect.CONTROLLER_ATTACH:
            if set(wanted) & set(attached):
                raise CommandRefusal(NAMESPACE_ALREADY_ATTACHED)
            attached.extend(wanted)
        case AttachmentSelect.CONTROLLER_DETACH:
            if not set(wanted) <= set(attached):
                raise CommandRefusal(NAMESPACE_NOT_ATTACHED)
            request.primary["attached"][str(request.command.nsid)] = [
                cntlid for cntlid in attached if cntlid not in wanted
            ]
        case _:
            raise CommandRefusal(INVALID_FIELD)
    return 0, b""
