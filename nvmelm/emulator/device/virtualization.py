"""Virtualization Management: flexible resources, and secondaries Online and Offline.

The order of the checks is that of the recorded controllers; the specification gives none.

Source: NVM Express Base Specification 2.1, Virtualization Management command; Virtualization Enhancements.
"""

from __future__ import annotations

from nvmelm.emulator.device.command_words import VIRTUALIZATION_10, VIRTUALIZATION_11
from nvmelm.emulator.device.identify import assigned
from nvmelm.emulator.device.request import (
    INVALID_CONTROLLER_IDENTIFIER,
    INVALID_FIELD,
    INVALID_NUMBER_OF_RESOURCES,
    INVALID_RESOURCE_IDENTIFIER,
    INVALID_SECONDARY_STATE,
    AdminRequest,
    CommandRefusal,
)
from nvmelm.emulator.device.resets import offline, reset_controller
from nvmelm.wire.opcodes import ResourceType, VirtualizationAction

_MINIMUM_VQ = 2  # the admin queue pair and one I/O queue pair
_MINIMUM_VI = 1  # vector 0


def manage(request: AdminRequest) -> tuple[int, bytes]:
    """Run one Virtualization Management command; DW0 15:0 is the number of resources modified."""
    word = VIRTUALIZATION_10.unpack(request.command.cdw10)
    kind, cntlid = word["rt"], word["cntlid"]
    count = VIRTUALIZATION_11.unpack(request.command.cdw11)["nr"]
    match word["act"]:
        case VirtualizationAction.PRIMARY_FLEXIBLE_ALLOCATION:
            return _allocate(request, cntlid, kind, count), b""
        case VirtualizationAction.SECONDARY_ASSIGN:
            return _assign(request, cntlid, kind, count), b""
        case VirtualizationAction.SECONDARY_ONLINE:
            _online(request, cntlid)
        case VirtualizationAction.SECONDARY_OFFLINE:
            if not request.is_primary:
                raise CommandRefusal(INVALID_CONTROLLER_IDENTIFIER)
            offline(request.machine, request.primary, request.secondary(cntlid))
        case _:
            raise CommandRefusal(INVALID_FIELD)
    return 0, b""


def _supported(request: AdminRequest, kind: int) -> None:
    if kind not in (ResourceType.VQ, ResourceType.VI) or not request.row.resource_types >> kind & 1:
        raise CommandRefusal(INVALID_RESOURCE_IDENTIFIER)


def _allocate(request: AdminRequest, cntlid: int, kind: int, count: int) -> int:
    """Change the primary's own share, from its next reset on that is more than CC.EN."""
    if not request.is_primary or cntlid != request.primary["first_cntlid"]:
        raise CommandRefusal(INVALID_CONTROLLER_IDENTIFIER)
    _supported(request, kind)
    row, primary = request.row, request.primary
    total = row.vq_flexible if kind == ResourceType.VQ else row.vi_flexible
    if count > total:
        raise CommandRefusal(INVALID_NUMBER_OF_RESOURCES)
    if count > total - assigned(primary, "nvq" if kind == ResourceType.VQ else "nvi"):
        raise CommandRefusal(INVALID_RESOURCE_IDENTIFIER)
    if kind == ResourceType.VQ:
        primary["vq_pending"] = count
    else:
        primary["vi_pending"] = count
    return count


def _assign(request: AdminRequest, cntlid: int, kind: int, count: int) -> int:
    if not request.is_primary:
        raise CommandRefusal(INVALID_CONTROLLER_IDENTIFIER)
    secondary = request.secondary(cntlid)
    _supported(request, kind)
    if not request.row.assigns >> kind & 1:
        raise CommandRefusal(INVALID_RESOURCE_IDENTIFIER)
    if secondary["online"]:
        raise CommandRefusal(INVALID_SECONDARY_STATE)
    row, primary = request.row, request.primary
    if kind == ResourceType.VQ:
        most, step = row.vq_per_secondary, row.vq_granularity
        free = row.vq_flexible - primary["vq_primary"] - assigned(primary, "nvq") + secondary["nvq"]
    else:
        most, step = row.vi_per_secondary, row.vi_granularity
        free = row.vi_flexible - primary["vi_primary"] - assigned(primary, "nvi") + secondary["nvi"]
    if row.rounds_up and step:
        count = -(-count // step) * step
    if count > most:
        raise CommandRefusal(INVALID_NUMBER_OF_RESOURCES)
    if count > free:
        raise CommandRefusal(INVALID_RESOURCE_IDENTIFIER)
    if kind == ResourceType.VQ:
        secondary["nvq"] = count
    else:
        secondary["nvi"] = count
    return count


def _online(request: AdminRequest, cntlid: int) -> None:
    if not request.is_primary:
        raise CommandRefusal(INVALID_CONTROLLER_IDENTIFIER)
    secondary, row = request.secondary(cntlid), request.row
    least_vq = _MINIMUM_VQ if row.vq_minimum is None else row.vq_minimum
    least_vi = _MINIMUM_VI if row.vi_minimum is None else row.vi_minimum
    short_vq = row.resource_types & 1 and secondary["nvq"] < least_vq
    short_vi = row.resource_types & 2 and secondary["nvi"] < least_vi
    if short_vq or short_vi or secondary["vfn"] > request.primary["numvfs"]:
        raise CommandRefusal(INVALID_SECONDARY_STATE)
    if not secondary["online"]:
        secondary["online"] = True
        reset_controller(request.machine, request.primary, secondary)
