"""``nvmelm migrate``: step 6 on two hosts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nvmelm.cli.frame.callouts import DEADLINE, CalloutDeadline, CalloutDirectory, CalloutList, points_of
from nvmelm.cli.frame.functions import PfOrFunctions, opened_several
from nvmelm.cli.frame.options import SILENCE, Program, Rsh, Silence, group, spans
from nvmelm.cli.frame.policy import policy_of
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.errors import NotReadyError, UsageError
from nvmelm.inventory.address import Address

if TYPE_CHECKING:
    from nvmelm.inventory.opened import OpenPrimary

app = group("Step 6: move controlled functions to another host.")

To = Annotated[
    str, typer.Option("--to", metavar="URL", show_default=False, help="ssh://[user@]HOST[:port]/PF[/CNTLID,...]")
]
AllMigratable = Annotated[bool, typer.Option("--all-migratable", help="Everything that is marked migratable moves.")]
PolicyFile = Annotated[Path | None, typer.Option("--policy", metavar="FILE", help="The site's rules; nvmelm compat.")]
VerdictFile = Annotated[
    Path | None, typer.Option("--verdict", metavar="FILE", help="Move only what this verdict of compat check is about.")
]
Ranges = Annotated[
    list[str] | None,
    typer.Option("--track", metavar="BASE:LENGTH", help="Guest memory to track: 4GiB:1GiB, or bytes; repeatable."),
]
DirtyFile = Annotated[
    Path | None,
    typer.Option("--dirty", metavar="FILE", help="Write each round's changes, NDJSON; may be a pipe."),
]
WrittenFile = Annotated[
    Path | None,
    typer.Option(
        "--log-user-data", metavar="FILE", help="Log written blocks here, NDJSON; a PF that the kernel owns cannot."
    ),
]
MaxDowntime = Annotated[
    float | None,
    typer.Option("--max-downtime", metavar="SPAN", parser=spans(), help="Refuse, or go back, when it takes longer."),
]
ReachedAt = Annotated[str, typer.Option("--from", metavar="URL", help="Where the other host reaches this one.")]
Page = Annotated[Path | None, typer.Option("--report", metavar="FILE.html", help="Write one page about the move.")]
LosesController = Annotated[
    bool,
    typer.Option(
        "--guest-loses-controller", help="Move although a guest here holds it and no callouts move that guest along."
    ),
]
NoNotify = Annotated[bool, typer.Option("--no-notify", help="Do not announce the suspend to the device.")]


@verb(app, "migrate", changes=True)
def migrate(
    run: Run,
    functions: PfOrFunctions,
    to: To,
    all_migratable: AllMigratable = False,
    rsh: Rsh = "",
    program: Program = "nvmelm",
    timeout: Silence = SILENCE,  # type: ignore[assignment]  # typer parses it
    policy: PolicyFile = None,
    verdict: VerdictFile = None,
    callouts: CalloutDirectory = None,
    callout: CalloutList = None,
    callout_deadline: CalloutDeadline = DEADLINE,  # type: ignore[assignment]  # typer parses it
    track: Ranges = None,
    dirty: DirtyFile = None,
    log_user_data: WrittenFile = None,
    max_downtime: MaxDowntime = None,
    reached_at: ReachedAt = "",
    report: Page = None,
    no_notify: NoNotify = False,
    guest_loses_controller: LosesController = False,
) -> Answer:
    """Move the state of controlled functions to another host, and run them there."""
    # 190 ms with pydantic and the link: help, and what was mistyped, are answered without.
    from nvmelm.cli.verbs.migrate.migration import Logs, Migration, agreed_of, require_place
    from nvmelm.cli.verbs.migrate.moved import moved_before
    from nvmelm.migrate.request import MigrationRequest

    address = Address.parse(to)
    _not_standard_output({"--dirty": dirty, "--log-user-data": log_user_data, "--report": report})
    if dirty is not None and not track:
        raise UsageError("--dirty needs --track", fix="name the memory: --track BASE:LENGTH", reason="arguments")
    if not address.pf:
        raise UsageError(f"{to} names no PF", fix="write it as ssh://HOST/PF or ssh://HOST/PF/CNTLID")
    rules, agreed = policy_of(policy), agreed_of(verdict)
    points = points_of("source", callouts, callout or (), callout_deadline)
    logs = Logs(track or (), dirty, log_user_data)
    if report is not None:
        require_place("--report", report, replace=run.settings.force)
    with opened_several(run, functions, change=True) as (primary, named):
        already = moved_before(primary, named, address) if bool(named) != all_migratable else None
        if already is not None:
            return already
        chosen = _chosen(primary, named, all_migratable)
        request = MigrationRequest(
            to=str(address),
            pf=address.pf,
            pairs=_pairs(chosen, address),
            reached_at=reached_at or f"ssh://{os.uname().nodename}",
            policy=rules,
            agreed=agreed,
            notify=not no_notify,
            guest_loses_controller=guest_loses_controller,
            max_downtime_s=max_downtime,
        )
        migration = Migration(run, primary, address, points, rsh=rsh, program=program, silence_s=timeout)
        return migration.move(request, logs, report)


def _not_standard_output(files: Mapping[str, Path | None]) -> None:
    """Refuse ``-``, which would become a file of that name: standard output is the answer's.

    Raises:
        UsageError: an option names it.
    """
    for option, file in files.items():
        if file == Path("-"):
            cause, fix = "standard output is the answer's", f"name a file or a pipe: {option} /dev/fd/3 3>FILE"
            raise UsageError(f"{option} - cannot be meant", cause=cause, fix=fix, reason="arguments")


def _chosen(pf: OpenPrimary, named: Sequence[int], every: bool) -> list[int]:
    """Return the controllers that are to move.

    Raises:
        UsageError: none, or both ways of naming them.
    """
    if bool(named) == every:
        raise UsageError(
            "name the controllers that move, or all of them" if not named else "name controllers or all, not both",
            fix="nvmelm migrate PF CNTLID --to URL, or nvmelm migrate PF --all-migratable --to URL",
            reason="arguments",
        )
    if named:
        return list(named)
    from nvmelm.inventory.picture import Role  # 34 ms with the next, which named controllers need not
    from nvmelm.prepare import guards

    picture = pf.picture()
    blank = guards.left_blank(pf.host, picture)  # made anew since: there is nothing in them to move
    marked = [
        secondary
        for secondary in picture.secondaries
        if secondary.mark and secondary.mark.holds and secondary.cntlid not in blank
    ]
    chosen = [
        secondary.cntlid
        for secondary in marked
        if secondary.mark is not None and secondary.mark.role is Role.MIGRATABLE
    ]
    if not chosen:
        raise NotReadyError(
            f"no controller of {pf.address} is migratable",
            cause="step 3 was not done, its marks do not hold any more, or all of them were moved before",
            fix=f"nvmelm source prepare {pf.ref.node} --vfs N; nvmelm secondary list {pf.ref.node}",
            reason="unmarked",
        )
    return chosen


def _pairs(chosen: Sequence[int], address: Address) -> list[tuple[int, int | None]]:
    targets = address.cntlids
    if targets and len(targets) != len(chosen):
        raise UsageError(
            f"{len(chosen)} controllers cannot move to {len(targets)}",
            cause="--to names another number of controllers",
            fix="name as many there, or none: ssh://HOST/PF takes the first that are resumable",
            reason="arguments",
        )
    return list(zip(chosen, targets or [None] * len(chosen), strict=True))
