"""Which namespaces a controlled function sees: attached and detached through its primary controller.

Source: NVM Express Base Specification 2.1, Namespace Attachment command; Identify CNS 11h, 12h.
"""

from __future__ import annotations

from collections.abc import Sequence

from nvmelm.commands import execute, listing, namespace
from nvmelm.operations.session import Session


def attach_exactly(session: Session, cntlid: int, wanted: Sequence[int]) -> bool:
    """Attach a controller to some namespaces and detach it from all others; return whether anything changed.

    What is missing is attached before what is too much is detached.

    Raises:
        AdminCommandError: the device refused; what was done before that stands, and a second run goes on from there.
    """
    queue = session.queue
    known = listing.all_allocated_namespaces(queue)
    attached = [nsid for nsid in known if cntlid in listing.all_attached_controllers(queue, nsid)]
    missing = [nsid for nsid in wanted if nsid not in attached]
    extra = [nsid for nsid in attached if nsid not in wanted]
    for nsid in missing:
        execute(queue, namespace.attach(nsid, [cntlid]))
    for nsid in extra:
        execute(queue, namespace.detach(nsid, [cntlid]))
    return bool(missing or extra)
