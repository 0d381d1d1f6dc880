"""What a state image says of itself, for people and for programs.

Of vendor specific data: length and digest only; no guest address is shown either.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nvmelm.documents import Record, Report, about
from nvmelm.state.image.format import ImageHeader, Proof
from nvmelm.state.image.reader import Image
from nvmelm.wire.migration import IoCompletionQueue, IoSubmissionQueue


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedSubmissionQueue(Record):
    """An I/O submission queue in a state."""

    qid: int
    cqid: int
    slots: int
    head: int
    tail: int
    contiguous: bool
    priority: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedCompletionQueue(Record):
    """An I/O completion queue in a state."""

    qid: int
    slots: int
    head: int
    tail: int
    contiguous: bool
    interrupts: bool
    interrupt_vector: int
    slot_0_phase: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDescription(Report):
    """A verified state image."""

    schema_name = "nvmelm.image"

    header: ImageHeader
    image_bytes: int
    sha256: str
    every_completion_said_suspended: bool = field(
        metadata=about("also every completion said that it was suspended (CSUP)")
    )
    nvme_state_understood: bool = field(metadata=about("false: the version is unknown, and the queues are not listed"))
    submission_queues: tuple[SavedSubmissionQueue, ...]
    completion_queues: tuple[SavedCompletionQueue, ...]
    problems: tuple[str, ...] = field(metadata=about("what the queues say that no controller can have"))
    vendor_sha256: str | None = field(metadata=about("digest of the vendor specific data; null when there is none"))

    def to_json(self) -> dict[str, Any]:
        """Return the document; the header stands in it as in the image."""
        return {**Report.to_json(self), "header": self.header.model_dump(mode="json")}


def show(image: Image) -> ImageDescription:
    """Describe a verified image."""
    nvme = image.nvme_state()
    return ImageDescription(
        header=image.header,
        image_bytes=image.image_bytes,
        sha256=image.sha256.hex(),
        every_completion_said_suspended=Proof.EVERY_COMPLETION_SAID_SO in image.proof,
        nvme_state_understood=nvme is None or nvme.understood,
        submission_queues=tuple(map(_submission, nvme.submission_queues)) if nvme else (),
        completion_queues=tuple(map(_completion, nvme.completion_queues)) if nvme else (),
        problems=tuple(nvme.problems()) if nvme else (),
        vendor_sha256=image.vendor_sha256().hex() if image.header.vendor_bytes else None,
    )


def _submission(queue: IoSubmissionQueue) -> SavedSubmissionQueue:
    return SavedSubmissionQueue(
        qid=queue.iosqqid,
        cqid=queue.iosqcqid,
        slots=queue.slots,
        head=queue.iosqhp,
        tail=queue.iosqtp,
        contiguous=queue.contiguous,
        priority=queue.priority,
    )


def _completion(queue: IoCompletionQueue) -> SavedCompletionQueue:
    return SavedCompletionQueue(
        qid=queue.iocqqid,
        slots=queue.slots,
        head=queue.iocqhp,
        tail=queue.iocqtp,
        contiguous=queue.contiguous,
        interrupts=queue.interrupts_enabled,
        interrupt_vector=queue.interrupt_vector,
        slot_0_phase=queue.slot_0_phase,
    )
