"""What ``nvmelm recover`` does: sessions between two hosts first, then runs of verbs on this one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from nvmelm.cli.frame.callouts import CalloutDirectory, points_of
from nvmelm.cli.frame.options import SILENCE, Program, Rsh, Silence, group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.views import changes
from nvmelm.errors import ExitCode, UncertainError, UsageError
from nvmelm.host import Host
from nvmelm.inventory.address import Address
from nvmelm.inventory.opened import require_privilege
from nvmelm.migrate.link.frames import Link
from nvmelm.migrate.link.remote import connected
from nvmelm.migrate.recovery import sessions
from nvmelm.ownership.anew import begin_anew
from nvmelm.ownership.sessions import SessionRecord
from nvmelm.prepare import recover as runs
from nvmelm.prepare.recover import RecoverReport, SessionView

app = group("Back to what was there before.")

Take = Annotated[str | None, typer.Option("--take", metavar="SESSION", help="Run its controllers here, on your word.")]
GiveUp = Annotated[
    str | None, typer.Option("--give-up", metavar="SESSION", help="Never run its controllers here, on your word.")
]
Peer = Annotated[str, typer.Option("--peer", metavar="URL", help="Where the other host is, ssh://[user@]HOST[:port].")]
Alone = Annotated[bool, typer.Option("--alone", help="Do not ask the other host.")]
NewSessions = Annotated[
    bool,
    typer.Option("--new-sessions", help="Sessions are lost or damaged: all that is here is this host's, on your word."),
]


class Ways(NamedTuple):
    """How the operator wants sessions to be decided; see the verb's options."""

    take: str | None
    give_up: str | None
    peer: str
    rsh: str
    program: str
    alone: bool
    callouts: Path | None
    new_sessions: bool
    silence_s: float


@verb(app, "recover", changes=True)
def recover(
    run: Run,
    finish: Annotated[bool, typer.Option("--finish", help="Finish what was begun instead of undoing it.")] = False,
    take: Take = None,
    give_up: GiveUp = None,
    peer: Peer = "",
    rsh: Rsh = "",
    program: Program = "nvmelm",
    timeout: Silence = SILENCE,  # type: ignore[assignment]  # typer parses it
    alone: Alone = False,
    callouts: CalloutDirectory = None,
    new_sessions: NewSessions = False,
) -> Answer:
    """Show what was left unfinished on this host, and undo it, or finish it; ask the other host about migrations."""
    ways = Ways(take, give_up, peer, rsh, program, alone, callouts, new_sessions, timeout)
    report = recover_all(run, ways, finish=finish)
    undecided = any(not session.resolved for session in report.sessions) and not report.dry_run
    return Answer(report, lambda: changes.recover(report), ExitCode.UNCERTAIN if undecided else ExitCode.DONE)


def recover_all(run: Run, ways: Ways, *, finish: bool) -> RecoverReport:
    """Decide what is unfinished on this host, or show it.

    Raises:
        UsageError: options that contradict each other, or a session that is not there.
        PermissionDeniedError: not root.
    """
    _require_used(ways, finish=finish)
    host = run.host()
    if ways.new_sessions:
        return _begin_anew(run, host)
    means = sessions.Means(
        connect=None if ways.alone else lambda record: _connected(record, ways),
        name=os.uname().nodename,
        points=lambda side: points_of(side, ways.callouts),
        confirm=run.confirm,
    )
    if ways.take is not None or ways.give_up is not None:
        view = _on_a_word(run, ways, means)
        return RecoverReport(changed=view.settled is not None, dry_run=run.dry_run, unfinished=(), sessions=(view,))
    views = sessions.recover_sessions(host, means, dry_run=run.dry_run)
    # Decided in this run or not: what was begun on a PF belongs to its session, which may just have started its VFs.
    of_sessions = {view.primary for view in views}
    report = runs.recover(host, finish=finish, leave=of_sessions, confirm=run.confirm, dry_run=run.dry_run)
    changed = report.changed or any(view.settled for view in views)
    return replace(report, changed=changed, sessions=tuple(views))


def _require_used(ways: Ways, *, finish: bool) -> None:
    """Refuse an option that would be passed over.

    Raises:
        UsageError: it is named.
    """
    ways_there = {"--peer": ways.peer, "--rsh": ways.rsh, "--program": ways.program != "nvmelm"}
    unused = [option for option, given in ways_there.items() if given and ways.alone]
    beside = "--alone"
    if ways.new_sessions:
        words = {"--take": ways.take is not None, "--give-up": ways.give_up is not None, "--alone": ways.alone}
        words |= {"--finish": finish, "--callouts": ways.callouts is not None}
        unused, beside = [option for option, given in (ways_there | words).items() if given], "--new-sessions"
    if finish and (ways.take is not None or ways.give_up is not None):
        unused, beside = ["--finish"], "--take" if ways.take is not None else "--give-up"
    if unused:
        raise UsageError(
            f"{', '.join(unused)} beside {beside} would not be used",
            cause="with --alone nobody is asked; --finish is about runs of this host, and a word about sessions",
            fix=f"leave out {unused[0]} or {beside}",
            reason="arguments",
        )


def _on_a_word(run: Run, ways: Ways, means: sessions.Means) -> SessionView:
    if ways.take is not None and ways.give_up is not None:
        raise UsageError("a session is taken or given up", cause="both were asked for", reason="arguments")
    which = ways.take if ways.take is not None else ways.give_up
    if not which:  # an unset variable of a script: recovering everything is not what was meant
        fix = "nvmelm recover --dry-run lists them"
        raise UsageError("no session was named", cause="it is empty", fix=fix, reason="session-name")
    _require_no_dry_run(run)
    decide = sessions.take if ways.take is not None else sessions.give_up
    return decide(run.host(), which, means)


def _require_no_dry_run(run: Run) -> None:
    if run.dry_run:
        raise UsageError(
            "an operator's word has no dry run",
            fix="nvmelm recover --dry-run shows what is known of the sessions",
            reason="arguments",
        )


def _begin_anew(run: Run, host: Host) -> RecoverReport:
    """Put sessions aside that are lost or damaged, on the operator's word."""
    _require_no_dry_run(run)
    require_privilege(host)
    aside = begin_anew(host, run.confirm)
    kept = f"; what was left of the earlier ones is in {aside}" if aside else ""
    notes = (f"every controller on this host counts as its own now{kept}",)
    return RecoverReport(changed=True, dry_run=False, unfinished=(), notes=notes)


@contextmanager
def _connected(record: SessionRecord, ways: Ways) -> Iterator[Link]:
    """Open a link to the other host of a session."""
    where = ways.peer or record.peer
    if not where:
        raise UncertainError(
            f"session {record.id}: where the other host is was not written down",
            fix="nvmelm recover --peer ssh://HOST",
            reason="peer-unknown",
        )
    with connected(Address.parse(where), rsh=ways.rsh, program=ways.program, silence_s=ways.silence_s) as link:
        yield link
