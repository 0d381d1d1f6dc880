"""The devices the emulator can be: one :class:`DeviceGeneration` a row, each with the reason it exists.

A generation is data. Everything the emulated controller answers or allows is read from its row, so a test that needs
a device nobody has built derives one: ``NVME_2_1.with_(max_vfs=200, vq_flexible=400)``.

==================  =============================================================================================
``stock-qemu-7.2``  no live migration: what most people have; checked against ``recordings/stock-qemu-7.2.json``
``tp4159``          live migration with its deviations; checked against ``recordings/tp4159-controller.json``
``nvme-2.1``        all mandatory parts of the specification, a vendor UUID, state in parts, memory tracking
``nvme-2.1-vendor`` the same with vendor specific state of 64 MiB
``nvme-2.1-udmq``   the same as nvme-2.1 with user data logging through a Controller Data Queue
==================  =============================================================================================
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

KiB = 1024
MiB = 1024 * KiB

_READ_ONLY = 0x1  # CSUPP
_WRITES = 0x3  # CSUPP, LBCC
_USS = 1 << 19


@dataclass(frozen=True, kw_only=True, slots=True)
class NamespaceRow:
    """One namespace: its identifier, its size in bytes and log2 of its block size."""

    nsid: int = 1
    size: int = 64 * MiB
    lba_shift: int = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceGeneration:
    """What one kind of device is and does.

    Attributes:
        identify: bytes of Identify Controller beyond the fields below, as (offset, hex) pairs.
        identify_nvm: the same for the NVM command set's Identify Controller (CNS 06h).
        vf_identify: bytes that differ in a secondary's Identify Controller.
        admin_effects, io_effects: (opcode, effects word) of log page 05h; an opcode that is missing is not supported.
        attached_to_secondaries: every secondary has every namespace attached from the start.
        namespace_ids: namespaces have an NGUID and a UUID, which follow from their media.
        max_vfs: TotalVFs, which is also the number of secondary controllers.
        vf_routes: (NumVFs, First VF Offset, VF Stride) from so many VFs on; PCI Express lets both change with NumVFs.
        first_cntlid: the primary's controller id; its secondaries follow.
        vq_flexible, vq_private, vq_per_secondary, vq_granularity: VQFRT, VQPRT, VQFRSM, VQGRAN; ``vi_`` likewise.
        rounds_up: Secondary Assign gives whole multiples of the granularity, and reports the larger number.
        vq_minimum, vi_minimum: what a secondary needs to go Online, where that is not what the specification says.
        assigns: types Secondary Assign takes, as in CRT; of the others it answers Invalid Resource Identifier.
        resource_types: CRT, bit 0 VQ resources, bit 1 VI resources.
        queue_entries_max: CAP.MQES + 1.
        hmlms: Host Managed Live Migration Support.
        state_versions, vendor_uuids: the lists of CNS 20h; indexes are positions from 1.
        state_formats_bytes: bytes of CNS 20h the device writes; 0 writes all 4096.
        vendor_state_bytes: size of the vendor specific part, a multiple of 4; 0 when there is none.
        multi_part: Set Controller State takes the structure in several commands.
        needs_suspension: Set Controller State refuses a target that is neither suspended nor Offline.
        suspends_offline: Suspend of an Offline secondary succeeds; the specification does not say.
        reports_csup: Migration Receive sets CSUP in the completion, not only CSATTR in the data.
        end_is_invalid: a read that starts exactly at the end of the structure is refused.
        bad_cntlid_send, bad_cntlid_receive: status for a controller that is not ours.
        part_not_supported: status for a sequence indicator other than "only" when ``multi_part`` is off.
        memory_tracking, user_data_logging: TRATTR bits 0 and 1.
        track_unsupported: status of Track Send and Receive for what TRATTR denies.
        power_of_two_lengths: TRATTR bit 2.
        tracking_descriptors, tracking_descriptors_subsystem: CMMRTD, NMMRTD.
        granularity_min, granularity_max: MINMRTG, MAXMRTG, exponents n of 2^n * 4 KiB.
        granularity_works: the smallest granularity tracking really manages; above ``granularity_min`` it ends in Not
            Enough Resources.
        data_queues, data_queues_subsystem: MCUDMQ, MNSUDMQ; 0 when there are none or none are reported.
        data_queue_ranges, data_queue_prps: MCMR, MCDQPC.
        contiguous_queue_only: a Controller Data Queue must be contiguous (PC = 1).
        doorbell_stride: CAP.DSTRD.
        ready_timeout: CAP.TO, units of 500 ms.
        ready_reads: reads of CSTS after which an enabled controller is ready; 0: at once, -1: never.
        vectors_before_queues: a vector that is not set up in MSI-X when its completion queue comes to be (for vector 0:
            when CC.EN is set) never fires; one emulation of others does that.
        restores_admin_queue: the vendor specific state has the registers and the admin queue, and sets them.
        data_queue_limit_status: status when the number of queues is exceeded; the specification names two.
    """

    name: str
    about: str
    vendor_id: int = 0x1B36
    subsystem_vendor_id: int = 0x1AF4
    device_id: int = 0x0010
    subsystem_device_id: int = 0x1100
    vf_device_id: int = 0x0010
    model: str = "QEMU NVMe Ctrl"
    firmware: str = ""
    subnqn: str = "nqn.2019-08.org.qemu:{serial}"
    serial: str = "LAB000a"
    version: int = 0x00010400
    mdts: int = 7
    cmic: int = 0x02
    ctratt: int = 0
    oacs: int = 0
    identify: tuple[tuple[int, str], ...] = ()
    vf_identify: tuple[tuple[int, str], ...] = ()
    identify_nvm: tuple[tuple[int, str], ...] = ()
    admin_effects: tuple[tuple[int, int], ...] = ()
    io_effects: tuple[tuple[int, int], ...] = ()
    namespaces: tuple[NamespaceRow, ...] = (NamespaceRow(),)
    attached_to_secondaries: bool = True
    namespace_ids: bool = True

    max_vfs: int = 4
    vf_routes: tuple[tuple[int, int, int], ...] = ((0, 1, 1),)
    first_cntlid: int = 0
    port_id: int = 0
    resource_types: int = 3
    assigns: int = 3
    vq_minimum: int | None = None
    vi_minimum: int | None = None
    vq_flexible: int = 12
    vq_private: int = 5
    vq_per_secondary: int = 3
    vq_granularity: int = 1
    vi_flexible: int = 8
    vi_private: int = 9
    vi_per_secondary: int = 2
    vi_granularity: int = 1
    rounds_up: bool = False
    queue_entries_max: int = 2048

    hmlms: bool = False
    state_versions: tuple[int, ...] = ()
    vendor_uuids: tuple[str, ...] = ()
    state_formats_bytes: int = 0
    vendor_state_bytes: int = 0
    multi_part: bool = True
    needs_suspension: bool = True
    suspends_offline: bool = False
    reports_csup: bool = True
    end_is_invalid: bool = False
    bad_cntlid_send: int = 0x411F
    bad_cntlid_receive: int = 0x411F
    part_not_supported: int = 0x4006

    memory_tracking: bool = False
    user_data_logging: bool = False
    track_unsupported: int = 0x4002
    power_of_two_lengths: bool = False
    tracking_descriptors: int = 0
    tracking_descriptors_subsystem: int = 0
    granularity_min: int = 0
    granularity_max: int = 0
    granularity_works: int = 0
    data_queues: int = 0
    data_queues_subsystem: int = 0
    data_queue_ranges: int = 0
    data_queue_prps: int = 0
    contiguous_queue_only: bool = False
    data_queue_limit_status: int = 0x4138

    doorbell_stride: int = 0
    ready_timeout: int = 20
    ready_reads: int = 0
    vectors_before_queues: bool = False
    restores_admin_queue: bool = False

    @property
    def trattr(self) -> int:
        """Return the Tracking Attributes byte."""
        return self.memory_tracking | self.user_data_logging << 1 | self.power_of_two_lengths << 2

    def vf_routing(self, numvfs: int) -> tuple[int, int]:
        """Return First VF Offset and VF Stride as they read with a number of VFs enabled."""
        return next((offset, stride) for least, offset, stride in reversed(self.vf_routes) if numvfs >= least)

    @property
    def mdts_bytes(self) -> int:
        """Return the largest transfer of one command, bytes; 0: no limit."""
        return 4096 << self.mdts if self.mdts else 0

    def with_(self, **changes: Any) -> Self:
        """Return a generation that differs in the given values."""
        return replace(self, **changes)

    def supports(self, opcode: int) -> bool:
        """Return whether the primary knows an admin opcode."""
        return opcode in dict(self.admin_effects)

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Return the row that :meth:`to_json` wrote."""
        pairs = ("identify", "vf_identify", "identify_nvm", "admin_effects", "io_effects")
        fixed: dict[str, Any] = {key: tuple((left, right) for left, right in values[key]) for key in pairs}
        if "vf_routes" in values:
            fixed["vf_routes"] = tuple((least, offset, stride) for least, offset, stride in values["vf_routes"])
        fixed["namespaces"] = tuple(NamespaceRow(**row) for row in values["namespaces"])
        fixed["state_versions"] = tuple(values["state_versions"])
        fixed["vendor_uuids"] = tuple(values["vendor_uuids"])
        return cls(**{**values, **fixed})


