"""Whether the log of the database of sessions holds on the disk what the processes that use it believe.

While anybody has the database open, its index (``-shm``, in memory) says how far the log counts, and SQLite looks at
nothing else. When all have ended the index is made anew from the log: frames behind a hole, or with another salt than
the log's header, are not there then. So somebody who cuts the log, or writes an older one over it, changes what was
written without a word.

Source: SQLite, "Database File Format" (4, the write-ahead log) and "WAL-mode File Format" (2, the index).
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

#: SQLite's structures, not NVMe's: they stand where the log is read and not in the wire room.
#: The log's header: magic, version, page size, checkpoint number, two salts, two checksums; big-endian.
_HEADER = struct.Struct(">8I")
_MAGIC = (0x377F0682, 0x377F0683)
#: A frame's header: page, size of the database, two salts, two checksums; a page follows.
_FRAME = struct.Struct(">6I")
#: Of the index: its number of valid frames, in the host's own byte order.
_FRAMES_AT, _FRAMES = 16, 4


def is_whole(database: Path) -> bool:
    """Return whether every frame that counts can be found again from the log alone; the caller keeps writers away."""
    log = database.with_name(f"{database.name}-wal")
    index = database.with_name(f"{database.name}-shm")
    try:
        with index.open("rb") as file:
            file.seek(_FRAMES_AT)
            counted = int.from_bytes(file.read(_FRAMES), sys.byteorder)
        return _frames(log, counted) == counted
    except OSError:
        return False


def _frames(log: Path, most: int) -> int:
    """Return how many frames of a log follow each other with its own salts, ``most`` at most."""
    if not most:
        return 0
    with log.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) != _HEADER.size:
            return 0
        magic, _, page_bytes, _, *salts, _, _ = _HEADER.unpack(header)
        if magic not in _MAGIC:
            return 0
        for number in range(most):
            file.seek(_HEADER.size + number * (_FRAME.size + page_bytes))
            frame = file.read(_FRAME.size)
            if len(frame) != _FRAME.size or list(_FRAME.unpack(frame)[2:4]) != salts:
                return number
    return most
