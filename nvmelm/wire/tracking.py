"""What changed while a controller was still running: memory of the guest, and blocks of its namespaces.

::

    Track Memory Changes          Tracked Memory Changes         LBA migration queue entry, type 0
    (host to controller)          (controller to host)           (controller to the User Data Migration Queue)
     0 VER                         0 VER | ATTRB | CNTLID         0 NSID | NLB
     3 RMRTG                       4 NTMCD                        8 SLBA
     4 RNMRTD                      8 RPMPG                       31 phase 0 | ESA 3:1 | DLBA 5 | LBACIR 7:6
     8 descriptors of 12 bytes    16 descriptors of 16 bytes

Addresses and lengths are bytes in here, as half-open extents; the units of 2^n times 4 KiB stay in the structures.

Sources: NVM Express Base Specification 2.1, "Track Send command" and "Track Receive command"; NVM Command Set
Specification 1.2, "LBA Migration Queue Entry Type 0".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from nvmelm.errors import MalformedError
from nvmelm.wire.extents import Extent
from nvmelm.wire.layout import U8, U16, U32, U64, Buffer, Layout

_UNIT_BYTES = 4096
_ADDRESS_LIMIT = 1 << 64

#: 2^52 times 4 KiB are all the addresses there are; a larger exponent means nothing.
MAX_GRANULARITY = 52


class TrackMemoryChangesHeader(Layout, size=8):
    """The head of a Track Memory Changes structure.

    Source: NVM Express Base Specification 2.1, "Track Memory Changes data structure" (Track Send command, Figure
    468).
    """

    ver = U8(0, "Version; 0")
    rmrtg = U8(3, "Requested Memory Range Tracking Granularity, 2^n times 4 KiB")
    rnmrtd = U32(4, "Requested Number of Memory Range Tracking Descriptors")


class MemoryRangeTrackingDescriptor(Layout, size=12):
    """One range of memory to track.

    12 bytes, so every second one is unaligned: a padded C layout would not fit.

    Source: NVM Express Base Specification 2.1, "Memory Range Tracking Descriptor" (Figure 468).
    """

    saddr = U64(0, "Starting Address, aligned to the granularity")
    len = U32(8, "Length, in units of the granularity")


class TrackedMemoryChangesHeader(Layout, size=16):
    """The head of a Tracked Memory Changes structure.

    Source: NVM Express Base Specification 2.1, "Tracked Memory Changes data structure" (Track Receive command).
    """

    ver = U8(0, "Version; 0")
    attrb = U8(1, "bit 0 More To Report, bit 1 suspended during the command")
    cntlid = U16(2, "Controller Identifier")
    ntmcd = U32(4, "Number of Tracked Memory Changed Descriptors")
    rpmpg = U16(8, "Reported granularity, 2^n times 4 KiB")


class TrackedMemoryChangedDescriptor(Layout, size=16):
    """One range of memory that was written.

    Source: NVM Express Base Specification 2.1, "Tracked Memory Changed Descriptor".
    """

    saddr = U64(0, "Starting Address")
    len = U32(8, "Length, in units of the granularity")


@dataclass(frozen=True, slots=True)
class TrackMemoryChanges:
    """Which memory to track, and how finely.

    Attributes:
        granularity: exponent n of the unit, 2^n times 4 KiB.
        extents: bytes, each start and end a multiple of the unit; a controller may want lengths of a power of 2.
    """

    granularity: int
    extents: tuple[Extent, ...]

    @classmethod
    def parse(cls, raw: Buffer) -> Self:
        """Read exactly one Track Memory Changes structure.

        Raises:
            MalformedError: another version than 0, an impossible granularity, missing or further bytes.
        """
        header = TrackMemoryChangesHeader.at(raw)
        _check_head("memory to track", header.ver, header.rmrtg)
        step = MemoryRangeTrackingDescriptor.size
        if header.size + step * header.rnmrtd != len(raw):
            raise MalformedError(f"the memory to track announces {header.rnmrtd} ranges and has {len(raw)} bytes")
        descriptors = (MemoryRangeTrackingDescriptor.at(raw, at) for at in range(header.size, len(raw), step))
        return cls(
            header.rmrtg, tuple(_extent(descriptor.saddr, descriptor.len, header.rmrtg) for descriptor in descriptors)
        )

    def pack(self) -> bytes:
        """Build the bytes Track Send carries.

        Raises:
            ValueError: a range is not whole units, or does not fit.
        """
        header = TrackMemoryChangesHeader.pack(rmrtg=self.granularity, rnmrtd=len(self.extents))
        return header + b"".join(
            MemoryRangeTrackingDescriptor.pack(saddr=extent.start, len=_units(extent, self.granularity))
            for extent in self.extents
        )


@dataclass(frozen=True, slots=True)
class TrackedMemoryChanges:
    """Memory that a controller wrote since it was last asked; each report is given once.

    Attributes:
        more: there is more to report now.
        suspended: the controller was suspended during the command.
        granularity: exponent n of the unit, 2^n times 4 KiB.
        extents: bytes, in the controller's order; :func:`merge` sorts them.
    """

    cntlid: int
    more: bool
    suspended: bool
    granularity: int
    extents: tuple[Extent, ...]

    @property
    def final(self) -> bool:
        """Return whether nothing will be added before the controller is resumed."""
        return self.suspended and not self.more

    @classmethod
    def parse(cls, raw: Buffer) -> Self:
        """Read a Tracked Memory Changes structure; bytes behind the last descriptor are not looked at.

        Raises:
            MalformedError: another version than 0, an impossible granularity or address, or missing bytes.
        """
        header = TrackedMemoryChangesHeader.at(raw)
        _check_head("tracked memory", header.ver, header.rpmpg)
        step = TrackedMemoryChangedDescriptor.size
        end = header.size + step * header.ntmcd
        if end > len(raw):
            raise MalformedError(f"the tracked memory announces {header.ntmcd} ranges and has {len(raw)} bytes")
        descriptors = (TrackedMemoryChangedDescriptor.at(raw, at) for at in range(header.size, end, step))
        extents = tuple(_extent(descriptor.saddr, descriptor.len, header.rpmpg) for descriptor in descriptors)
        more, suspended = bool(header.attrb & 1), bool(header.attrb >> 1 & 1)
        return cls(header.cntlid, more, suspended, header.rpmpg, extents)

    def pack(self) -> bytes:
        """Build the bytes :meth:`parse` reads.

        Raises:
            ValueError: a range is not whole units, or does not fit.
        """
        header = TrackedMemoryChangesHeader.pack(
            attrb=int(self.more) | int(self.suspended) << 1,
            cntlid=self.cntlid,
            ntmcd=len(self.extents),
            rpmpg=self.granularity,
        )
        return header + b"".join(
            TrackedMemoryChangedDescriptor.pack(saddr=extent.start, len=_units(extent, self.granularity))
            for extent in self.extents
        )


def _check_head(what: str, version: int, granularity: int) -> None:
    if version != 0:
        raise MalformedError(f"the structure of the {what} has version {version}", cause="only version 0 is known")
    if granularity > MAX_GRANULARITY:
        raise MalformedError(f"the {what} has a granularity of 2^{granularity} times 4 KiB")


def _extent(saddr: int, units: int, granularity: int) -> Extent:
    end = saddr + units * (_UNIT_BYTES << granularity)
    if end > _ADDRESS_LIMIT:
        raise MalformedError(f"a range of memory starts at {saddr:#x} and ends behind the last address")
    return Extent(saddr, end)


def _units(extent: Extent, granularity: int) -> int:
    unit = _UNIT_BYTES << granularity
    if extent.start % unit or extent.length % unit or extent.length < 0:
        raise ValueError(f"{extent} is not whole units of {unit} bytes")
    return extent.length // unit


class EntryMarker(IntEnum):
    """Entry Sequence Attribute (ESA): where an entry stands in the log."""

    MIDDLE = 0
    FIRST = 1
    LAST_STOPPED = 2
    LAST_SUSPENDED = 3
    LAST_FULL = 7


class RangeScope(IntEnum):
    """LBA Change Information Range (LBACIR): which blocks an entry speaks of."""

    RANGE = 0
    WHOLE_NAMESPACE = 1
    NONE = 2


class MigrationQueueEntry(Layout, size=32):
    """One entry of a User Data Migration Queue; marker and range do not depend on each other.

    Source: NVM Command Set Specification 1.2, "LBA Migration Queue Entry Type 0" (Figure 177).
    """

    nsid = U32(0, "Namespace Identifier; 0 when there is no range")
    nlb = U32(4, "Number of Logical Blocks, 0's based; meaningful for a range alone")
    slba = U64(8, "Starting LBA; meaningful for a range alone")
    lbamqa = U8(31, "Attributes; bit 0 phase, 3:1 ESA, 5 deallocated, 7:6 LBACIR")

    @property
    def phase(self) -> int:
        """Return the phase bit (CDQP)."""
        return self.lbamqa & 1

    @property
    def marker(self) -> int:
        """Return the marker (ESA), an :class:`EntryMarker` or a number that is none."""
        return self.lbamqa >> 1 & 0b111

    @property
    def deallocated(self) -> bool:
        """Return whether the blocks were deallocated; otherwise they changed, which may include deallocation."""
        return bool(self.lbamqa >> 5 & 1)

    @property
    def scope(self) -> int:
        """Return what the entry speaks of (LBACIR), a :class:`RangeScope` or the reserved 3."""
        return self.lbamqa >> 6

    @property
    def blocks(self) -> tuple[int, int] | None:
        """Return the half-open range of blocks, None when the entry has none."""
        return (self.slba, self.slba + self.nlb + 1) if self.scope == RangeScope.RANGE else None

    def extent(self, block_bytes: int) -> Extent | None:
        """Return the range as bytes of the namespace, None when the entry has none."""
        blocks = self.blocks
        return None if blocks is None else Extent(blocks[0] * block_bytes, blocks[1] * block_bytes)


def pack_entry(
    *,
    phase: int,
    nsid: int = 0,
    blocks: tuple[int, int] | None = None,
    marker: int = EntryMarker.MIDDLE,
    scope: int | None = None,
    deallocated: bool = False,
) -> bytes:
    """Build one entry.

    Args:
        blocks: half-open range of blocks, at least one; None for an entry without a range.
        scope: by default RANGE when there are blocks, NONE when there are none.

    Raises:
        ValueError: a value that does not fit.
    """
    start, end = blocks if blocks is not None else (0, 1)
    if scope is None:
        scope = RangeScope.NONE if blocks is None else RangeScope.RANGE
    if phase >> 1 or marker >> 3 or scope >> 2:
        raise ValueError(f"phase={phase}, marker={marker}, scope={scope} do not fit in 1, 3 and 2 bits")
    attributes = phase | marker << 1 | int(deallocated) << 5 | scope << 6
    return MigrationQueueEntry.pack(nsid=nsid, nlb=end - start - 1, slba=start, lbamqa=attributes)
