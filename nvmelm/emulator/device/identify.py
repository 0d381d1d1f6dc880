"""What the emulated controller says about itself: Identify, and the log pages a manager reads.

Source: NVM Express Base Specification 2.1, Identify command; Commands Supported and Effects.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from nvmelm.emulator.device.command_words import IDENTIFY_11, LOG_PAGE_10, LOG_PAGE_11, qword
from nvmelm.emulator.device.media import identity
from nvmelm.emulator.device.request import (
    INVALID_FIELD,
    INVALID_LOG_PAGE,
    INVALID_NAMESPACE,
    AdminRequest,
    CommandRefusal,
)
from nvmelm.emulator.machine.generations import DeviceGeneration
from nvmelm.emulator.machine.state import EmulatedPrimary
from nvmelm.wire.formats import SupportedStateFormats, UuidListEntry
from nvmelm.wire.identify import (
    MAX_CONTROLLERS_PER_LIST,
    MAX_NAMESPACES_PER_LIST,
    MAX_SECONDARIES_PER_LIST,
    IdentifyController,
    IdentifyNamespace,
    PrimaryControllerCapabilities,
    SecondaryControllerEntry,
    build_controller_list,
    build_namespace_list,
    build_secondary_list,
)
from nvmelm.wire.namespace_id import IdType, build_descriptors
from nvmelm.wire.opcodes import ALL_NAMESPACES, IDENTIFY_BYTES, Cns, LogId

_ASSOCIATED_WITH_VENDOR = 1  # Identifier Association: the PCI Vendor ID
_PRIVATE_VQ_OF_A_SECONDARY = 2


def identify(request: AdminRequest) -> tuple[int, bytes]:
    """Answer Identify."""
    pages: dict[int, Callable[[AdminRequest], bytes]] = {
        Cns.IDENTIFY_NS: _namespace,
        Cns.IDENTIFY_CTRL: _controller,
        Cns.NS_ID_DESCRIPTORS: _namespace_descriptors,
        Cns.ACTIVE_NS_LIST: _active_namespaces,
        Cns.CSI_IDENTIFY_CTRL: _nvm_controller,
        Cns.ALLOCATED_NS_LIST: _allocated_namespaces,
        Cns.ALLOCATED_NS: _namespace,
        Cns.NS_ATTACHED_CTRL_LIST: _attached_controllers,
        Cns.CTRL_LIST: _controllers,
        Cns.PRIMARY_CTRL_CAP: _capabilities,
        Cns.SECONDARY_CTRL_LIST: _secondaries,
        Cns.UUID_LIST: _uuid_list,
        Cns.SUPPORTED_CTRL_STATE_FORMATS: _state_formats,
    }
    page = pages.get(request.select)
    if page is None:
        raise CommandRefusal(INVALID_FIELD)
    return 0, page(request)


def _overlay(raw: bytearray, pairs: tuple[tuple[int, str], ...]) -> None:
    for offset, text in pairs:
        value = bytes.fromhex(text)
        raw[offset : offset + len(value)] = value


def _put(raw: bytearray, **values: object) -> None:
    for name, value in values.items():
        field = IdentifyController.fields[name]
        raw[field.offset : field.end] = field.encode(value)


def _controller(request: AdminRequest) -> bytes:
    row, raw = request.row, bytearray(IDENTIFY_BYTES)
    _overlay(raw, row.identify)
    _put(raw, vid=row.vendor_id, ssvid=row.subsystem_vendor_id, sn=request.primary["serial"], mn=row.model)
    _put(raw, fr=row.firmware, mdts=row.mdts, cmic=row.cmic, ctratt=row.ctratt, ver=row.version, oacs=row.oacs)
    _put(raw, cntlid=request.controller["cntlid"])
    name = row.subnqn.format(serial=request.primary["serial"]).encode()
    raw[768 : 768 + len(name)] = name  # UTF-8, padded with NUL and not with spaces
    if request.is_primary:
        _put(raw, **_migration_limits(row))
    else:
        _overlay(raw, row.vf_identify)
    return bytes(raw)


def _migration_limits(row: DeviceGeneration) -> dict[str, int]:
    limits = {"trattr": row.trattr, "mcmr": row.data_queue_ranges, "mcdqpc": row.data_queue_prps}
    if row.memory_tracking:
        limits |= {"cmmrtd": row.tracking_descriptors, "nmmrtd": row.tracking_descriptors_subsystem}
        limits |= {"minmrtg": row.granularity_min, "maxmrtg": row.granularity_max}
    if row.user_data_logging:
        limits |= {"mcudmq": row.data_queues, "mnsudmq": row.data_queues_subsystem}
    return limits


def _nvm_controller(request: AdminRequest) -> bytes:
    if IDENTIFY_11.unpack(request.command.cdw11)["csi"]:
        raise CommandRefusal(INVALID_FIELD)  # a command set other than NVM
    raw = bytearray(IDENTIFY_BYTES)
    _overlay(raw, request.row.identify_nvm)
    return bytes(raw)


def _namespace(request: AdminRequest) -> bytes:
    for spec in request.row.namespaces:
        if spec.nsid == request.command.nsid:
            blocks = spec.size >> spec.lba_shift
            formats = bytes([0, 0, spec.lba_shift, 0]).ljust(256, b"\0")
            nguid = identity(request.machine, request.primary, spec) if request.row.namespace_ids else bytes(16)
            return IdentifyNamespace.pack(nsze=blocks, ncap=blocks, nuse=blocks, nmic=1, nguid=nguid, lbaf=formats)
    if request.command.nsid in (0, ALL_NAMESPACES):
        raise CommandRefusal(INVALID_NAMESPACE)
    return bytes(IDENTIFY_BYTES)  # an NSID that is not active


def _namespace_descriptors(request: AdminRequest) -> bytes:
    """Answer for the namespaces that are attached to the controller that is asked."""
    attached = request.primary["attached"].get(str(request.command.nsid), [])
    spec = next((namespace for namespace in request.row.namespaces if namespace.nsid == request.command.nsid), None)
    if spec is None or request.controller["cntlid"] not in attached:
        raise CommandRefusal(INVALID_NAMESPACE)
    if not request.row.namespace_ids:
        return bytes(IDENTIFY_BYTES)
    nguid = identity(request.machine, request.primary, spec)
    return build_descriptors({IdType.NGUID: nguid, IdType.UUID: uuid.UUID(bytes=nguid, version=5).bytes})


def _active_namespaces(request: AdminRequest) -> bytes:
    start = request.command.nsid
    if start >= ALL_NAMESPACES - 1:
        raise CommandRefusal(INVALID_NAMESPACE)
    own = request.controller["cntlid"]
    active = sorted(int(nsid) for nsid, ids in request.primary["attached"].items() if own in ids)
    return build_namespace_list([nsid for nsid in active if nsid > start][:MAX_NAMESPACES_PER_LIST])


def _allocated_namespaces(request: AdminRequest) -> bytes:
    start = request.command.nsid
    if start >= ALL_NAMESPACES - 1:
        raise CommandRefusal(INVALID_NAMESPACE)
    allocated = sorted(spec.nsid for spec in request.row.namespaces if spec.nsid > start)
    return build_namespace_list(allocated[:MAX_NAMESPACES_PER_LIST])


def _attached_controllers(request: AdminRequest) -> bytes:
    attached = request.primary["attached"].get(str(request.command.nsid))
    if attached is None:
        raise CommandRefusal(INVALID_FIELD)
    return _controller_list(request, attached)


def _controllers(request: AdminRequest) -> bytes:
    first = request.primary["first_cntlid"]
    return _controller_list(request, list(range(first, first + 1 + request.primary["numvfs"])))


def _controller_list(request: AdminRequest, ids: list[int]) -> bytes:
    chosen = [cntlid for cntlid in sorted(ids) if cntlid >= request.operation]
    return build_controller_list(chosen[:MAX_CONTROLLERS_PER_LIST])


def _capabilities(request: AdminRequest) -> bytes:
    row, primary = request.row, request.primary
    if not request.is_primary:
        return PrimaryControllerCapabilities.pack(
            cntlid=request.controller["cntlid"], crt=row.resource_types, vqprt=_PRIVATE_VQ_OF_A_SECONDARY
        )
    return PrimaryControllerCapabilities.pack(
        cntlid=primary["first_cntlid"],
        portid=row.port_id,
        crt=row.resource_types,
        vqfrt=row.vq_flexible,
        vqrfa=assigned(primary, "nvq"),
        vqrfap=primary["vq_primary"],
        vqprt=row.vq_private,
        vqfrsm=row.vq_per_secondary,
        vqgran=row.vq_granularity,
        vifrt=row.vi_flexible,
        virfa=assigned(primary, "nvi"),
        virfap=primary["vi_primary"],
        viprt=row.vi_private,
        vifrsm=row.vi_per_secondary,
        vigran=row.vi_granularity,
    )


def assigned(primary: EmulatedPrimary, kind: str) -> int:
    """Return how many flexible resources (``nvq`` or ``nvi``) the secondaries have together."""
    if kind == "nvq":
        return sum(secondary["nvq"] for secondary in primary["secondaries"].values())
    return sum(secondary["nvi"] for secondary in primary["secondaries"].values())


def _secondaries(request: AdminRequest) -> bytes:
    if not request.is_primary:
        return build_secondary_list([])
    chosen = [
        secondary
        for secondary in request.machine.secondaries(request.primary)
        if secondary["cntlid"] >= request.operation
    ]
    return build_secondary_list(
        [
            SecondaryControllerEntry.pack(
                scid=secondary["cntlid"],
                pcid=request.primary["first_cntlid"],
                scs=int(secondary["online"]),
                vfn=secondary["vfn"],
                nvq=secondary["nvq"],
                nvi=secondary["nvi"],
            )
            for secondary in chosen[:MAX_SECONDARIES_PER_LIST]
        ]
    )


def _uuid_list(request: AdminRequest) -> bytes:
    if not request.row.vendor_uuids:
        raise CommandRefusal(INVALID_FIELD)
    entries = b"".join(
        UuidListEntry.pack(header=_ASSOCIATED_WITH_VENDOR, value=uuid.UUID(text).bytes)
        for text in request.row.vendor_uuids
    )
    return (bytes(UuidListEntry.size) + entries).ljust(IDENTIFY_BYTES, b"\0")


def _state_formats(request: AdminRequest) -> bytes:
    row = request.row
    if not row.hmlms or not request.is_primary:
        raise CommandRefusal(INVALID_FIELD)
    formats = SupportedStateFormats(row.state_versions, tuple(uuid.UUID(text) for text in row.vendor_uuids))
    raw = formats.pack()
    return raw[: row.state_formats_bytes] if row.state_formats_bytes else raw


def get_log_page(request: AdminRequest) -> tuple[int, bytes]:
    """Answer Get Log Page."""
    command = request.command
    lower, upper = LOG_PAGE_10.unpack(command.cdw10)["numdl"], LOG_PAGE_11.unpack(command.cdw11)["numdu"]
    length = 4 * ((upper << 16 | lower) + 1)  # NUMD counts from zero
    start = qword(command.cdw12, command.cdw13)
    if command.data_in_length < length or start % 4:
        raise CommandRefusal(INVALID_FIELD)
    match request.select:
        case LogId.COMMANDS_SUPPORTED_AND_EFFECTS:
            page = _effects(request)
        case 0x02:
            page = bytes([0, 0x2D, 0x01, 100, 10]).ljust(512, b"\0")  # SMART: 301 K, spare 100 %, threshold 10 %
        case 0x01:
            page = bytes(64)  # error information: one empty entry
        case _:
            raise CommandRefusal(INVALID_LOG_PAGE)
    if start > len(page):
        raise CommandRefusal(INVALID_FIELD)
    return 0, page[start : start + length]


def _effects(request: AdminRequest) -> bytes:
    raw = bytearray(IDENTIFY_BYTES)
    for base, table in ((0, request.row.admin_effects), (1024, request.row.io_effects)):
        for opcode, word in table:
            raw[base + 4 * opcode : base + 4 * opcode + 4] = word.to_bytes(4, "little")
    return bytes(raw)
