"""``nvmelm release`` undoes a preparation, ``nvmelm recover`` what was left unfinished."""

from __future__ import annotations

from typing import Annotated

import typer

from nvmelm.cli.frame.callouts import CalloutDirectory
from nvmelm.cli.frame.options import Pf, Program, Rsh, group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.views import changes
from nvmelm.cli.views.answers import changed
from nvmelm.errors import ExitCode
from nvmelm.prepare import release as undo_all

app = group("Back to what was there before.")


@verb(app, "release", changes=True)
def release(run: Run, pf: Pf) -> Answer:
    """Undo all that nvmelm did to a controlling function: counts, resources, drivers and overrides as found."""
    with run.primary(pf, change=True) as primary:
        return changed(undo_all.release(primary, confirm=run.confirm, dry_run=run.dry_run))


Take = Annotated[str | None, typer.Option("--take", metavar="SESSION", help="Run its controllers here, on your word.")]
GiveUp = Annotated[
    str | None, typer.Option("--give-up", metavar="SESSION", help="Never run its controllers here, on your word.")
]
Peer = Annotated[str, typer.Option("--peer", metavar="URL", help="Where the other host is, ssh://[user@]HOST[:port].")]
Alone = Annotated[bool, typer.Option("--alone", help="Do not ask the other host.")]


@verb(app, "recover", changes=True)
def recover(
    run: Run,
    finish: Annotated[bool, typer.Option("--finish", help="Finish what was begun instead of undoing it.")] = False,
    take: Take = None,
    give_up: GiveUp = None,
    peer: Peer = "",
    rsh: Rsh = "",
    program: Program = "nvmelm",
    alone: Alone = False,
    callouts: CalloutDirectory = None,
) -> Answer:
    """Show what was left unfinished on this host, and undo it, or finish it; ask the other host about migrations."""
    from nvmelm.cli.verbs.recovery import Ways  # all of migrate, 145 ms that release would pay for
    from nvmelm.cli.verbs.recovery import recover as everything

    ways = Ways(take, give_up, peer, rsh, program, alone, callouts)
    report = everything(run, ways, finish=finish)
    undecided = any(not one.resolved for one in report.sessions) and not report.dry_run
    return Answer(report, lambda: changes.recover(report), ExitCode.UNCERTAIN if undecided else ExitCode.DONE)
