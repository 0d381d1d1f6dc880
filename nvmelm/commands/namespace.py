"""Builders of Namespace Attachment: which controllers see a namespace.

Attachments survive resets, and a secondary going offline. A migrated controller needs at the destination the
namespaces it had at the source.

Source: NVM Express Base Specification 2.1, "Namespace Attachment command".
"""

from __future__ import annotations

from collections.abc import Iterable

from nvmelm.host import AdminCommand
from nvmelm.wire.identify import build_controller_list
from nvmelm.wire.layout import Word
from nvmelm.wire.opcodes import AttachmentSelect, Opcode

CDW10 = Word(sel="3:0")
NSID = Word(nsid="31:0")


def attach(nsid: int, cntlids: Iterable[int]) -> AdminCommand:
    """Build Namespace Attachment, Controller Attach.

    Args:
        nsid: an allocated namespace.
        cntlids: one or more controllers, 2047 at most.

    Status to expect:
        Namespace Already Attached: to one of them.
        Namespace Is Private: it is attached to another controller and cannot be shared.
        Controller List Invalid: one of them does not exist.
        Invalid Namespace or Format: no such namespace.

    Raises:
        ValueError: no controller, too many, one named twice, or an id that does not fit.

    Source: NVM Express Base Specification 2.1, "Namespace Attachment command", Controller Attach.
    """
    return _attachment("Controller Attach", AttachmentSelect.CONTROLLER_ATTACH, nsid, cntlids)


def detach(nsid: int, cntlids: Iterable[int]) -> AdminCommand:
    """Build Namespace Attachment, Controller Detach.

    Args:
        nsid: an allocated namespace.
        cntlids: one or more controllers, 2047 at most.

    Status to expect:
        Namespace Not Attached: to one of them.
        Controller List Invalid: one of them does not exist.
        Invalid Namespace or Format: no such namespace.

    Raises:
        ValueError: no controller, too many, one named twice, or an id that does not fit.

    Source: NVM Express Base Specification 2.1, "Namespace Attachment command", Controller Detach.
    """
    return _attachment("Controller Detach", AttachmentSelect.CONTROLLER_DETACH, nsid, cntlids)


def _attachment(what: str, select: AttachmentSelect, nsid: int, cntlids: Iterable[int]) -> AdminCommand:
    ids = sorted(cntlids)
    if not ids or len(set(ids)) != len(ids):
        raise ValueError(f"controllers {ids}: name one or more, each once")
    return AdminCommand(
        name=f"Namespace Attachment ({what})",
        opcode=Opcode.NAMESPACE_ATTACHMENT,
        nsid=NSID.pack(nsid=nsid),
        cdw10=CDW10.pack(sel=select),
        data_out=build_controller_list(ids),
    )
