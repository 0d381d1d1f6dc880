"""``nvmelm secondary``: steps 2 and 3, the controlled functions of a controlling one, and the permission to move."""

from __future__ import annotations

from nvmelm.cli.frame.functions import Function, FunctionOrPf, Functions, opened, opened_or_pf
from nvmelm.cli.frame.options import Expires, Vi, Vq, group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.views import functions
from nvmelm.cli.views.answers import changed, on_each
from nvmelm.errors import UsageError
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import ChangeReport, Role
from nvmelm.inventory.read import only
from nvmelm.prepare import allow, secondaries

app = group("Steps 2 and 3: controlled functions, their resources, and the permission to move.")


@verb(app, "list")
def list_secondaries(run: Run, which: FunctionOrPf) -> Answer:
    """List the controlled functions, or one: controller, virtual function, resources, driver and VFIO node."""
    with opened_or_pf(run, which) as (primary, cntlid):
        picture = only(primary.picture(states=True), cntlid)
    return Answer(picture, lambda: functions.secondaries(picture))


@verb(app, "assign", changes=True)
def assign(run: Run, function: Function, vq: Vq = None, vi: Vi = None) -> Answer:
    """Assign VQ and VI resources; an online controller goes offline for it and comes back."""
    if vq is None and vi is None:
        raise UsageError("nothing to assign", cause="neither --vq nor --vi was given", fix="add --vq N, --vi N or both")
    with opened(run, function, change=True) as (primary, cntlid):
        report = secondaries.assign(primary, cntlid, vq=vq, vi=vi, confirm=run.confirm, dry_run=run.dry_run)
        return changed(report)


@verb(app, "online", changes=True)
def online(run: Run, function: Function) -> Answer:
    """Bring a secondary controller online."""
    with opened(run, function, change=True) as (primary, cntlid):
        return changed(secondaries.online(primary, cntlid, confirm=run.confirm, dry_run=run.dry_run))


@verb(app, "offline", changes=True)
def offline(run: Run, function: Function) -> Answer:
    """Take a secondary controller offline; it loses its resources and its mark."""
    with opened(run, function, change=True) as (primary, cntlid):
        return changed(secondaries.offline(primary, cntlid, confirm=run.confirm, dry_run=run.dry_run))


@verb(app, "allow-migration", changes=True)
def allow_migration(run: Run, which: Functions, expires: Expires = None) -> Answer:
    """Mark controlled functions migratable, once their facts were verified (source)."""
    return _allow(run, which, Role.MIGRATABLE, expires)


@verb(app, "allow-resume", changes=True)
def allow_resume(run: Run, which: Functions, expires: Expires = None) -> Answer:
    """Mark controlled functions resumable, once their facts were verified (destination)."""
    return _allow(run, which, Role.RESUMABLE, expires)


def _allow(run: Run, which: list[str], role: Role, expires: int | None) -> Answer:
    def mark(pf: OpenPrimary, cntlids: list[int]) -> ChangeReport:
        return allow.allow(pf, cntlids, role, valid_s=expires, confirm=run.confirm, dry_run=run.dry_run)

    return on_each(run, which, mark)


@verb(app, "revoke", changes=True)
def revoke(run: Run, which: Functions) -> Answer:
    """Take the marks of controlled functions back."""
    ask, dry = run.confirm, run.dry_run
    return on_each(run, which, lambda pf, cntlids: allow.revoke(pf, cntlids, confirm=ask, dry_run=dry))
