"""``nvmelm migrate`` for controllers that were moved before: nothing is left to do, or they went elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from nvmelm.cli.frame import render
from nvmelm.cli.frame.run import Answer
from nvmelm.errors import UsageError
from nvmelm.inventory.address import Address
from nvmelm.inventory.departed import any_session, moved_away
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.migrate.report import MigrateReport, nothing_done

if TYPE_CHECKING:
    from nvmelm.ownership.record import SessionRecord


def moved_before(pf: OpenPrimary, named: Sequence[int], address: Address) -> Answer | None:
    """Return the answer when every controller was moved to that host already; None: there is something to move.

    Args:
        named: the controllers; none: everything that is marked migratable.

    Raises:
        UsageError: one that was named was moved, and not there.
    """
    if not any_session(pf.host):
        return None
    picture = pf.picture()
    if not named and any(secondary.mark is not None and secondary.mark.holds for secondary in picture.secondaries):
        return None
    moved = moved_away(pf.host, picture)
    gone = {cntlid: record for cntlid, record in moved.items() if _same(record, address)}
    which = list(named) or list(gone)
    for cntlid in which:
        if cntlid in moved and cntlid not in gone:
            raise _elsewhere(cntlid, moved[cntlid])
    if not which or not {*which} <= {*gone}:
        return None
    notes = tuple(_note(cntlid, gone[cntlid]) for cntlid in which)
    report = nothing_done(pf.address, str(address), which, notes)
    return Answer(report, lambda: _lines(report))


def _same(record: SessionRecord, address: Address) -> bool:
    """Return whether a session went to a host and PF; which controller it became there was chosen then."""
    peer = Address.parse(record.peer)
    return (peer.host, peer.pf) == (address.host, address.pf)


def _note(cntlid: int, record: SessionRecord) -> str:
    return f"{cntlid:#06x} was moved to {record.peer} at {record.changed_at} (session {record.id[:8]})"


def _elsewhere(cntlid: int, record: SessionRecord) -> UsageError:
    return UsageError(
        f"controller {cntlid:#06x} is not here any more",
        cause=_note(cntlid, record),
        fix="move it on from there; nvmelm source prepare makes a blank controller of what is left here",
        reason="moved-away",
    )


def _lines(report: MigrateReport) -> Iterator[str]:
    yield "nothing to do"
    yield from (f"  {render.plain(note)}" for note in report.notes)
