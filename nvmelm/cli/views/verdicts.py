"""How manifests and verdicts read on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from nvmelm.cli.frame import render
from nvmelm.compat.facts import FACTS, missing
from nvmelm.compat.manifest import Manifest
from nvmelm.compat.reasons import shown
from nvmelm.compat.rules import Severity
from nvmelm.compat.verdict import Verdict

_COLUMNS = (
    render.Column("SEVERITY"),
    render.Column("CODE"),
    render.Column("FACT"),
    render.Column("SOURCE", gives_way=True),
    render.Column("DESTINATION", gives_way=True),
)


def head(one: Manifest) -> Iterator[str]:
    """Return the lines that say what a manifest is of."""
    labels = [("labels", ", ".join(f"{key}={word}" for key, word in one.labels.items()))] if one.labels else []
    yield from render.facts([("function", one.name), ("level", one.level), ("digest", one.digest), *labels])


def written(one: Manifest, places: Iterable[Path]) -> Iterator[str]:
    """Return the lines for a manifest that stands in a file or tree now."""
    yield from head(one)
    for place in places:
        yield f"written to {render.plain(str(place))}"


def manifest(one: Manifest) -> Iterator[str]:
    """Return the lines of a manifest, its facts in the table's order."""
    yield from head(one)
    yield ""
    yield from render.facts([(name, shown(one.facts[name])) for name in FACTS if name in one.facts])
    unknown = missing(one.facts)
    if unknown:
        yield ""
        yield from render.wrapped("not known: ", ", ".join(unknown), sys.stdout)


def verdict(found: Verdict, source: Manifest, destination: Manifest) -> Iterator[str]:
    """Return the lines of a verdict: the ends, every reason, what to do, and the answer."""
    paint = render.Paint(sys.stdout)
    for title, one in (("source", source), ("destination", destination)):
        yield from render.wrapped(f"{title:<12}", f"{render.plain(one.name)}, {one.level}, {one.digest}", sys.stdout)
    if found.policy_digest:
        yield f"{'policy':<12}{found.policy_digest}"
    yield ""
    if found.reasons:
        rows = [
            (one.severity.value, one.code, one.fact, shown(one.source), shown(one.destination)) for one in found.reasons
        ]
        yield from render.table(_COLUMNS, rows)
        yield ""
        yield from _sentences(found)
    blocking = len(found.blocking())
    if found.compatible:
        yield paint.good("compatible")
    else:
        yield paint.bad(f"incompatible: {render.count(blocking, 'reason blocks', 'reasons block')}")


def _sentences(found: Verdict) -> Iterator[str]:
    """Return what to do about each reason, and what the policy did."""
    told = [one for one in found.reasons if one.severity is not Severity.INFORMS or one.policy]
    for one in told:
        yield from render.wrapped(f"{one.code}: ", render.plain(one.message), sys.stdout)
        if one.severity is Severity.BLOCKS:
            yield f"  fix: {render.plain(one.fix)}"
    for use in found.policy_uses:
        yield from render.wrapped(f"policy {use.rule} ({use.fact}) {use.action}: ", render.plain(use.why), sys.stdout)
    if told or found.policy_uses:
        yield ""
