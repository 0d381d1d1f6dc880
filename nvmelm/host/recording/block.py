"""The data of one admin command as a transcript writes it: 16 bytes a line, zeros folded, secrets left out.

::

    "0000: 00 00 01 00 00 00 00 00 00 00 00 00 00 00 00 00"      sixteen bytes and the offset of the first
    "0010: zero * 32"                                            a run of zero bytes
    "0030: withheld * 56 sha256 9f86d0…"                         bytes nobody may see, by length and digest

Every line begins where the one before it ended, so a line lost in an edit is noticed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nvmelm.errors import NotSupportedError
from nvmelm.wire.layout import Buffer

#: Twice what the newest kernels carry in one passthrough command (8 MiB).
MAX_BLOCK_BYTES = 16 << 20
_ROW = 16
_BYTES = r"[0-9a-f]{2}(?: [0-9a-f]{2}){0,15}"
_LINE = re.compile(
    rf"([0-9a-f]{{4,8}}): (?:({_BYTES})|zero \* ([0-9]{{1,8}})|withheld \* ([0-9]{{1,8}}) sha256 ([0-9a-f]{{64}}))"
)


@dataclass(frozen=True, slots=True)
class Zeros:
    """A run of zero bytes, not kept in memory."""

    length: int

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True, slots=True)
class Withheld:
    """Bytes that were not written down."""

    length: int
    sha256: str

    def __len__(self) -> int:
        return self.length


Segment = bytes | Zeros | Withheld


class Block:
    """The data of one command, in segments."""

    __slots__ = ("segments",)

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segment for segment in segments if len(segment))

    @classmethod
    def of(cls, data: Buffer, *, keep: int | None = None) -> Block:
        """Take the bytes of a command, of which only the first ``keep`` may be written down; None keeps all."""
        kept = bytes(data if keep is None else data[:keep])
        rest = memoryview(data)[len(kept) :]
        return cls([kept, Withheld(len(rest), hashlib.sha256(rest).hexdigest())])

    @classmethod
    def parse(cls, lines: Sequence[str]) -> Block:
        """Read the lines of a transcript.

        Raises:
            ValueError: a line that is none, at the wrong offset, or more than :data:`MAX_BLOCK_BYTES` in all.
        """
        segments: list[Segment] = []
        run = bytearray()
        length = 0
        for line in lines:
            match = _LINE.fullmatch(line)
            if match is None:
                raise ValueError(f"{line[:40]!r} is no line of data")
            offset, row, zeros, withheld, digest = match.groups()
            if int(offset, 16) != length:
                raise ValueError(f"line {offset} stands where {length:04x} is due")
            if row:
                run += bytes.fromhex(row)
                length += (len(row) + 1) // 3
            else:
                segments += [bytes(run), Zeros(int(zeros)) if zeros else Withheld(int(withheld), digest)]
                run.clear()
                length += int(zeros or withheld)
            if length > MAX_BLOCK_BYTES:
                raise ValueError(f"more than {MAX_BLOCK_BYTES} bytes")
        return cls([*segments, bytes(run)])

    @classmethod
    def validate_json(cls, value: object) -> Block:
        """Return the block of a JSON value, which is a list of lines, or the block itself."""
        if isinstance(value, Block):
            return value
        if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
            raise ValueError("is a list of lines")
        return cls.parse(value)

    @property
    def length(self) -> int:
        """Return the number of bytes, withheld ones included."""
        return sum(len(segment) for segment in self.segments)

    @property
    def withheld(self) -> bool:
        """Return whether some bytes are not known."""
        return any(isinstance(segment, Withheld) for segment in self.segments)

    def lines(self) -> list[str]:
        """Return the lines of a transcript."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        offset = zeros = 0
        for size, text in self._rows():
            if not text:
                zeros += size
                continue
            if zeros:
                yield f"{offset:04x}: zero * {zeros}"
                offset, zeros = offset + zeros, 0
            yield f"{offset:04x}: {text}"
            offset += size
        if zeros:
            yield f"{offset:04x}: zero * {zeros}"

    def _rows(self) -> Iterator[tuple[int, str]]:
        """Yield the size and text of each row; no text for zeros."""
        for segment in self.segments:
            if isinstance(segment, Zeros):
                yield segment.length, ""
            elif isinstance(segment, Withheld):
                yield segment.length, f"withheld * {segment.length} sha256 {segment.sha256}"
            else:
                for start in range(0, len(segment), _ROW):
                    row = segment[start : start + _ROW]
                    yield len(row), row.hex(" ") if any(row) else ""

    def data(self) -> bytes:
        """Return the bytes.

        Raises:
            NotSupportedError: some were withheld.
        """
        parts = []
        for segment in self.segments:
            if isinstance(segment, Withheld):
                raise NotSupportedError(
                    "this recording does not hold the controller's state",
                    cause="the state of a controller is left out of recordings; only its length and digest are kept",
                    fix="use the emulated host, or a recording of a lab device made with its state",
                    reason="recording-without-state",
                )
            parts.append(bytes(segment.length) if isinstance(segment, Zeros) else segment)
        return b"".join(parts)

    def difference(self, data: Buffer) -> int | None:
        """Return the offset of the first segment or byte in which data of the same length differs, None if it does not.

        Withheld bytes are compared by their digest.
        """
        view = memoryview(data)
        start = 0
        for segment in self.segments:
            piece = view[start : start + len(segment)]
            if isinstance(segment, Withheld):
                if hashlib.sha256(piece).hexdigest() != segment.sha256:
                    return start
            else:
                expected = bytes(segment.length) if isinstance(segment, Zeros) else segment
                if piece != expected:
                    return start + next(at for at, byte in enumerate(expected) if piece[at] != byte)
            start += len(segment)
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Block) and self.lines() == other.lines()

    def __hash__(self) -> int:
        return hash(self.length)

    def replace(self, old: bytes, new: bytes) -> Block:
        """Return the block with one byte string replaced by another of the same length."""
        return Block([part.replace(old, new) if isinstance(part, bytes) else part for part in self.segments])
