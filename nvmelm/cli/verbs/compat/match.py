"""``nvmelm compat match``: which destinations of a fleet can take which sources, and who goes where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nvmelm.cli.frame import options, render
from nvmelm.cli.frame.policy import policy_of
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.verbs.compat.check import PolicyFile
from nvmelm.errors import ExitCode

if TYPE_CHECKING:
    from nvmelm.compat.fleet.report import MatchDocument, MatchLeft

app = options.group("A fleet.")

Sources = Annotated[
    Path,
    typer.Option(
        "--sources", metavar="FILE|DIR", show_default=False, help="Manifests: NDJSON, or *.json in a directory."
    ),
]
Destinations = Annotated[
    Path, typer.Option("--destinations", metavar="FILE|DIR", show_default=False, help="The same, of the other side.")
]
Pack = Annotated[bool, typer.Option("--pack", help="Fill one host after the other; otherwise spread over all.")]
Same = Annotated[
    list[str] | None, typer.Option("--same", metavar="LABEL", help="Must be the same at both ends; repeatable.")
]
Differ = Annotated[list[str] | None, typer.Option("--differ", metavar="LABEL", help="Must differ; repeatable.")]
_SHOWN = 20


@verb(app, "match")
def match(
    _: Run,
    sources: Sources,
    destinations: Destinations,
    policy: PolicyFile = None,
    pack: Pack = False,
    same: Same = None,
    differ: Differ = None,
) -> Answer:
    """Say which destinations can take which sources, and propose who goes where: exit 0 when all have a place, or 4."""
    from nvmelm.compat.fleet import assignment, report  # the fleet costs 14 ms, and no other verb needs it
    from nvmelm.compat.fleet import index as fleet  # as above

    rules = policy_of(policy)
    leaving, places = fleet.load(sources, takes=False), fleet.load(destinations)
    placement = assignment.Placement("pack" if pack else "spread", tuple(same or ()), tuple(differ or ()))
    matched = assignment.match(leaving, places, fleet.Index(places.profiles, rules), placement)
    document = report.document(leaving, places, matched, rules)
    all_placed = not matched.unplaced and not leaving.unreadable
    return Answer(document, lambda: _lines(document), ExitCode.DONE if all_placed else ExitCode.INCOMPATIBLE)


def _lines(document: MatchDocument) -> Iterator[str]:
    """Show groups and assignment, the beginning of each where they are long; --json has all."""
    yield (
        f"{render.count(document.sources, 'source')} of {render.count(document.source_profiles, 'kind')}, "
        f"{render.count(document.destinations, 'destination')} of {render.count(document.destination_profiles, 'kind')}"
    )
    for group in document.groups[:_SHOWN]:
        first = render.plain(group.sources[0])
        takers = render.count(len(group.destinations) + group.destinations_left_out, "destination")
        yield f"  {first}{_more(group.sources)}: {takers} can take it"
    yield from _rest(document.groups)
    yield f"placed: {len(document.assignment)} of {document.sources}"
    for pair in document.assignment[:_SHOWN]:
        yield f"  {render.plain(pair.source)} -> {render.plain(pair.destination)}"
    yield from _rest(document.assignment)
    for left in document.unplaced[:_SHOWN]:
        yield from _without_a_place(left)
    yield from _rest(document.unplaced)
    yield from (f"cannot be used: {render.plain(line)}" for line in document.unreadable[:_SHOWN])
    yield from _rest(document.unreadable, document.left_out.unreadable)
    yield from (f"counted once: {render.plain(line)}" for line in document.repeated[:_SHOWN])
    yield from _rest(document.repeated, document.left_out.repeated)


def _without_a_place(left: MatchLeft) -> Iterator[str]:
    yield f"no place: {render.plain(left.source)} ({left.why}), nearest {render.plain(left.nearest)}"
    yield from (f"    {render.plain(reason.message)}" for reason in left.reasons)
    if left.reasons_left_out:
        yield f"    and {render.count(left.reasons_left_out, 'reason')} more; nvmelm compat check says all"


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more like it" if len(names) > 1 else ""


def _rest(rows: Sequence[object], unnamed: int = 0) -> Iterator[str]:
    if len(rows) > _SHOWN:
        yield f"  … and {len(rows) - _SHOWN + unnamed} more; --json has {'more of them' if unnamed else 'all'}"