#: Bytes both QEMU controllers answer beyond the fields of a row: RAB and IEEE, OAES (namespace attributes), CNTRLTYPE,
#: ACL to NPSS, WCTEMP and CCTEMP, SQES and CQES, NN, VWC, SGLS, the power state. Source: both recordings.
_QEMU_IDENTIFY = (
    (72, "06005452"),
    (92, "00010000"),
    (111, "01"),
    (258, "03030307"),
    (266, "57017501"),
    (512, "6644"),
    (516, "00010000"),
    (525, "07"),
    (536, "01000000"),
    (2048, "c4090000100000000400"),
)

STOCK_QEMU_7_2 = DeviceGeneration(
    name="stock-qemu-7.2",
    about="QEMU 7.2 as Debian ships it: SR-IOV and secondary controllers, no live migration, VMS bit clear",
    firmware="7.2.22",
    ctratt=0x8000,
    oacs=0x010A,
    identify=(*_QEMU_IDENTIFY, (520, "5d01"), (534, "0300")),
    identify_nvm=((0, "07000000ffff3f"),),
    admin_effects=(
        *((opcode, _READ_ONLY) for opcode in (0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0A, 0x0C)),
        (0x15, 0x9),
        (0x1C, _READ_ONLY),
        (0x7C, _READ_ONLY),
        (0x80, _WRITES),
    ),
    io_effects=((0, 3), (1, 3), (2, 1), (5, 1), (8, 3), (9, 3), (0x0C, 1), (0x19, 3)),
)

