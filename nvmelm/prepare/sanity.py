"""Do the lists and counts of a device agree with each other? What does not is never acted on.

Each answer of a device may be well formed and still be nonsense beside another one: two secondary controllers that
claim one VF would have a plan write to the wrong function, and more resources given out than there are would have it
promise what the device cannot keep.

Source: NVM Express Base Specification 2.1, Secondary Controller List, Primary Controller Capabilities.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from nvmelm.errors import MalformedError
from nvmelm.inventory.picture import Picture, Resources

_FIX = "reset the controller and ask again; else run nvmelm show with --record FILE for the controller's vendor"


def contradictions(picture: Picture) -> Iterator[str]:
    """Yield what of a device's answers cannot be true at once, one sentence each; nothing where all agree."""
    yield from _of_list(picture)
    yield from _of_counts("VQ", picture.primary.vq)
    yield from _of_counts("VI", picture.primary.vi)


def require_sense(picture: Picture) -> None:
    """Refuse to change a device whose list of secondary controllers cannot be true.

    Raises:
        MalformedError: each contradiction is named.
    """
    nonsense = list(_of_list(picture))
    if nonsense:
        message = f"the secondary controllers of {picture.primary.address} contradict each other"
        raise MalformedError(message, cause="; ".join(nonsense[:4]), fix=_FIX, reason="contradiction")


def require_counts(picture: Picture, kind: str) -> None:
    """Refuse to share out resources of one type, ``vq`` or ``vi``, whose counts cannot be true.

    Raises:
        MalformedError: each contradiction is named.
    """
    nonsense = list(_of_counts(kind.upper(), getattr(picture.primary, kind)))
    if nonsense:
        message = f"the counts of {picture.primary.address}'s {kind.upper()} resources contradict each other"
        raise MalformedError(message, cause="; ".join(nonsense), fix=_FIX, reason="contradiction")


def _of_list(picture: Picture) -> Iterator[str]:
    primary = picture.primary
    numbered = sorted(
        (secondary.vf_number, secondary.cntlid) for secondary in picture.secondaries if secondary.vf_number
    )
    for number, rows in groupby(numbered, key=lambda row: row[0]):
        names = [f"{cntlid:#06x}" for _, cntlid in rows]
        if len(names) > 1:
            yield f"{' and '.join(names)} both claim VF {number}"
        if number > primary.vfs_total:
            yield f"{names[0]} is said to be VF {number}, and TotalVFs is {primary.vfs_total}"
    for secondary in picture.secondaries:
        if secondary.cntlid == primary.cntlid:
            yield f"{secondary.cntlid:#06x} is the primary controller and its own secondary"
        elif secondary.primary_cntlid != primary.cntlid:
            owner = secondary.primary_cntlid
            yield f"{secondary.cntlid:#06x} is a secondary of {owner:#06x}, and this is {primary.cntlid:#06x}"


def _of_counts(name: str, resources: Resources | None) -> Iterator[str]:
    if resources is None or not resources.supported:
        return
    assigned, allocated = resources.assigned_to_secondaries, resources.allocated_to_primary
    if assigned + allocated > resources.flexible_total:
        yield (
            f"{assigned} {name} resources of secondaries ({name}RFA) and {allocated} of the primary ({name}RFAP) are "
            f"more than the {resources.flexible_total} there are ({name}FRT)"
        )
