"""``nvmelm compat match``: which destinations of a fleet can take which sources, and who goes where."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nvmelm.cli import render
from nvmelm.cli.compat import PolicyFile, app, policy_of
from nvmelm.cli.compat_dialects import Plain
from nvmelm.cli.run import Answer, Run, verb
from nvmelm.errors import ExitCode

if TYPE_CHECKING:
    from nvmelm.compat.assignment import Matched
    from nvmelm.compat.fleet import Fleet

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
    from nvmelm.compat import assignment, fleet

    rules = policy_of(policy)
    here, there = fleet.load(sources), fleet.load(destinations)
    wishes = assignment.Wishes("pack" if pack else "spread", tuple(same or ()), tuple(differ or ()))
    found = assignment.match(here, there, fleet.Index(there.profiles, rules), wishes)
    body = _document(here, there, found, rules)
    all_placed = not found.unplaced and not here.unreadable
    return Answer(
        Plain("nvmelm.match", **body), lambda: _lines(body), ExitCode.DONE if all_placed else ExitCode.INCOMPATIBLE
    )


def _document(here: Fleet, there: Fleet, found: Matched, rules: Any) -> dict[str, Any]:
    from nvmelm.compat.fleet import numbers
    from nvmelm.compat.verdict import judge

    groups: dict[int, list[str]] = {}
    for profile, candidates in zip(here.profiles, found.candidates, strict=True):
        groups.setdefault(candidates, []).extend(here.functions[one].name for one in profile.members)
    unplaced = []
    told: dict[tuple[int, int], list[dict[str, str]]] = {}
    for one in found.unplaced:
        source, near = here.functions[one.source], there.functions[one.nearest]
        pair = (source.profile, near.profile)
        if one.why == "nothing-fits" and pair not in told:
            verdict = judge(here.profiles[pair[0]].manifest, there.profiles[pair[1]].manifest, rules)
            told[pair] = [{"code": why.code, "fact": why.fact, "message": why.message} for why in verdict.blocking()]
        reasons = told.get(pair, []) if one.why == "nothing-fits" else []
        unplaced.append({"source": source.name, "why": one.why, "nearest": near.name, "reasons": reasons})
    return {
        "sources": len(here.functions),
        "source_profiles": len(here.profiles),
        "destinations": len(there.functions),
        "destination_profiles": len(there.profiles),
        "groups": [
            {
                "sources": names,
                "destinations": [
                    there.functions[member].name
                    for number in numbers(candidates)
                    for member in there.profiles[number].members
                ],
            }
            for candidates, names in groups.items()
        ],
        "assignment": [
            {"source": here.functions[source].name, "destination": there.functions[destination].name}
            for source, destination in found.placed
        ],
        "unplaced": unplaced,
        "unreadable": [*here.unreadable, *there.unreadable],
    }


def _lines(body: dict[str, Any]) -> Iterator[str]:
    """Show groups and assignment, the beginning of each where they are long; --json has all."""
    yield (
        f"{render.count(body['sources'], 'source')} of {render.count(body['source_profiles'], 'kind')}, "
        f"{render.count(body['destinations'], 'destination')} of {render.count(body['destination_profiles'], 'kind')}"
    )
    for group in body["groups"][:_SHOWN]:
        first = render.plain(group["sources"][0])
        takers = render.count(len(group["destinations"]), "destination")
        yield f"  {first}{_more(group['sources'])}: {takers} can take it"
    yield from _rest(body["groups"])
    yield f"placed: {len(body['assignment'])} of {body['sources']}"
    for pair in body["assignment"][:_SHOWN]:
        yield f"  {render.plain(pair['source'])} -> {render.plain(pair['destination'])}"
    yield from _rest(body["assignment"])
    for one in body["unplaced"][:_SHOWN]:
        yield f"no place: {render.plain(one['source'])} ({one['why']}), nearest {render.plain(one['nearest'])}"
        yield from (f"    {render.plain(reason['message'])}" for reason in one["reasons"])
    yield from _rest(body["unplaced"])
    yield from (f"not a manifest: {render.plain(line)}" for line in body["unreadable"][:_SHOWN])
    yield from _rest(body["unreadable"])


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more like it" if len(names) > 1 else ""


def _rest(rows: list[Any]) -> Iterator[str]:
    if len(rows) > _SHOWN:
        yield f"  … and {len(rows) - _SHOWN} more; --json has all"