TP4159 = STOCK_QEMU_7_2.with_(
    name="tp4159",
    about="the SamsungDS branch nvme.tp4159: live migration in one part, user data logging, no vendor state",
    firmware="9.2.50",
    ctratt=0x8010,
    oacs=0x0AAA,
    identify=(*_QEMU_IDENTIFY, (340, "01"), (520, "5d07"), (534, "0f00"), (538, "0800")),
    identify_nvm=((0, "070000ffffff3f0001ffbf3f"), (18, "01")),
    admin_effects=(
        *((opcode, _READ_ONLY) for opcode in (0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0A, 0x0C)),
        (0x15, 0x19),
        *((opcode, _READ_ONLY) for opcode in (0x19, 0x1A, 0x1C, 0x3D, 0x3E, 0x41, 0x42, 0x45)),
        (0x80, _WRITES),
        (0x86, _READ_ONLY),
    ),
    io_effects=((0, 3), (1, 3), (2, 1), (5, 1), (8, 3), (9, 3), (0x0C, 1), (0x12, 1), (0x19, 3), (0x1D, 3)),
    hmlms=True,
    state_versions=(0,),
    state_formats_bytes=4,
    multi_part=False,
    needs_suspension=False,
    suspends_offline=True,
    reports_csup=False,
    end_is_invalid=True,
    bad_cntlid_send=0x4002,
    bad_cntlid_receive=0x4137,
    user_data_logging=True,
    track_unsupported=0x4006,
    data_queue_ranges=1,
    contiguous_queue_only=True,
    data_queue_limit_status=0x4002,
)

