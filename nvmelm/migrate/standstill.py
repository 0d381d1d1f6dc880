"""How long a guest stands still until its controllers are given away, and how long it may."""

from __future__ import annotations

import time

from nvmelm.errors import NvmelmError
from nvmelm.migrate.request import Measured

#: How long a guest may stand still before the give-away when nobody said, s: a disk or a peer may hang for ever.
STANDSTILL_S = 60.0
#: And so many times as long as the dry transfer took: a large state on a slow link takes its time.
_OF_THE_REHEARSAL = 4


class Standstill:
    """The time from the suspend on.

    Args:
        limit_s: as the caller set it; None: it did not.
        measured: has how long the dry transfer took, once that is known.

    Attributes:
        since: monotonic seconds at which the suspend was sent; None: it was not.
    """

    def __init__(self, limit_s: float | None, measured: Measured) -> None:
        self._limit_s = limit_s
        self._measured = measured
        self.since: float | None = None

    @property
    def longest_s(self) -> float:
        """Return how long the guest may stand still before the give-away, s."""
        if self._limit_s is not None:
            return self._limit_s
        return STANDSTILL_S + _OF_THE_REHEARSAL * self._measured.rehearsal_s

    def begin(self) -> None:
        """Say that the suspend is being sent."""
        self.since = time.monotonic()

    def seconds(self) -> float | None:
        """Return for how long the guest has stood still; None: it runs."""
        return None if self.since is None else time.monotonic() - self.since

    def require_likely(self, state_bytes: int) -> None:
        """Refuse a suspend when the dry transfer alone took longer than the guest may stand still.

        Raises:
            NvmelmError: it did.
        """
        took = self._measured.rehearsal_s
        if self._limit_s is not None and took > self._limit_s:
            raise NvmelmError(
                f"the guest would stand still for more than {self._limit_s:g} s",
                cause=f"the dry transfer of {state_bytes} bytes took {took:.3f} s",
                fix="allow a longer --max-downtime, or use a faster link",
                reason="downtime",
            )

    def require_short(self) -> None:
        """Do not give away what stood still for too long: a wait for a disk is nothing that can be interrupted.

        Raises:
            NvmelmError: it did.
        """
        if (self.seconds() or 0.0) > self.longest_s:
            raise self.out_of_time(held_there=True)

    def out_of_time(self, *, held_there: bool) -> NvmelmError:
        """Return the error of a guest that stood still for as long as it may.

        Args:
            held_there: the destination may hold every state.
        """
        waited = "took them in or decided" if held_there else "took the states"
        return NvmelmError(
            f"the guest stood still for {self.longest_s:.3g} s, which is as long as it may",
            cause=f"nobody {waited} in that time: a disk, a callout, a reader of a pipe or the other host hangs",
            fix="look at what is slow, or allow a longer --max-downtime",
            reason="downtime",
        )
