"""Whether files are others than when that was asked last, by their inode, time and size."""

from __future__ import annotations

import os
from collections.abc import Sequence


class Stamps:
    """What groups of files looked like, by the group's name."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, int, int], ...]] = {}

    def changed(self, what: str, paths: Sequence[str]) -> bool:
        """Return whether one of them is another than at the last call; the first time they are."""
        now = tuple(map(_stamp, paths))
        before, self._known[what] = self._known.get(what), now
        return before != now

    def forget(self, what: str) -> None:
        """Let the next call find them changed."""
        self._known.pop(what, None)


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        about = os.stat(path)  # noqa: PTH116 - asked every second
    except OSError:
        return (0, 0, 0)
    return (about.st_ino, about.st_mtime_ns, about.st_size)
