"""What people see of states and their images; never a byte of what they hold."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nvmelm.cli.frame import render
from nvmelm.cli.frame.render import Column, cntlid, facts, size, table
from nvmelm.state.image.view import ImageDescription
from nvmelm.state.verbs import StateReport

if TYPE_CHECKING:  # a stream's models are loaded by who meets one
    from nvmelm.vfio.stream import SavedAdminQueue
    from nvmelm.vfio.view import StreamDescription


def report(done: StateReport) -> Iterator[str]:
    """Show what a step-6 verb did to a controlled function."""
    head = f"{done.verb} {done.primary} {cntlid(done.cntlid)}"
    if done.dry_run and not done.operations:
        yield f"{head}: nothing to do, it is so already"
    elif done.dry_run:
        yield f"{head}: planned, nothing was changed"
        yield from (f"  {render.plain(line)}" for line in done.operations)
    elif not done.changed:
        yield f"{head}: nothing to do, it was so already"
    else:
        yield render.Paint(sys.stdout).good(
            f"{head}: done in {render.duration(done.seconds)}, {render.count(done.commands, 'command')}"
        )
    known: list[tuple[str, object]] = []
    if done.state_bytes is not None:
        known.append(("state", size(done.state_bytes)))
    known += [(name, value) for name, value in (("image", done.image_id), ("SHA-256", done.sha256)) if value]
    yield from facts(known, indent="  ")
    yield from (render.plain(note) for note in done.notes)


def description(image: ImageDescription) -> Iterator[str]:
    """Show what an image says of itself."""
    header, source = image.header, image.header.source
    yield render.Paint(sys.stdout).good("the image is whole and unaltered")
    yield from facts(
        [
            ("image", header.image_id),
            ("saved", f"{header.created_utc:%Y-%m-%d %H:%M:%S} UTC by nvmelm {header.nvmelm_version}"),
            ("from", f"{source.model}, firmware {source.firmware}, serial number {source.serial}"),
            ("controller", f"{cntlid(source.cntlid)}, VF {source.vf_number}, {source.vq} VQ, {source.vi} VI"),
            ("NVMe state", _part(header.nvme_bytes, f"version {header.state_version}")),
            ("vendor state", _part(header.vendor_bytes, f"format {header.vendor_uuid}")),
            ("suspended", _proof(image)),
            ("SHA-256", image.sha256),
            ("size", f"{size(image.image_bytes)}, {size(header.state_bytes)} of them state"),
        ],
        indent="  ",
    )
    yield from _queues(image)
    yield from (render.Paint(sys.stdout).warn(render.plain(problem)) for problem in image.problems)


def stream(carried: StreamDescription) -> Iterator[str]:
    """Show what a VM's stream says of itself."""
    registers, queue = carried.registers, carried.admin_queue
    yield render.Paint(sys.stdout).good("the VM's stream is whole and unaltered")
    yield from facts(
        [
            ("stream", carried.id),
            ("left", f"{carried.created_utc}, by nvmelm {carried.nvmelm_version}"),
            ("VM", f"{carried.vm}, with {carried.address}"),
            ("manifest", carried.manifest_digest),
            ("registers", f"CC {registers.cc:#010x}, AQA {registers.aqa:#010x}"),
            ("admin queue", _admin_queue(queue) if queue is not None else "none: it is off, or arrives disabled"),
            ("size", size(carried.stream_bytes)),
        ],
        indent="  ",
    )
    if carried.image is not None:
        yield ""
        yield from description(carried.image)


def _admin_queue(queue: SavedAdminQueue) -> str:
    requests = len(queue.event_requests) + queue.unidentified
    completions = render.count(queue.completions, "completion")
    return f"{completions}, SQ head {queue.sq_head}, {render.count(requests, 'event request')}"


def _part(length: int, what: str) -> str:
    return f"{size(length)}, {what}" if length else "none"


def _proof(image: ImageDescription) -> str:
    every = " and in every completion" if image.every_completion_said_suspended else ""
    return f"throughout: in the state's own attributes{every}"


def _queues(image: ImageDescription) -> Iterator[str]:
    if not image.nvme_state_understood:
        yield ""
        yield "the queues are not listed: this version of the NVMe state is not known here"
        return
    columns = [Column(name, right=True) for name in ("QID", "CQID", "SLOTS", "HEAD", "TAIL")]
    if image.submission_queues:
        yield ""
        yield "submission queues"
        yield from table(columns, ((q.qid, q.cqid, q.slots, q.head, q.tail) for q in image.submission_queues))
    if image.completion_queues:
        yield ""
        yield "completion queues"
        columns = [Column(name, right=True) for name in ("QID", "SLOTS", "HEAD", "TAIL", "VECTOR")]
        rows = (
            (q.qid, q.slots, q.head, q.tail, q.interrupt_vector if q.interrupts else None)
            for q in image.completion_queues
        )
        yield from table(columns, rows)
