"""What Identify returns about a controller, its namespaces, its resources and its secondary controllers.

::

    Identify Controller (01h)             one 4096-byte structure; live migration's limits are at 570 to 587
    Primary Controller Capabilities (14h) how many VQ and VI resources there are to share out
    Secondary Controller List (15h)       count, then up to 127 entries of 32 bytes from byte 32
    Controller List (12h, 13h)            count, then up to 2047 ids of 2 bytes
    Active Namespace ID list (02h)        up to 1024 ids of 4 bytes, ended by a zero

Source: NVM Express Base Specification 2.1, "Identify command".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nvmelm.errors import MalformedError
from nvmelm.wire.layout import U8, U16, U32, U64, U128, Buffer, Layout, Raw, Text
from nvmelm.wire.opcodes import IDENTIFY_BYTES

MAX_SECONDARIES_PER_LIST = 127
MAX_CONTROLLERS_PER_LIST = 2047
MAX_NAMESPACES_PER_LIST = 1024


class IdentifyController(Layout, size=IDENTIFY_BYTES):
    """What a controller says about itself.

    Source: NVM Express Base Specification 2.1, "Identify Controller data structure" (CNS 01h, Figure 312).
    """

    vid = U16(0, "PCI Vendor ID")
    ssvid = U16(2, "PCI Subsystem Vendor ID")
    sn = Text(4, 20, "Serial Number")
    mn = Text(24, 40, "Model Number")
    fr = Text(64, 8, "Firmware Revision")
    rab = U8(72, "Recommended Arbitration Burst")
    ieee = Raw(73, 3, "IEEE OUI Identifier")
    cmic = U8(76, "bit 0 several ports, 1 several controllers, 2 SR-IOV virtual function, 3 ANA reporting")
    mdts = U8(77, "Maximum Data Transfer Size, 2^n times the minimum page size; 0: no limit")
    cntlid = U16(78, "Controller ID")
    ver = U32(80, "Version; bits 31:16 major, 15:8 minor, 7:0 tertiary")
    rtd3r = U32(84, "RTD3 Resume Latency, microseconds")
    rtd3e = U32(88, "RTD3 Entry Latency, microseconds")
    oaes = U32(92, "Optional Asynchronous Events Supported")
    ctratt = U32(96, "Controller Attributes; bit 9 UUID List")
    cntrltype = U8(111, "Controller Type; 1 I/O, 2 discovery, 3 administrative")
    fguid = Raw(112, 16, "FRU Globally Unique Identifier")
    crdt1 = U16(128, "Command Retry Delay Time 1, 100 ms")
    crdt2 = U16(130, "Command Retry Delay Time 2, 100 ms")
    crdt3 = U16(132, "Command Retry Delay Time 3, 100 ms")
    oacs = U16(256, "Optional Admin Command Support")
    acl = U8(258, "Abort Command Limit, 0's based")
    aerl = U8(259, "Asynchronous Event Request Limit, 0's based")
    frmw = U8(260, "Firmware Updates")
    lpa = U8(261, "Log Page Attributes")
    elpe = U8(262, "Error Log Page Entries, 0's based")
    npss = U8(263, "Number of Power States Support, 0's based")
    hmpre = U32(272, "Host Memory Buffer Preferred Size, 4 KiB")
    hmmin = U32(276, "Host Memory Buffer Minimum Size, 4 KiB")
    tnvmcap = U128(280, "Total NVM Capacity, bytes")
    unvmcap = U128(296, "Unallocated NVM Capacity, bytes")
    kas = U16(320, "Keep Alive Support, 100 ms")
    sqes = U8(512, "Submission Queue Entry Size, 2^n; bits 3:0 required, 7:4 maximum")
    cqes = U8(513, "Completion Queue Entry Size, 2^n; bits 3:0 required, 7:4 maximum")
    maxcmd = U16(514, "Maximum Outstanding Commands")
    nn = U32(516, "Number of Namespaces: the largest valid NSID")
    oncs = U16(520, "Optional NVM Command Support")
    sgls = U32(536, "SGL Support")
    mnan = U32(540, "Maximum Number of Allowed Namespaces")
    maxdna = U128(544, "Maximum Domain Namespace Attachments")
    maxcna = U32(560, "Maximum I/O Controller Namespace Attachments")
    oaqd = U32(564, "Optimal Aggregated Queue Depth")
    cmmrtd = U16(570, "Controller Maximum Memory Range Tracking Descriptors")
    nmmrtd = U16(572, "NVM Subsystem Maximum Memory Range Tracking Descriptors")
    minmrtg = U8(574, "Minimum Memory Range Tracking Granularity, 2^n times 4 KiB")
    maxmrtg = U8(575, "Maximum Memory Range Tracking Granularity, 2^n times 4 KiB")
    trattr = U8(576, "Tracking Attributes")
    mcudmq = U16(578, "Maximum Controller User Data Migration Queues")
    mnsudmq = U16(580, "Maximum NVM Subsystem User Data Migration Queues")
    mcmr = U16(582, "Maximum CDQ Memory Ranges; 0: not reported")
    nmcmr = U16(584, "NVM Subsystem Maximum CDQ Memory Ranges; 0: not reported")
    mcdqpc = U16(586, "Maximum Controller Data Queue PRP Count; 0: not reported")
    subnqn = Text(768, 256, "NVM Subsystem NVMe Qualified Name")

    @property
    def version(self) -> tuple[int, int, int]:
        """Return the version of the specification, ``(2, 1, 0)``."""
        return (self.ver >> 16, self.ver >> 8 & 0xFF, self.ver & 0xFF)

    @property
    def write_cache(self) -> int:
        """Return VWC, byte 525: bit 0 a volatile write cache is present, 2:1 what a flush of all namespaces does."""
        return self.raw[525]

    @property
    def namespace_management(self) -> bool:
        """Return whether Namespace Management and Namespace Attachment are supported (OACS bit 3)."""
        return bool(self.oacs >> 3 & 1)

    @property
    def virtualization_management(self) -> bool:
        """Return VMS (OACS bit 7). Stock QEMU up to 9.x leaves it clear and takes the command all the same."""
        return bool(self.oacs >> 7 & 1)

    @property
    def host_managed_live_migration(self) -> bool:
        """Return HMLMS (OACS bit 11): this controller manages the migration of others."""
        return bool(self.oacs >> 11 & 1)

    @property
    def is_virtual_function(self) -> bool:
        """Return FT (CMIC bit 2). QEMU leaves it clear on its virtual functions."""
        return bool(self.cmic >> 2 & 1)

    @property
    def uuid_list_supported(self) -> bool:
        """Return whether CNS 17h is there (CTRATT bit 9)."""
        return bool(self.ctratt >> 9 & 1)

    @property
    def tracks_host_memory(self) -> bool:
        """Return THMCS (TRATTR bit 0)."""
        return bool(self.trattr & 1)

    @property
    def logs_user_data(self) -> bool:
        """Return TUDCS (TRATTR bit 1)."""
        return bool(self.trattr >> 1 & 1)

    @property
    def tracked_lengths_are_powers_of_2(self) -> bool:
        """Return MRTLL (TRATTR bit 2)."""
        return bool(self.trattr >> 2 & 1)


class IdentifyControllerNvm(Layout, size=IDENTIFY_BYTES):
    """What a controller says about the NVM command set.

    Source: NVM Command Set Specification 1.2, "I/O Command Set specific Identify Controller data structure"
    (CNS 06h, CSI 00h).
    """

    vsl = U8(0, "Verify Size Limit, 2^n times the minimum page size")
    wzsl = U8(1, "Write Zeroes Size Limit, 2^n times the minimum page size")
    wusl = U8(2, "Write Uncorrectable Size Limit, 2^n times the minimum page size")
    dmrl = U8(3, "Dataset Management Ranges Limit")
    dmrsl = U32(4, "Dataset Management Range Size Limit, blocks")
    dmsl = U64(8, "Dataset Management Size Limit, blocks")
    kpiocap = U8(16, "Key Per I/O Capabilities")
    wzdsl = U8(17, "Write Zeroes With Deallocate Size Limit")
    aocs = U16(18, "Admin Optional Command Support")
    ver = U32(20, "Version of the NVM command set")
    lbamqf = U8(24, "LBA Migration Queue Format; 0: entry type 0")


class IdentifyNamespace(Layout, size=IDENTIFY_BYTES):
    """The part of a namespace's description that says how large it is and how its blocks are made.

    Source: NVM Command Set Specification 1.2, "Identify Namespace data structure, NVM Command Set" (CNS 00h).
    """

    nsze = U64(0, "Namespace Size, blocks")
    ncap = U64(8, "Namespace Capacity, blocks")
    nuse = U64(16, "Namespace Utilization, blocks")
    nsfeat = U8(24, "Namespace Features")
    nlbaf = U8(25, "Number of LBA Formats, 0's based")
    flbas = U8(26, "Formatted LBA Size; format index in bits 6:5 (high) and 3:0 (low)")
    mc = U8(27, "Metadata Capabilities")
    dpc = U8(28, "End-to-end Data Protection Capabilities")
    dps = U8(29, "End-to-end Data Protection Type Settings")
    nmic = U8(30, "bit 0 may be attached to two or more controllers")
    nvmcap = U128(48, "NVM Capacity, bytes")
    nguid = Raw(104, 16, "Namespace Globally Unique Identifier")
    eui64 = Raw(120, 8, "IEEE Extended Unique Identifier")
    lbaf = Raw(128, 256, "64 LBA formats of 4 bytes: MS 15:0, LBADS 23:16, RP 25:24")

    @property
    def format_index(self) -> int:
        """Return the index of the LBA format in use, 0 to 63."""
        return (self.flbas >> 5 & 0b11) << 4 | self.flbas & 0b1111

    @property
    def metadata_bytes(self) -> int:
        """Return the metadata that goes with each block, bytes."""
        return int.from_bytes(self.lbaf[4 * self.format_index : 4 * self.format_index + 2], "little")

    @property
    def metadata_extended(self) -> bool:
        """Return whether the metadata follows the data of its block (FLBAS bit 4)."""
        return bool(self.flbas >> 4 & 1)

    @property
    def write_protected(self) -> bool:
        """Return whether the namespace is write protected now (NSATTR bit 0)."""
        return bool(self.raw[99] & 1)

    @property
    def block_bytes(self) -> int:
        """Return the size of a block, bytes; 0 when the namespace is not there.

        Raises:
            MalformedError: LBADS is below 9 or above 63: no block has that size.
        """
        exponent = self.lbaf[4 * self.format_index + 2]
        if exponent == 0:
            return 0
        if not 9 <= exponent < 64:
            raise MalformedError(f"a namespace announces blocks of 2^{exponent} bytes")
        return 1 << exponent


class PrimaryControllerCapabilities(Layout, size=IDENTIFY_BYTES):
    """The resources a primary controller and its secondaries share.

    Source: NVM Express Base Specification 2.1, "Primary Controller Capabilities data structure" (CNS 14h, Figure
    330).
    """

    cntlid = U16(0, "Controller Identifier of the primary")
    portid = U16(2, "Port Identifier")
    crt = U8(4, "Controller Resource Types; bit 0 VQ, bit 1 VI")
    vqfrt = U32(32, "VQ Resources Flexible Total")
    vqrfa = U32(36, "VQ Resources Flexible Assigned to secondaries")
    vqrfap = U16(40, "VQ Resources Flexible Allocated to Primary")
    vqprt = U16(42, "VQ Resources Private Total")
    vqfrsm = U16(44, "VQ Resources Flexible Secondary Maximum")
    vqgran = U16(46, "VQ Flexible Resource Preferred Granularity")
    vifrt = U32(64, "VI Resources Flexible Total")
    virfa = U32(68, "VI Resources Flexible Assigned to secondaries")
    virfap = U16(72, "VI Resources Flexible Allocated to Primary")
    viprt = U16(74, "VI Resources Private Total")
    vifrsm = U16(76, "VI Resources Flexible Secondary Maximum")
    vigran = U16(78, "VI Flexible Resource Preferred Granularity")

    @property
    def supports_vq(self) -> bool:
        """Return whether VQ resources can be shared out (CRT bit 0)."""
        return bool(self.crt & 1)

    @property
    def supports_vi(self) -> bool:
        """Return whether VI resources can be shared out (CRT bit 1)."""
        return bool(self.crt >> 1 & 1)


class SecondaryControllerEntry(Layout, size=32):
    """One entry of the Secondary Controller List.

    Source: NVM Express Base Specification 2.1, "Secondary Controller List" (CNS 15h, Figures 331 and 332).
    """

    scid = U16(0, "Secondary Controller Identifier")
    pcid = U16(2, "Primary Controller Identifier")
    scs = U8(4, "Secondary Controller State; bit 0 set: online")
    vfn = U16(8, "Virtual Function Number, from 1; 0: not a virtual function")
    nvq = U16(10, "Number of VQ Flexible Resources Assigned")
    nvi = U16(12, "Number of VI Flexible Resources Assigned")

    @property
    def online(self) -> bool:
        """Return whether the controller is online; the other bits of SCS are reserved and say nothing."""
        return bool(self.scs & 1)


def parse_secondary_list(raw: Buffer) -> list[SecondaryControllerEntry]:
    """Read a Secondary Controller List.

    Raises:
        MalformedError: more entries than a list holds, or than there are bytes.
    """
    count = _count(raw, 1, MAX_SECONDARIES_PER_LIST, "secondary controllers")
    size = SecondaryControllerEntry.size
    return [SecondaryControllerEntry.at(raw, size * number) for number in range(1, count + 1)]


def build_secondary_list(entries: Sequence[bytes]) -> bytes:
    """Build a Secondary Controller List of up to 127 entries of 32 bytes.

    Raises:
        ValueError: too many entries, or one of another size.
    """
    if len(entries) > MAX_SECONDARIES_PER_LIST:
        raise ValueError(f"a list holds {MAX_SECONDARIES_PER_LIST} secondary controllers, not {len(entries)}")
    if any(len(entry) != SecondaryControllerEntry.size for entry in entries):
        raise ValueError(f"an entry is {SecondaryControllerEntry.size} bytes")
    head = bytes([len(entries)]).ljust(SecondaryControllerEntry.size, b"\0")
    return (head + b"".join(entries)).ljust(IDENTIFY_BYTES, b"\0")


def parse_controller_list(raw: Buffer) -> list[int]:
    """Read a Controller List, in the order the controller gave.

    Raises:
        MalformedError: more ids than a list holds, or than there are bytes.
    """
    count = _count(raw, 2, MAX_CONTROLLERS_PER_LIST, "controllers")
    if 2 * count + 2 > len(raw):
        raise MalformedError(f"a controller list announces {count} ids and has {len(raw)} bytes")
    return [int.from_bytes(raw[2 * number : 2 * number + 2], "little") for number in range(1, count + 1)]


def build_controller_list(ids: Iterable[int]) -> bytes:
    """Build a Controller List of up to 2047 ids.

    Raises:
        ValueError: too many ids, or one that does not fit 16 bits.
    """
    listed = list(ids)
    if len(listed) > MAX_CONTROLLERS_PER_LIST:
        raise ValueError(f"a list holds {MAX_CONTROLLERS_PER_LIST} controllers, not {len(listed)}")
    for cntlid in listed:
        if not 0 <= cntlid <= 0xFFFF:
            raise ValueError(f"cntlid={cntlid} does not fit in 16 bits")
    return b"".join(value.to_bytes(2, "little") for value in (len(listed), *listed)).ljust(IDENTIFY_BYTES, b"\0")


def parse_namespace_list(raw: Buffer) -> list[int]:
    """Read an Active Namespace ID list: ids up to the first zero or the end.

    Raises:
        MalformedError: not whole dwords.
    """
    if len(raw) % 4:
        raise MalformedError(f"a namespace list has {len(raw)} bytes, not whole dwords")
    ids = [int.from_bytes(raw[offset : offset + 4], "little") for offset in range(0, len(raw), 4)]
    return ids[: ids.index(0)] if 0 in ids else ids


def build_namespace_list(ids: Iterable[int]) -> bytes:
    """Build an Active Namespace ID list of up to 1024 ids.

    Raises:
        ValueError: too many ids, or one that is 0 or does not fit 32 bits.
    """
    listed = list(ids)
    if len(listed) > MAX_NAMESPACES_PER_LIST:
        raise ValueError(f"a list holds {MAX_NAMESPACES_PER_LIST} namespaces, not {len(listed)}")
    for nsid in listed:
        if not 0 < nsid <= 0xFFFF_FFFF:
            raise ValueError(f"nsid={nsid} is not between 1 and 2^32 - 1")
    return b"".join(nsid.to_bytes(4, "little") for nsid in listed).ljust(IDENTIFY_BYTES, b"\0")


def _count(raw: Buffer, width: int, limit: int, what: str) -> int:
    if len(raw) < width:
        raise MalformedError(f"a list of {what} has {len(raw)} bytes")
    count = int.from_bytes(raw[:width], "little")
    if count > limit:
        raise MalformedError(
            f"a list announces {count} {what}",
            cause=f"one list holds {limit} at most",
            fix="record the exchange with --record FILE and ask the controller's vendor",
        )
    return count
