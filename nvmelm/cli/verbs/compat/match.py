"""``nvmelm compat match``: which destinations of a fleet can take which sources, and who goes where."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nvmelm.cli.frame import render
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.verbs.compat.check import PolicyFile, app, policy_of
from nvmelm.cli.verbs.compat.dialects import Plain
from nvmelm.errors import ExitCode

if TYPE_CHECKING:
    from nvmelm.compat.fleet.assignment import Matched
    from nvmelm.compat.fleet.index import Fleet

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

#: A document of a large fleet stays one that a program can hold: bytes that the names of all groups' destinations may
#: take together, and reasons that may be given of all sources together. What is left out is counted in it.
_LISTED_BYTES = 24 << 20
_AROUND_BYTES = 10  # a row's indentation, comma and end
_LISTED_REASONS = 50_000
_LONGEST_MESSAGE = 800


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
    from nvmelm.compat.fleet import assignment
    from nvmelm.compat.fleet import index as fleet

    rules = policy_of(policy)
    here, there = fleet.load(sources, takes=False), fleet.load(destinations)
    wishes = assignment.Wishes("pack" if pack else "spread", tuple(same or ()), tuple(differ or ()))
    found = assignment.match(here, there, fleet.Index(there.profiles, rules), wishes)
    body = _document(here, there, found, rules)
    all_placed = not found.unplaced and not here.unreadable
    return Answer(
        Plain("nvmelm.match", **body), lambda: _lines(body), ExitCode.DONE if all_placed else ExitCode.INCOMPATIBLE
    )


def _document(here: Fleet, there: Fleet, found: Matched, rules: Any) -> dict[str, Any]:
    groups = _groups(here, there, found)
    unplaced = _unplaced(here, there, found, rules)
    return {
        "sources": len(here.functions),
        "source_profiles": len(here.profiles),
        "destinations": len(there.functions),
        "destination_profiles": len(there.profiles),
        "groups": groups,
        "assignment": [
            {"source": here.functions[source].name, "destination": there.functions[destination].name}
            for source, destination in found.placed
        ],
        "unplaced": unplaced,
        "unreadable": [*here.unreadable, *there.unreadable],
        "repeated": [*here.repeated, *there.repeated],
        "left_out": {
            "destinations": sum(one["destinations_left_out"] for one in groups),
            "reasons": sum(one["reasons_left_out"] for one in unplaced),
            "unreadable": here.unnamed + there.unnamed,
            "repeated": here.unnamed_repeated + there.unnamed_repeated,
        },
    }


def _groups(here: Fleet, there: Fleet, found: Matched) -> list[dict[str, Any]]:
    """Return the sources by who can take them; where that is too much to be listed, the first of each group's."""
    import json

    names: dict[int, list[str]] = {}
    for profile, candidates in zip(here.profiles, found.candidates, strict=True):
        names.setdefault(candidates, []).extend(here.functions[one].name for one in profile.members)
    longest = max(len(json.dumps(one.name)) for one in there.functions)
    each = _each(sum(found.takers.values()), len(names), _LISTED_BYTES // (longest + _AROUND_BYTES))
    return [
        {
            "sources": sources,
            "destinations": list(islice(_takers(there, candidates), each)),
            "destinations_left_out": max(found.takers[candidates] - each, 0),
        }
        for candidates, sources in names.items()
    ]


def _takers(there: Fleet, candidates: int) -> Iterator[str]:
    from nvmelm.compat.fleet.index import numbers

    for number in numbers(candidates):
        yield from (there.functions[member].name for member in there.profiles[number].members)


def _unplaced(here: Fleet, there: Fleet, found: Matched, rules: Any) -> list[dict[str, Any]]:
    """Return the sources without a place, each with its nearest destination and what is against that."""
    from nvmelm.compat.facts import FACTS
    from nvmelm.compat.verdict import judge

    unplaced = []
    told: dict[int, tuple[list[dict[str, str]], int]] = {}
    stuck = sum(one.why == "nothing-fits" for one in found.unplaced)
    each = _each(stuck * len(FACTS), stuck, _LISTED_REASONS)
    for one in found.unplaced:
        source, near = here.functions[one.source], there.functions[one.nearest]
        if one.why == "nothing-fits" and source.profile not in told:
            pair = here.profiles[source.profile].manifest, there.profiles[near.profile].manifest
            blocking = judge(*pair, rules).blocking()
            shown = [{"code": why.code, "fact": why.fact, "message": _short(why.message)} for why in blocking[:each]]
            told[source.profile] = shown, len(blocking) - len(shown)
        reasons, more = told[source.profile] if one.why == "nothing-fits" else ([], 0)
        row = {"source": source.name, "why": one.why, "nearest": near.name, "reasons": reasons}
        unplaced.append({**row, "reasons_left_out": more})
    return unplaced


def _short(message: str) -> str:
    """Cut what a policy of many values can make very long; compat check says all of it."""
    return message if len(message) <= _LONGEST_MESSAGE else f"{message[: _LONGEST_MESSAGE - 3]}..."


def _each(rows: int, parts: int, most: int) -> int:
    """Return how many rows each part may have: all when they are few enough together, and always one."""
    return rows if rows <= most else max(most // parts, 1)


def _lines(body: dict[str, Any]) -> Iterator[str]:
    """Show groups and assignment, the beginning of each where they are long; --json has all."""
    yield (
        f"{render.count(body['sources'], 'source')} of {render.count(body['source_profiles'], 'kind')}, "
        f"{render.count(body['destinations'], 'destination')} of {render.count(body['destination_profiles'], 'kind')}"
    )
    for group in body["groups"][:_SHOWN]:
        first = render.plain(group["sources"][0])
        takers = render.count(len(group["destinations"]) + group["destinations_left_out"], "destination")
        yield f"  {first}{_more(group['sources'])}: {takers} can take it"
    yield from _rest(body["groups"])
    yield f"placed: {len(body['assignment'])} of {body['sources']}"
    for pair in body["assignment"][:_SHOWN]:
        yield f"  {render.plain(pair['source'])} -> {render.plain(pair['destination'])}"
    yield from _rest(body["assignment"])
    for one in body["unplaced"][:_SHOWN]:
        yield f"no place: {render.plain(one['source'])} ({one['why']}), nearest {render.plain(one['nearest'])}"
        yield from (f"    {render.plain(reason['message'])}" for reason in one["reasons"])
        if one["reasons_left_out"]:
            yield f"    and {render.count(one['reasons_left_out'], 'reason')} more; nvmelm compat check says all"
    yield from _rest(body["unplaced"])
    left_out = body["left_out"]
    yield from (f"cannot be used: {render.plain(line)}" for line in body["unreadable"][:_SHOWN])
    yield from _rest(body["unreadable"], left_out["unreadable"])
    yield from (f"counted once: {render.plain(line)}" for line in body["repeated"][:_SHOWN])
    yield from _rest(body["repeated"], left_out["repeated"])


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more like it" if len(names) > 1 else ""


def _rest(rows: list[Any], unnamed: int = 0) -> Iterator[str]:
    if len(rows) > _SHOWN:
        yield f"  … and {len(rows) - _SHOWN + unnamed} more; --json has {'more of them' if unnamed else 'all'}"
