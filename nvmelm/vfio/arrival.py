"""The stream of RESUMING as the VMM's bytes reach it."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager

from nvmelm.vfio.seam import Refusal
from nvmelm.vfio.stream import ArrivingStream, StreamHeader


class JudgedStream:
    """The stream of RESUMING as the VMM's bytes reach it; what was refused once is refused again by the arc."""

    def __init__(self, stream: ArrivingStream, answering: Callable[[str], AbstractContextManager[None]]) -> None:
        self.stream = stream
        self._answering = answering
        self._refusal: Refusal | None = None

    @property
    def judged(self) -> bool:
        """Whether the header was judged and not refused."""
        return self.stream.header is not None

    @property
    def whole(self) -> bool:
        """Whether all of it has arrived, and nothing of it was refused."""
        return self._refusal is None and self.stream.whole

    def write(self, data: bytes) -> None:
        """Take bytes as they come."""
        if self._refusal is not None:
            raise self._refusal
        try:
            with self._answering("RESUMING"):
                self.stream.write(data)
        except Refusal as refusal:
            self._refusal = refusal
            raise

    def close(self) -> None:
        """Nothing: the arc out of RESUMING judges what was written."""

    def header(self) -> StreamHeader:
        """Return the header that has arrived.

        Raises:
            Refusal: what was written was refused, or is no whole header.
        """
        if self._refusal is not None:
            raise self._refusal
        if self.stream.header is None:
            raise Refusal(errno.EBADMSG, "the VM's stream ends inside its header")
        return self.stream.header
