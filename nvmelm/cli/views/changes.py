"""What people see of plans and of what was done: one function a document, each returning lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING

from nvmelm.cli.frame import render
from nvmelm.cli.views import functions

if TYPE_CHECKING:  # a preparation is quick because it needs no models
    from nvmelm.inventory.picture import ActionView, ChangeReport
    from nvmelm.prepare.check import HostCheck
    from nvmelm.prepare.recover import RecoverReport, SessionView, Unfinished


def change(report: ChangeReport) -> Iterator[str]:
    """Show what a changing verb did, or would do."""
    head, number = f"{report.verb} {report.primary}", render.count(len(report.actions), "change")
    if not report.actions:
        yield f"{head}: nothing to do, everything is as asked"
    elif report.dry_run:
        yield f"{head}: {number} planned, nothing was changed"
        yield from plan(report.actions)
    else:
        yield render.Paint(sys.stdout).good(f"{head}: done, {number}")
        yield from _steps(report.actions)
    for note in report.notes:
        yield from render.wrapped("", render.plain(note), sys.stdout)
    if report.picture is not None and report.picture.secondaries and not report.dry_run:
        yield ""
        yield from functions.secondaries(report.picture, idle=False)


def plan(actions: Iterable[ActionView]) -> Iterator[str]:
    """Show a plan: each step with the exact writes and commands."""
    paint = render.Paint(sys.stdout)
    for number, action in enumerate(actions, 1):
        yield from render.wrapped(f"{number:3}. ", render.plain(action.summary), sys.stdout)
        yield from (paint.dim(f"       {render.plain(line)}") for line in action.operations)


def _steps(actions: Iterable[ActionView]) -> Iterator[str]:
    """Show what was done, actions of one kind together: 32 VFs are not 160 lines."""
    for _, group in groupby(actions, key=lambda action: action.step):
        done = list(group)
        first = render.plain(done[0].summary)
        more = f", and {len(done) - 1} more like it" if len(done) > 1 else ""
        yield from render.wrapped("  ", first + more, sys.stdout)


def host_check(check: HostCheck) -> Iterator[str]:
    """Show whether a host can migrate NVMe functions, and what to do where it cannot."""
    paint = render.Paint(sys.stdout)
    paints = {"ok": paint.good, "warning": paint.warn, "problem": paint.bad}
    for finding in check.findings:
        mark = finding.level.ljust(9)
        yield from render.wrapped(mark, render.plain(finding.message), sys.stdout, painted=paints[finding.level](mark))
        if finding.fix and finding.level != "ok":
            yield from render.wrapped("         fix: ", render.plain(finding.fix), sys.stdout)
    yield ""
    problems = sum(finding.level == "problem" for finding in check.findings)
    subject = f"{check.primary} on {check.host}" if check.primary else check.host
    if check.ready:
        yield paint.good(f"{render.plain(subject)} (Linux {render.plain(check.kernel)}) is ready")
    else:
        yield paint.bad(f"{render.plain(subject)} is not ready: {render.count(problems, 'problem')}")


def recover(report: RecoverReport) -> Iterator[str]:
    """Show what was left unfinished, and what was done about it."""
    if not report.unfinished and not report.sessions:
        yield "nothing was left unfinished"
    for session in report.sessions:
        yield from _session(session)
    for record in report.unfinished:
        yield from _unfinished(record)
    if report.changed and all(session.resolved for session in report.sessions):
        yield render.Paint(sys.stdout).good("recovered")
    for note in report.notes:
        yield from render.wrapped("", render.plain(note), sys.stdout)


#: What decides a session that no operator's word is needed for.
_NEXT = {
    "locked": "wait until the other nvmelm has ended, then run nvmelm recover again",
    "session-state": "another nvmelm decided meanwhile: run nvmelm recover again",
}


def _session(session: SessionView) -> Iterator[str]:
    paint = render.Paint(sys.stdout)
    which = ", ".join(render.cntlid(number) for number in session.cntlids)
    peer = f" {'to' if session.side == 'source' else 'from'} {render.plain(session.peer)}" if session.peer else ""
    yield paint.bold(f"migration of {which} on {session.primary}{peer}, begun {session.opened_at}")
    yield f"  session {session.session}"
    yield from render.wrapped("  ", f"{session.state} here: {session.meaning}", sys.stdout)
    if session.peer_state:
        yield f"  {session.peer_state} at the other host"
    if session.note:
        yield from render.wrapped("  ", render.plain(session.note), sys.stdout)
    if session.settled:
        yield (paint.good if session.resolved else paint.warn)(f"  now {session.settled} here")
    elif not session.resolved:
        yield paint.warn(f"  undecided; {_NEXT.get(session.reason, '--take or --give-up decides it on your word')}")


def _unfinished(run: Unfinished) -> Iterator[str]:
    boot = "" if run.boot == "this" else ", before the last boot"
    yield render.Paint(sys.stdout).bold(f"{run.verb} on {run.primary}, begun {run.started_at}{boot}")
    yield from render.wrapped("  ", render.plain(run.meaning), sys.stdout)
    for title, actions in (("to undo it", run.undo), ("to finish it", run.finish)):
        if actions:
            yield f"  {title}:"
            yield from (f"  {line}" for line in plan(actions))
