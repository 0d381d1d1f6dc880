"""The gate in front of a migration: manifests of both ends, judged before anything stops.

Both hosts describe their own end; the source judges, since it has the most to lose. What was compared is named by its
digest, and each side looks again before the source is suspended: what changed meanwhile was never judged.
"""

from __future__ import annotations

from collections.abc import Sequence

from nvmelm.compat.describe import of_function
from nvmelm.compat.manifest import Manifest
from nvmelm.compat.policy import Policy
from nvmelm.compat.rules import Severity
from nvmelm.compat.verdict import Verdict, judge
from nvmelm.errors import IncompatibleError, UsageError
from nvmelm.inventory import marks
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import Picture, Role, Secondary
from nvmelm.inventory.read import resolve
from nvmelm.ownership.sessions import Sessions
from nvmelm.prepare import guards


def choose(pf: OpenPrimary, sessions: Sessions | None, cntlids: Sequence[int]) -> tuple[Picture, list[Secondary]]:
    """Return the source as it is now, and those of its controllers that are to move.

    Args:
        sessions: where they must not be in a session that is not over; None: they are in this one.

    Raises:
        NotSupportedError: the PF cannot save states.
        UsageError: one is not there, or is named twice.
        NotReadyError: one bears no mark that holds.
        BusyError: one moves with its VM, or is in a session that is not over.
    """
    picture = pf.picture()
    marks.require_live_migration(picture)
    chosen = [resolve(picture, cntlid) for cntlid in cntlids]
    if len({secondary.cntlid for secondary in chosen}) != len(chosen):
        raise UsageError("a controller cannot move twice", fix="name each controller once")
    for secondary in chosen:
        marks.require(picture, secondary, Role.MIGRATABLE)
    guards.require_apart_from_vms(pf.host, picture, [secondary.cntlid for secondary in chosen])
    if sessions is not None:
        sessions.require_free(pf.address, [secondary.cntlid for secondary in chosen])
    return picture, chosen


def manifest_of(pf: OpenPrimary, picture: Picture, secondary: Secondary) -> Manifest:
    """Return what a controlled function is, as its host sees it now."""
    return of_function(pf.host, pf.queue, picture, secondary)


def require_compatible(source: Manifest, destination: Manifest, policy: Policy | None, name: str) -> Verdict:
    """Judge one pair.

    Raises:
        IncompatibleError: with every reason that blocks; nothing was touched.
    """
    verdict = judge(source, destination, policy)
    if verdict.compatible:
        return verdict
    blocking = [reason for reason in verdict.reasons if reason.severity is Severity.BLOCKS]
    raise IncompatibleError(
        f"{name} cannot move there: source and destination do not fit",
        cause="; ".join(reason.message for reason in blocking[:8]),
        fix=blocking[0].fix,
        reason=blocking[0].code,
    )
