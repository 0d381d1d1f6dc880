"""What an emulated host remembers: plain JSON values, typed.

::

    HostState
    |-- functions   PCI functions by address: driver, override, IOMMU group, VFIO node, inode
    |-- primaries   controllers behind physical functions, by the PF's address
    |   |-- own           the primary controller itself
    |   |-- secondaries   by controller id; one that was never touched is not there and is Offline
    |   |   `-- io        registers and queues, there once a driver or a VMM enabled the controller
    |   `-- queues        Controller Data Queues by id
    |-- holders     who has a function open through VFIO
    |-- faults      what is to go wrong, and when
    `-- options     what kind of host this is

Large things are not in here: namespaces, guest memory and vendor specific state are files beside it.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

FORMAT = 3


class SubmissionQueue(TypedDict):
    """An I/O submission queue: where it lies, and how far the controller and its driver are."""

    prp1: int
    size: int  # entries, 0's based as in the create command
    cqid: int
    attributes: int  # bit 0 PC, 2:1 QPRIO
    head: int
    tail: int  # what the doorbell said last


class CompletionQueue(TypedDict):
    """An I/O completion queue."""

    prp1: int
    size: int  # entries, 0's based
    attributes: int  # bit 0 PC, bit 1 IEN, 31:16 IV
    head: int  # what the doorbell said last
    tail: int
    phase: int  # the tag the next entry gets


class Inflight(TypedDict):
    """A command the controller has fetched and not completed."""

    sqid: int
    entry: str  # 64 bytes, hex


class TrackedMemory(TypedDict):
    """Memory being tracked for a controller."""

    exponent: int
    ranges: list[list[int]]  # [start, end), bytes
    dirty: dict[str, int]  # unit numbers, once each


class KeptRings(TypedDict):
    """The controller's end of its admin queue pair."""

    sq_head: int
    sq_tail: int  # what the doorbell said last
    cq_head: int  # likewise
    cq_tail: int
    phase: int  # the tag the next entry gets
    requests: list[int]  # identifiers of outstanding Asynchronous Event Requests, oldest first
    waiting: list[list[int]]  # identifier, status and DW0 of what was carried out and found no room
    events: list[int]  # DW0 of events that nobody asked for yet


class Io(TypedDict):
    """The register file and the queues of a controller that was enabled or is held by a VMM."""

    cc: int
    csts: int
    aqa: int
    asq: int
    acq: int
    sqs: dict[str, SubmissionQueue]
    cqs: dict[str, CompletionQueue]
    inflight: list[Inflight]
    memory: str  # the file device DMA goes to, relative to the host's directory; empty: none is mapped
    completed: int  # commands completed since the last reset
    interrupts: int  # interrupts raised since the last reset
    admin: NotRequired[KeptRings]  # there once CC.EN was set
    ready_in: NotRequired[int]  # reads of CSTS until it says ready; negative: never
    raised: NotRequired[dict[str, int]]  # interrupts by vector, of a function whose vectors a VMM has set up
    dead: NotRequired[list[int]]  # vectors that never fire again


class Transfer(TypedDict):
    """A Set Controller State that has begun and is not committed."""

    file: str  # where its bytes are put, relative to the host's directory
    csvi: int
    csuuidi: int
    covered: list[list[int]]  # [start, end), bytes received
    total: int  # bytes of the whole as its header says, -1: the header has not arrived


class EmulatedController(TypedDict):
    """A primary's own or a secondary controller."""

    cntlid: int
    vfn: int
    online: bool
    nvq: int
    nvi: int
    suspended: bool
    notified: bool
    io: Io | None
    transfer: Transfer | None
    vendor: str  # the file its vendor specific state lies in, empty: it was neither set nor read
    vendor_at: int  # and where it begins there
    tracking: TrackedMemory | None
    udmq: int  # the Controller Data Queue made for it, 0: none


class DataQueue(TypedDict):
    """A Controller Data Queue."""

    cntlid: int
    slots: int
    memory: str  # its file, relative to the host's directory; empty: memory the kernel has unmapped
    pages: list[int]  # addresses of its pages in that memory; empty: it is contiguous from the start
    head: int
    tail: int
    phase: int
    logging: bool
    full: bool
    trigger: int  # tail pointer trigger slot, -1: not armed
    wild: int  # entries written to memory that no longer belongs to the queue


