r"""What goes over a link, byte by byte: a preamble in each direction, then frames, bounded in every field.

::

    preamble, once in each direction, the same in every version of the protocol
    +----+------------------------------------------------------+
    |  0 | magic            89 4E 56 4D 4C 4E 4B 0A (.NVMLNK\n)  |
    |  8 | lowest version   2 bytes                             |
    | 10 | highest version  2 bytes                             |
    | 12 | zero             4 bytes                             |
    +----+------------------------------------------------------+

    frame
    +----+------------------------------------------------------+
    |  0 | kind             1 byte; 1 message, 2 data, 3 alive  |
    |  1 | zero             1 byte                              |
    |  2 | stream           2 bytes; of data, 0 otherwise       |
    |  4 | length L         4 bytes; at most 1 MiB of a message,|
    |    |                  8 MiB of data, 0 of alive           |
    |  8 | payload          L bytes                             |
    +----+------------------------------------------------------+

Integers are little-endian. The protocol above the frames is in :mod:`nvmelm.migrate.link.messages` and
``docs/protocol.md``.
"""

from __future__ import annotations

from typing import NamedTuple

from nvmelm.wire.layout import U8, U16, U32, Buffer, Layout, Raw

MAGIC = b"\x89NVMLNK\n"
#: The versions of the protocol this program speaks.
LOWEST, HIGHEST = 1, 1
KiB, MiB = 1 << 10, 1 << 20
MAX_MESSAGE_BYTES = 1 * MiB
MAX_DATA_BYTES = 8 * MiB

MESSAGE, DATA, ALIVE = 1, 2, 3
#: Bytes of payload at most, by kind.
LIMITS = {MESSAGE: MAX_MESSAGE_BYTES, DATA: MAX_DATA_BYTES, ALIVE: 0}


class Preamble(Layout, size=16):
    """What each side sends first, in every version of the protocol."""

    magic = Raw(0, 8, "Magic")
    lowest = U16(8, "Lowest version of the protocol this side speaks")
    highest = U16(10, "Highest version")
    zero = U32(12, "Zero")


class FrameHeader(Layout, size=8):
    """What stands in front of each payload."""

    kind = U8(0, "Kind")
    zero = U8(1, "Zero")
    stream = U16(2, "Stream")
    length = U32(4, "Length of the payload, bytes")


class Frame(NamedTuple):
    """One frame that arrived."""

    kind: int
    stream: int
    payload: Buffer