NVME_2_1 = DeviceGeneration(
    name="nvme-2.1",
    about="a controller that follows the Base Specification 2.1 in every part nvmelm uses",
    vendor_id=0x1E4C,
    subsystem_vendor_id=0x1E4C,
    device_id=0x2100,
    subsystem_device_id=0x0001,
    vf_device_id=0x2101,
    model="nvmelm emulated controller",
    firmware="2.1.0",
    subnqn="nqn.2026-01.example.nvmelm:{serial}",
    serial="NVMELM0001",
    version=0x00020100,
    mdts=9,  # 2 MiB
    cmic=0x02,
    ctratt=0x0200,  # UUID list
    oacs=0x0888,  # namespace management, virtualization management, host managed live migration
    identify=((72, "06"), (92, "00010000"), (111, "01"), (258, "0303"), (512, "6644"), (516, "00010000")),
    vf_identify=((76, "06"), (256, "0000")),  # CMIC.FT: an SR-IOV VF; a migratable controller manages nothing
    identify_nvm=((0, "07"),),
    admin_effects=(
        *((opcode, _READ_ONLY) for opcode in (0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x08, 0x09, 0x0A, 0x0C)),
        (0x15, 0x9),
        (0x1C, _READ_ONLY),
        (0x3D, _READ_ONLY),
        (0x3E, _READ_ONLY),
        (0x41, _READ_ONLY),
        (0x42, _READ_ONLY),
    ),
    io_effects=((0, 1), (1, 3), (2, 1)),
    max_vfs=16,
    first_cntlid=0x0041,
    port_id=1,
    vq_flexible=64,
    vq_private=16,
    vq_per_secondary=8,
    vi_flexible=64,
    vi_private=17,
    vi_per_secondary=8,
    hmlms=True,
    state_versions=(0,),
    vendor_uuids=("6f0d1c1e-4a3b-5c2d-9e8f-0a1b2c3d4e5f",),
    vendor_state_bytes=4 * KiB,
    memory_tracking=True,
    tracking_descriptors=64,
    tracking_descriptors_subsystem=256,
    granularity_max=9,  # 2 MiB
)

NVME_2_1_VENDOR = NVME_2_1.with_(
    name="nvme-2.1-vendor",
    about="nvme-2.1 with vendor specific state that takes many commands to move",
    model="nvmelm emulated controller V",
    vendor_state_bytes=64 * MiB,
)

NVME_2_1_UDMQ = NVME_2_1.with_(
    name="nvme-2.1-udmq",
    about="nvme-2.1 with User Data Migration Queues",
    model="nvmelm emulated controller U",
    admin_effects=(*NVME_2_1.admin_effects, (0x45, _READ_ONLY)),
    user_data_logging=True,
    data_queues=16,
    data_queues_subsystem=16,
    data_queue_ranges=64,
    data_queue_prps=512,
)

#: Every generation by name, oldest first; the newest that needs nothing special is what a new host gets.
GENERATIONS: dict[str, DeviceGeneration] = {
    row.name: row for row in (STOCK_QEMU_7_2, TP4159, NVME_2_1, NVME_2_1_VENDOR, NVME_2_1_UDMQ)
}
DEFAULT = NVME_2_1