class EmulatedPrimary(TypedDict):
    """A physical function's controller and everything it manages."""

    bdf: str
    generation: str  # file name of its row
    serial: str
    medium: str  # prefix of its namespaces' files
    first_cntlid: int
    numvfs: int
    autoprobe: bool
    gone: bool
    vq_primary: int
    vi_primary: int
    vq_pending: int
    vi_pending: int
    own: EmulatedController
    secondaries: dict[str, EmulatedController]
    attached: dict[str, list[int]]  # namespace -> controller ids
    queues: dict[str, DataQueue]
    next_queue: int
    resets: int


class EmulatedFunction(TypedDict):
    """A PCI function as sysfs shows it."""

    bdf: str
    pf: str  # its physical function; its own address for a PF
    index: int  # VF index from 0; -1 for a PF
    inode: int
    driver: str
    override: str
    nvme: int  # N of nvmeN, -1: none
    vfio: int  # K of vfioK, -1: none
    group: int  # IOMMU group, -1: none
    noiommu: NotRequired[bool]  # the group is VFIO's own, and nothing translates


class Holder(TypedDict):
    """A process that has a function open through VFIO."""

    bdf: str
    pid: int
    start: int  # the process' start time, clock ticks: a pid alone may be used again
    name: str
    memory: str
    release: bool  # the kernel asked it to let go
    command: NotRequired[int]  # the Command register of the function's configuration space
    vectors: NotRequired[int]  # MSI-X vectors that are set up; not there: the VMM does not say
    vm: NotRequired[str]  # the virtual machine it runs, if it has a name


class Fault(TypedDict):
    """Something that is to go wrong; see :mod:`nvmelm.emulator.machine.faults`."""

    where: str  # "admin" or "sysfs"
    opcode: int  # -1: any
    select: int  # CDW10 7:0, -1: any
    path: str  # glob
    skip: int  # matching events that still go well
    times: int  # how often it then strikes
    action: str
    value: str


class HostOptions(TypedDict):
    """What kind of host this is."""

    iommu: bool
    groups: str  # who shares a VF's IOMMU group: "own" nobody, "vfs" the other VFs of its PF, "pf" the PF too
    noiommu: bool  # VFIO's enable_unsafe_noiommu_mode: functions in no group get one from it when vfio-pci takes them
    vfio_module: bool  # the kernel has vfio-pci
    cdev: bool  # and VFIO character devices with iommufd
    privileged: bool
    interrupt_remapping: bool
    latency_ms: float
    kernel_release: str
    max_hw_sectors_kb: int
    max_segments: int
    native_multipath: bool  # the nvme driver shows paths below controllers, and disks below their subsystem


class MountState(TypedDict):
    """A mounted file system."""

    device: str
    where: str


class BlockOpener(TypedDict):
    """A process that has a block device open."""

    device: str
    pid: int
    name: str


class HostState(TypedDict):
    """Everything one emulated host remembers between commands."""

    format: int
    boot_id: str
    storage: str  # directory of the namespaces' files
    next_inode: int
    modules: list[str]
    new_ids: dict[str, list[str]]
    options: HostOptions
    functions: dict[str, EmulatedFunction]
    primaries: dict[str, EmulatedPrimary]
    holders: list[Holder]
    mounts: list[MountState]
    block_holders: dict[str, list[str]]  # device mapper and md devices on a disk, a partition, or each other
    claimed_blocks: NotRequired[list[str]]  # members of pools that show neither a mount nor a holder
    block_openers: NotRequired[list[BlockOpener]]
    bus_autoprobe: bool
    faults: list[Fault]
    seqnum: NotRequired[int]  # of the last uevent


def new_controller(cntlid: int, vfn: int) -> EmulatedController:
    """Return a controller as it is before anything happened to it."""
    return EmulatedController(
        cntlid=cntlid,
        vfn=vfn,
        online=vfn == 0,
        nvq=0,
        nvi=0,
        suspended=False,
        notified=False,
        io=None,
        transfer=None,
        vendor="",
        vendor_at=0,
        tracking=None,
        udmq=0,
    )


def new_io() -> Io:
    """Return the registers of a controller out of reset, without queues."""
    return Io(
        cc=0,
        csts=0,
        aqa=0,
        asq=0,
        acq=0,
        sqs={},
        cqs={},
        inflight=[],
        memory="",
        completed=0,
        interrupts=0,
    )


def new_options() -> HostOptions:
    """Return the options of an ordinary host: a Debian 12 kernel with an IOMMU."""
    return HostOptions(
        iommu=True,
        groups="own",
        noiommu=False,
        vfio_module=True,
        cdev=False,
        privileged=True,
        interrupt_remapping=True,
        latency_ms=0.0,
        kernel_release="6.1.0-56-amd64",
        max_hw_sectors_kb=0,  # 0: what the device's MDTS says, at most 4 MiB
        max_segments=127,
        native_multipath=False,
    )
