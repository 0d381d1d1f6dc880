"""Memory for the frames of a link."""

from __future__ import annotations

KiB = 1 << 10
#: Payloads of this size and more are read into memory that is used again.
_REUSED_BYTES = 64 * KiB
#: Frames in sight at a time, at most: one arriving, those between two threads, and what is being set.
_REUSED = 6


class Buffers:
    """Memory for what arrives, used again once nobody looks at it any more.

    Fresh memory for each of thousands of frames would be zeroed first, and cold.
    """

    def __init__(self) -> None:
        self._all: list[bytearray] = []

    def take(self, length: int) -> memoryview:
        """Return memory of so many bytes, whatever is in it."""
        if length < _REUSED_BYTES:
            return memoryview(bytearray(length))
        for buffer in self._all:
            if _unseen(buffer):
                if len(buffer) < length:
                    buffer.extend(bytes(length - len(buffer)))
                return memoryview(buffer)[:length]
        fresh = bytearray(length)
        if len(self._all) < _REUSED:
            self._all.append(fresh)
        return memoryview(fresh)


def _unseen(buffer: bytearray) -> bool:
    """Return whether no view of a buffer is left; Python refuses to resize one that somebody looks at."""
    try:
        buffer.append(buffer.pop())
    except BufferError:
        return False
    return True
