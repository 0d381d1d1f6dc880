"""Which formats of state, which UUIDs and which commands a controller knows.

::

    Supported Controller State Formats (20h)        UUID List (17h)              Commands Supported and Effects (05h)
     0 NV | NUUID                                    0 reserved                   0 256 dwords, admin commands
     2 NV versions of 2 bytes                       32 entry 1: header, UUID   1024 256 dwords, I/O commands
       NUUID UUIDs of 16 bytes                      64 entry 2 ...

Indexes in commands count from 1, and 0 means none. They belong to one controller: a destination may give the same
version another index, so values are translated, never indexes.

Source: NVM Express Base Specification 2.1, Figures 329 (formats) and 210 (commands), "UUID List".
"""

from __future__ import annotations

import uuid
from typing import NamedTuple, Self

from nvmelm.errors import MalformedError
from nvmelm.wire.layout import U8, Buffer, Layout, Raw
from nvmelm.wire.opcodes import IDENTIFY_BYTES

MAX_UUIDS_PER_LIST = 127

_VERSION_BYTES = 2
_UUID_BYTES = 16


class StateFormatsHeader(Layout, size=2):
    """How many versions and UUIDs follow.

    Source: NVM Express Base Specification 2.1, "Supported Controller State Formats data structure" (CNS 20h, Figure
    329).
    """

    nv = U8(0, "Number of Versions")
    nuuid = U8(1, "Number of UUIDs")


class SupportedStateFormats(NamedTuple):
    """The formats in which a controller writes and takes state.

    Attributes:
        versions: versions of the NVMe Controller State; index 1 is the first.
        uuids: names of vendor specific formats; index 1 is the first.
    """

    versions: tuple[int, ...] = ()
    uuids: tuple[uuid.UUID, ...] = ()

    @classmethod
    def parse(cls, raw: Buffer) -> Self:
        """Read a Supported Controller State Formats structure; what stands behind the lists is not looked at.

        Raises:
            MalformedError: the lists are longer than the bytes.
        """
        header = StateFormatsHeader.at(raw)
        uuids_at = header.size + _VERSION_BYTES * header.nv
        end = uuids_at + _UUID_BYTES * header.nuuid
        if end > len(raw):
            message = f"the state formats announce {header.nv} versions and {header.nuuid} UUIDs"
            raise MalformedError(message, cause=f"they need {end} bytes, and there are {len(raw)}")
        return cls(
            tuple(int.from_bytes(raw[at : at + 2], "little") for at in range(header.size, uuids_at, _VERSION_BYTES)),
            tuple(uuid.UUID(bytes=bytes(raw[at : at + 16])) for at in range(uuids_at, end, _UUID_BYTES)),
        )

    def pack(self) -> bytes:
        """Build the 4096 bytes :meth:`parse` reads.

        Raises:
            ValueError: a version does not fit 16 bits, or the lists do not fit the structure.
        """
        head = StateFormatsHeader.pack(nv=len(self.versions), nuuid=len(self.uuids))
        if any(not 0 <= version <= 0xFFFF for version in self.versions):
            raise ValueError(f"versions {self.versions} do not fit in 16 bits")
        raw = head + b"".join(version.to_bytes(2, "little") for version in self.versions)
        raw += b"".join(value.bytes for value in self.uuids)
        if len(raw) > IDENTIFY_BYTES:
            raise ValueError(f"the lists need {len(raw)} bytes, and the structure has {IDENTIFY_BYTES}")
        return raw.ljust(IDENTIFY_BYTES, b"\0")

    def version_index(self, version: int) -> int | None:
        """Return the index (from 1) that commands use for a version, None when the controller does not know it."""
        return self.versions.index(version) + 1 if version in self.versions else None

    def uuid_index(self, value: uuid.UUID) -> int | None:
        """Return the index (from 1) that commands use for a vendor's format, None when it is not known."""
        return self.uuids.index(value) + 1 if value in self.uuids else None


class UuidListEntry(Layout, size=32):
    """One UUID a vendor gave to what it added.

    Source: NVM Express Base Specification 2.1, "UUID List" (CNS 17h).
    """

    header = U8(0, "bits 1:0 Identifier Association: 0 none, 1 PCI Vendor ID, 2 PCI Subsystem Vendor ID")
    value = Raw(16, _UUID_BYTES, "UUID")

    @property
    def uuid(self) -> uuid.UUID:
        """Return the UUID."""
        return uuid.UUID(bytes=self.value)

    @property
    def association(self) -> int:
        """Return the Identifier Association."""
        return self.header & 0b11


def parse_uuid_list(raw: Buffer) -> list[UuidListEntry]:
    """Read a UUID List up to its first UUID of zero; the entry at position n has UUID index n + 1.

    Raises:
        MalformedError: the bytes end inside an entry.
    """
    entries = []
    for number in range(1, MAX_UUIDS_PER_LIST + 1):
        entry = UuidListEntry.at(raw, UuidListEntry.size * number)
        if not any(entry.value):
            break
        entries.append(entry)
    return entries


class Effects(NamedTuple):
    """What running one command does besides its own work.

    The kernel acts on these: ``cse`` other than 0 freezes the I/O of the controller while the command runs, ``ccc``
    initialises the controller anew, ``nic`` and ``ncc`` scan for namespaces.

    Attributes:
        value: the dword of the log page.
    """

    value: int

    @property
    def csupp(self) -> bool:
        """Return whether the command is supported."""
        return bool(self.value & 1)

    @property
    def lbcc(self) -> bool:
        """Return whether it may change the content of blocks."""
        return bool(self.value >> 1 & 1)

    @property
    def ncc(self) -> bool:
        """Return whether it may change the capabilities of a namespace."""
        return bool(self.value >> 2 & 1)

    @property
    def nic(self) -> bool:
        """Return whether it may change the inventory of namespaces."""
        return bool(self.value >> 3 & 1)

    @property
    def ccc(self) -> bool:
        """Return whether it may change the capabilities of the controller."""
        return bool(self.value >> 4 & 1)

    @property
    def cser(self) -> int:
        """Return the Command Submission and Execution Relaxations, 0 to 3."""
        return self.value >> 14 & 0b11

    @property
    def cse(self) -> int:
        """Return the Command Submission and Execution recommendation, 0 to 7."""
        return self.value >> 16 & 0b111

    @property
    def uss(self) -> bool:
        """Return whether the command's UUID Index field may be used."""
        return bool(self.value >> 19 & 1)

    @property
    def scope(self) -> int:
        """Return the Command Scope bits, 0 when not reported."""
        return self.value >> 20


class EffectsLog(Layout, size=4096):
    """Which commands a controller supports, and their effects.

    Source: NVM Express Base Specification 2.1, "Commands Supported and Effects" (log page 05h, Figure 210).
    """

    acs = Raw(0, 1024, "Admin Commands Supported, a dword for each opcode")
    iocs = Raw(1024, 1024, "I/O Commands Supported, a dword for each opcode")

    def admin(self, opcode: int) -> Effects:
        """Return the effects of an admin command, 0 to FFh."""
        return _effects(self.acs, opcode)

    def io(self, opcode: int) -> Effects:
        """Return the effects of an I/O command, 0 to FFh."""
        return _effects(self.iocs, opcode)


def _effects(table: bytes, opcode: int) -> Effects:
    if not 0 <= opcode <= 0xFF:
        raise ValueError(f"opcode={opcode} does not fit in 8 bits")
    return Effects(int.from_bytes(table[4 * opcode : 4 * opcode + 4], "little"))
