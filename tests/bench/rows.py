"""One row of the bench: two figures, their ratio, and the ratio that was promised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """What was measured, in ms, beside what a user would use instead; ``limit`` is the promised ratio."""

    what: str
    ours_ms: float
    instead: str
    theirs_ms: float
    limit: float | None
    note: str = ""


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Return the rows as aligned lines."""
    yield f"{'nvmelm':<36}{'ms':>10}  {'instead':<40}{'ms':>10}{'ratio':>8}{'limit':>7}"
    for row in rows:
        ratio = row.ours_ms / row.theirs_ms
        limit = f"{row.limit:.3g}" if row.limit else ""
        verdict = "" if row.limit is None else "  within" if ratio <= row.limit else "  OVER"
        left, right = f"{row.what:<36}{row.ours_ms:>10.3f}", f"{row.instead:<40}{row.theirs_ms:>10.3f}"
        yield f"{left}  {right}{ratio:>8.2f}{limit:>7}{verdict}  {row.note}".rstrip()
