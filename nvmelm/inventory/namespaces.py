"""Which namespaces controlled functions see, by their primary controller; attachments are cells of a plan.

Source: NVM Express Base Specification 2.1, Namespace Attachment command; Identify CNS 02h, 10h, 12h.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from nvmelm.commands import AdminCommandError, listing
from nvmelm.errors import MalformedError, ReplayMismatchError
from nvmelm.host import AdminQueue
from nvmelm.inventory.picture import Picture


def with_namespaces(queue: AdminQueue, picture: Picture, cntlids: Collection[int]) -> Picture:
    """Return a picture with the namespaces that are attached to some of its controlled functions.

    Raises:
        AdminCommandError: the device does not tell which controllers a namespace is attached to.
    """
    attached = {nsid: frozenset(listing.all_attached_controllers(queue, nsid)) for nsid in _nsids(queue)}
    secondaries = (
        replace(secondary, namespaces=tuple(nsid for nsid, ids in attached.items() if secondary.cntlid in ids))
        if secondary.cntlid in cntlids
        else secondary
        for secondary in picture.secondaries
    )
    return replace(picture, secondaries=tuple(secondaries))


def shown(queue: AdminQueue, picture: Picture) -> Picture:
    """Return a picture with the namespaces of every VF that is enabled, as far as the device tells them."""
    enabled = [secondary.cntlid for secondary in picture.secondaries if secondary.present]
    if not enabled:
        return picture
    try:
        return with_namespaces(queue, picture, enabled)
    except (AdminCommandError, MalformedError, ReplayMismatchError):  # a recording of before did not ask
        return picture


def _nsids(queue: AdminQueue) -> list[int]:
    """Return the namespaces there are; without namespace management those this controller sees."""
    try:
        return sorted(listing.all_allocated_namespaces(queue))
    except AdminCommandError:
        return sorted(listing.all_active_namespaces(queue))
