"""A controller's state as bytes: built from its live queues, and put back into them.

Source: NVM Express Base Specification 2.1, Controller State data structure; NVMe Controller State data structure.
"""

from __future__ import annotations

from nvmelm.emulator.device import vendor
from nvmelm.emulator.device.registers import Port
from nvmelm.emulator.device.request import INVALID_FIELD, NOT_ENOUGH_RESOURCES, AdminRequest, CommandRefusal
from nvmelm.emulator.machine.state import EmulatedController, Io, new_io
from nvmelm.errors import MalformedError
from nvmelm.wire.migration import (
    ControllerStateHeader,
    IoCompletionQueue,
    IoSubmissionQueue,
    NvmeControllerState,
    NvmeStateHeader,
)

_S0PT = 1 << 2  # the phase tag of slot 0 in this pass
_IOCQA_CREATE = ~_S0PT & 0xFFFF_FFFF


def nvme_part(controller: EmulatedController) -> bytes:
    """Return the NVMe Controller State, version 0, of a controller."""
    io = controller["io"] or new_io()
    submission = [
        IoSubmissionQueue.pack(
            iosqprp1=queue["prp1"],
            iosqqsize=queue["size"],
            iosqqid=number,
            iosqcqid=queue["cqid"],
            iosqa=queue["attributes"],
            iosqhp=queue["head"],
            iosqtp=queue["tail"],
        )
        for number, queue in sorted((int(number), queue) for number, queue in io["sqs"].items())
    ]
    completion = [
        IoCompletionQueue.pack(
            iocqprp1=queue["prp1"],
            iocqqsize=queue["size"],
            iocqqid=number,
            iocqhp=queue["head"],
            iocqtp=queue["tail"],
            iocqa=queue["attributes"] & _IOCQA_CREATE | (_S0PT if queue["phase"] else 0),
        )
        for number, queue in sorted((int(number), queue) for number, queue in io["cqs"].items())
    ]
    return NvmeControllerState(
        tuple(IoSubmissionQueue(raw) for raw in submission), tuple(IoCompletionQueue(raw) for raw in completion)
    ).pack()


def window(
    request: AdminRequest, controller: EmulatedController, *, nvme: bool, vendor_part: bool, offset: int, length: int
) -> bytes:
    """Return part of a Controller State.

    Args:
        nvme, vendor_part: which parts the structure has.
        offset, length: bytes; what lies behind the end is not returned.

    Raises:
        CommandRefusal: the offset lies behind the end.
    """
    row = request.row
    size = row.vendor_state_bytes if vendor_part else 0
    head_bytes = ControllerStateHeader.size + (_nvme_bytes(controller) if nvme else 0)
    total = head_bytes + size
    if offset > total or (offset == total and row.end_is_invalid):
        raise CommandRefusal(INVALID_FIELD)
    raw = _head(controller, nvme=nvme, size=size)[offset : offset + length] if offset < head_bytes else b""
    left = min(length, total - offset) - len(raw)
    if left > 0:
        vendor.ensure(request.machine, request.primary, controller)
        if request.row.restores_admin_queue and offset < head_bytes:
            vendor.keep_admin_queue(request.machine, controller)
        data = vendor.read(request.machine, controller, max(offset - head_bytes, 0), left)
        raw = raw + data if raw else data
    return raw


def _nvme_bytes(controller: EmulatedController) -> int:
    """Return the length of a controller's NVMe Controller State."""
    io = controller["io"] or new_io()
    return NvmeStateHeader.size + len(io["sqs"]) * IoSubmissionQueue.size + len(io["cqs"]) * IoCompletionQueue.size


def _head(controller: EmulatedController, *, nvme: bool, size: int) -> bytes:
    """Return what stands before the vendor specific state of so many bytes."""
    part = nvme_part(controller) if nvme else b""
    header = ControllerStateHeader.pack(csattr=int(controller["suspended"]), nvmecss=len(part) // 4, vss=size // 4)
    return header + part


def queues_from(request: AdminRequest, controller: EmulatedController, raw: bytes, version: int) -> Io | None:
    """Return the registers of a target with the queues that an NVMe Controller State describes.

    Raises:
        CommandRefusal: the bytes are no such state, or the target cannot have these queues.
    """
    try:
        state = NvmeControllerState.parse(raw)
    except MalformedError as error:
        raise CommandRefusal(INVALID_FIELD) from error
    if state.ver != version or not state.understood or state.problems():
        raise CommandRefusal(INVALID_FIELD)
    present = controller["io"]
    if present is not None and (present["sqs"] or present["cqs"]):
        raise CommandRefusal(INVALID_FIELD)
    shapes = [(queue.contiguous, queue.slots) for queue in state.submission_queues]
    shapes += [(queue.contiguous, queue.slots) for queue in state.completion_queues]
    if not all(contiguous and slots <= request.row.queue_entries_max for contiguous, slots in shapes):
        raise CommandRefusal(INVALID_FIELD)
    ids = [queue.iosqqid for queue in state.submission_queues] + [queue.iocqqid for queue in state.completion_queues]
    most = max(ids, default=0)
    if most >= max(controller["nvq"], 1):
        raise CommandRefusal(NOT_ENOUGH_RESOURCES)
    io = present or new_io()
    vectors = Port(request.machine, request.primary, controller).vectors()
    if request.row.vectors_before_queues and vectors == 0:
        io.setdefault("dead", []).extend(queue.iocqa >> 16 for queue in state.completion_queues)
    return _with_queues(io, state)


def _with_queues(io: Io, state: NvmeControllerState) -> Io:
    for sq in state.submission_queues:
        io["sqs"][str(sq.iosqqid)] = {
            "prp1": sq.iosqprp1,
            "size": sq.iosqqsize,
            "cqid": sq.iosqcqid,
            "attributes": sq.iosqa,
            "head": sq.iosqhp,
            "tail": sq.iosqtp,
        }
    for cq in state.completion_queues:
        io["cqs"][str(cq.iocqqid)] = {
            "prp1": cq.iocqprp1,
            "size": cq.iocqqsize,
            "attributes": cq.iocqa & _IOCQA_CREATE,
            "head": cq.iocqhp,
            "tail": cq.iocqtp,
            "phase": cq.slot_0_phase,
        }
    return io
