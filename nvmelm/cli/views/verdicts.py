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


def head(described: Manifest) -> Iterator[str]:
    """Return the lines that say what a manifest is of."""
    labels = (
        [("labels", ", ".join(f"{key}={word}" for key, word in described.labels.items()))] if described.labels else []
    )
    yield from render.facts(
        [("function", described.name), ("level", described.level), ("digest", described.digest), *labels]
    )


def written(described: Manifest, places: Iterable[Path]) -> Iterator[str]:
    """Return the lines for a manifest that stands in a file or tree now."""
    yield from head(described)
    for place in places:
        yield f"written to {render.plain(str(place))}"


def manifest(described: Manifest) -> Iterator[str]:
    """Return the lines of a manifest, its facts in the table's order."""
    yield from head(described)
    yield ""
    yield from render.facts([(name, shown(described.facts[name])) for name in FACTS if name in described.facts])
    unknown = missing(described.facts)
    if unknown:
        yield ""
        yield from render.wrapped("not known: ", ", ".join(unknown), sys.stdout)


def verdict(judged: Verdict, source: Manifest, destination: Manifest) -> Iterator[str]:
    """Return the lines of a verdict: the ends, every reason, what to do, and the answer."""
    paint = render.Paint(sys.stdout)
    for title, end in (("source", source), ("destination", destination)):
        yield from render.wrapped(f"{title:<12}", f"{render.plain(end.name)}, {end.level}, {end.digest}", sys.stdout)
    if judged.policy_digest:
        yield f"{'policy':<12}{judged.policy_digest}"
    yield ""
    if judged.reasons:
        rows = [
            (reason.severity.value, reason.code, reason.fact, shown(reason.source), shown(reason.destination))
            for reason in judged.reasons
        ]
        yield from render.table(_COLUMNS, rows)
        yield ""
        yield from _sentences(judged)
    blocking = len(judged.blocking())
    if judged.compatible:
        yield paint.good("compatible")
    else:
        yield paint.bad(f"incompatible: {render.count(blocking, 'reason blocks', 'reasons block')}")


def _sentences(judged: Verdict) -> Iterator[str]:
    """Return what to do about each reason, and what the policy did."""
    reasons = [reason for reason in judged.reasons if reason.severity is not Severity.INFORMS or reason.policy]
    for reason in reasons:
        yield from render.wrapped(f"{reason.code}: ", render.plain(reason.message), sys.stdout)
        if reason.severity is Severity.BLOCKS:
            yield f"  fix: {render.plain(reason.fix)}"
    for use in judged.policy_uses:
        yield from render.wrapped(f"policy {use.rule} ({use.fact}) {use.action}: ", render.plain(use.why), sys.stdout)
    if reasons or judged.policy_uses:
        yield ""
