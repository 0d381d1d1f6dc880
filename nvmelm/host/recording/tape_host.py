"""What the host that records and the host that replays have in common."""

from __future__ import annotations

from nvmelm.host import Sysfs


class TapeHost:
    """A host whose questions have an order: they are asked one after the other, and stand in a recording.

    Args:
        sysfs: that takes part in the recording.
    """

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs

    @property
    def recorded(self) -> bool:
        return True

    @property
    def serial(self) -> bool:
        return True

    @property
    def sysfs(self) -> Sysfs:
        return self._sysfs
