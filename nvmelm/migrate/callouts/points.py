"""Where a migration lets others have a say: the named points, and what the callouts there are told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from typing import Any

from nvmelm.errors import NvmelmError

Call = Callable[[str, Mapping[str, Any]], object]
"""Runs the callouts of a point with what they are told; raises when one of them fails."""


class Point(StrEnum):
    """The named points; ``docs/callouts.md`` says on which side each is and what a failure there does."""

    COMPATIBLE = "compatible"
    PREPARED = "prepared"
    BEFORE_SUSPEND = "before-suspend"
    SOURCE_SUSPENDED = "source-suspended"
    BEFORE_GIVE_AWAY = "before-give-away"
    GIVEN_AWAY = "given-away"
    BEFORE_RESUME = "before-resume"
    DESTINATION_RUNNING = "destination-running"
    ROLLED_BACK = "rolled-back"
    UNCERTAIN = "uncertain"


#: The points that only the other side passes.
ELSEWHERE: dict[str, frozenset[Point]] = {
    "source": frozenset({Point.BEFORE_RESUME}),
    "destination": frozenset({Point.COMPATIBLE, Point.BEFORE_SUSPEND, Point.BEFORE_GIVE_AWAY, Point.GIVEN_AWAY}),
}


class Points:
    """The callouts of one host in one session.

    Args:
        run: runs the callouts of a point; None: there are none.
        side: ``source`` or ``destination``.
        where: the points at which something runs; None: at every one, if anything does.
    """

    def __init__(self, run: Call | None, side: str, *, where: Collection[Point] | None = None) -> None:
        self._run = run
        self._where = frozenset(Point if where is None else where)
        self._told: dict[str, Any] = {"side": side}

    def describe(self, session: str, peer: str, controllers: Sequence[Mapping[str, Any]]) -> None:
        """Say what the session is, once that is known."""
        self._told |= {"session": session, "peer": peer, "controllers": list(controllers)}

    def runs_at(self, point: Point) -> bool:
        """Return whether anything runs at a point."""
        return self._run is not None and point in self._where

    def call(self, point: Point, **facts: Any) -> None:
        """Run the callouts of a point; one that fails stops the migration.

        Raises:
            NvmelmError: a callout failed, or did not end in time.
        """
        if self._run is not None:
            self._run(point, {**self._told, **facts})

    def report(self, point: Point, **facts: Any) -> list[str]:
        """Run the callouts of a point at which nothing can be stopped any more; return what failed, as notes."""
        try:
            self.call(point, **facts)
        except NvmelmError as error:
            return [f"{point}: {error.message}"]
        return []
