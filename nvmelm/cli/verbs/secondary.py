"""``nvmelm secondary``: steps 2 and 3, the controlled functions of a controlling one, and the permission to move."""

from __future__ import annotations

from nvmelm.cli.frame.options import Cntlid, CntlidList, Expires, Pf, Vi, Vq, group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.views import functions
from nvmelm.cli.views.answers import changed
from nvmelm.errors import UsageError
from nvmelm.inventory.picture import Role
from nvmelm.prepare import allow, secondaries

app = group("Steps 2 and 3: controlled functions, their resources, and the permission to move.")


@verb(app, "list")
def list_secondaries(run: Run, pf: Pf) -> Answer:
    """List the controlled functions: controller, virtual function, resources, driver and VFIO node."""
    with run.primary(pf) as primary:
        picture = primary.picture(states=True)
    return Answer(picture, lambda: functions.secondaries(picture))


@verb(app, "assign", changes=True)
def assign(run: Run, pf: Pf, cntlid: Cntlid, vq: Vq = None, vi: Vi = None) -> Answer:
    """Assign VQ and VI resources; an online controller goes offline for it and comes back."""
    if vq is None and vi is None:
        raise UsageError("nothing to assign", cause="neither --vq nor --vi was given", fix="add --vq N, --vi N or both")
    with run.primary(pf, change=True) as primary:
        report = secondaries.assign(primary, cntlid, vq=vq, vi=vi, confirm=run.confirm, dry_run=run.dry_run)
        return changed(report)


@verb(app, "online", changes=True)
def online(run: Run, pf: Pf, cntlid: Cntlid) -> Answer:
    """Bring a secondary controller online."""
    with run.primary(pf, change=True) as primary:
        return changed(secondaries.online(primary, cntlid, confirm=run.confirm, dry_run=run.dry_run))


@verb(app, "offline", changes=True)
def offline(run: Run, pf: Pf, cntlid: Cntlid) -> Answer:
    """Take a secondary controller offline; it loses its resources and its mark."""
    with run.primary(pf, change=True) as primary:
        return changed(secondaries.offline(primary, cntlid, confirm=run.confirm, dry_run=run.dry_run))


@verb(app, "allow-migration", changes=True)
def allow_migration(run: Run, pf: Pf, cntlids: CntlidList, expires: Expires = None) -> Answer:
    """Mark controlled functions migratable, once their facts were verified (source)."""
    return _allow(run, pf, cntlids, Role.MIGRATABLE, expires)


@verb(app, "allow-resume", changes=True)
def allow_resume(run: Run, pf: Pf, cntlids: CntlidList, expires: Expires = None) -> Answer:
    """Mark controlled functions resumable, once their facts were verified (destination)."""
    return _allow(run, pf, cntlids, Role.RESUMABLE, expires)


def _allow(run: Run, pf: str, cntlids: list[int], role: Role, expires: int | None) -> Answer:
    with run.primary(pf, change=True) as primary:
        report = allow.allow(primary, cntlids, role, valid_s=expires, confirm=run.confirm, dry_run=run.dry_run)
        return changed(report)


@verb(app, "revoke", changes=True)
def revoke(run: Run, pf: Pf, cntlids: CntlidList) -> Answer:
    """Take the marks of controlled functions back."""
    with run.primary(pf, change=True) as primary:
        return changed(allow.revoke(primary, cntlids, confirm=run.confirm, dry_run=run.dry_run))
