"""Ranges of bytes, half-open ``[start, end)``.

:func:`merge` is the one place where they become sorted, disjoint and as few as possible.

The specification writes ranges as an address and a length in units (Memory Range Tracking Descriptor, SLBA and NLB);
what is read from these becomes bytes at once, so that no unit is applied twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Extent(NamedTuple):
    """Bytes from ``start`` up to, and not including, ``end``; nothing when they are equal."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """Return the number of bytes."""
        return self.end - self.start


def merge(extents: Iterable[Extent]) -> list[Extent]:
    """Return the same bytes as sorted, disjoint extents, as few as possible; empty ones vanish.

    Extents that only touch become one. O(n log n), for n extents in any order.

    >>> merge([Extent(8, 12), Extent(0, 4), Extent(4, 8), Extent(20, 20)])
    [Extent(start=0, end=12)]
    """
    merged: list[Extent] = []
    for extent in sorted(extent for extent in extents if extent.start < extent.end):
        if merged and extent.start <= merged[-1].end:
            merged[-1] = Extent(merged[-1].start, max(merged[-1].end, extent.end))
        else:
            merged.append(extent)
    return merged


def total(extents: Iterable[Extent]) -> int:
    """Return how many bytes the extents cover, each byte counted once."""
    return sum(extent.length for extent in merge(extents))
