"""TOML of unknown origin: what it costs to read is bounded before it is read.

``tomllib`` (Python 3.11 to 3.13) looks at every prefix of a dotted key, and at the whole name of the table for each of
its lines: 100 KB of ``a.a.a…=1`` take minutes. A key stands in one line, so the points of a line and those of the
table above it bound what the line costs.
"""

from __future__ import annotations

from typing import Any

#: Steps of the parser's loops, some 10 million of them a second; a file that people write takes a thousand.
_MOST_STEPS = 5_000_000


def loads(text: str) -> dict[str, Any]:
    """Read a document.

    Raises:
        ValueError: it is none, a number in it is too long, or it would take long.
        RecursionError: it is nested too deeply.
    """
    import tomllib  # seldom wanted

    if _steps(text) > _MOST_STEPS:
        raise ValueError("its keys have too many dots: name what is meant by fewer words")
    return tomllib.loads(text)


def _steps(text: str) -> int:
    """Return an upper bound of what keys cost; points in a value count too, which makes it larger only."""
    table = steps = 0
    for line in text.split("\n"):
        dots = line.count(".")
        steps += (table + dots) * (dots + 1)
        if line.lstrip(" \t").startswith("["):
            table = dots
    return steps
