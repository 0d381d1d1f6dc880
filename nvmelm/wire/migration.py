"""The state of a suspended controller, as Migration Receive returns it and Migration Send takes it.

::

    Controller State                                    NVMe Controller State, version 0
    +------+--------------------------------+            +-----+---------------------------+
    |    0 | VER, CSATTR            48 bytes |     ,----> |   0 | VER, NIOSQ, NIOCQ  8 bytes |
    |   16 | NVMECSS, dwords, 128 bits       |     |      |   8 | NIOSQ entries of 24 bytes |
    |   32 | VSS, dwords, 128 bits           |     |      |     | NIOCQ entries of 24 bytes |
    |   48 | NVMe Controller State      -----+-----'      +-----+---------------------------+
    |      | vendor specific data            |
    +------+--------------------------------+

Both sizes come from a device and have 128 bits, so any value up to 2**130 bytes is possible: whoever allocates
memory or disk for a state checks :attr:`ControllerStateHeader.total_bytes` first.

Source: NVM Express Base Specification 2.1, "Controller State data structure" and "NVMe Controller State data
structure" (Migration Receive command).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from nvmelm.errors import MalformedError
from nvmelm.wire.layout import U8, U16, U32, U64, U128, Buffer, Layout

DWORD = 4

#: The only version of the NVMe Controller State that the specification defines up to 2.3.
KNOWN_VERSION = 0


class ControllerStateHeader(Layout, size=48):
    """The head of a Controller State: how large its two parts are, and whether it may be used.

    Source: NVM Express Base Specification 2.1, "Controller State data structure" (Figure 358).
    """

    ver = U16(0, "Version; 0")
    csattr = U8(2, "Controller State Attributes; bit 0 set: suspended during the whole command")
    nvmecss = U128(16, "NVMe Controller State Size, dwords")
    vss = U128(32, "Vendor Specific Size, dwords")

    @property
    def suspended(self) -> bool:
        """Return whether the controller was suspended for the whole time of reading; only then the state is one."""
        return bool(self.csattr & 1)

    @property
    def nvme_bytes(self) -> int:
        """Return the size of the NVMe Controller State, bytes."""
        return self.nvmecss * DWORD

    @property
    def vendor_bytes(self) -> int:
        """Return the size of the vendor specific data, bytes."""
        return self.vss * DWORD

    @property
    def total_bytes(self) -> int:
        """Return the size of header and both parts, bytes; exact, and up to 2**130."""
        return self.size + self.nvme_bytes + self.vendor_bytes


class NvmeStateHeader(Layout, size=8):
    """The head of an NVMe Controller State.

    Source: NVM Express Base Specification 2.1, "NVMe Controller State data structure" (Figure 359).
    """

    ver = U16(0, "Version; 0")
    niosq = U16(2, "Number of I/O Submission Queues")
    niocq = U16(4, "Number of I/O Completion Queues")

    @property
    def total_bytes(self) -> int:
        """Return the size of header and queue entries, bytes; meaningful for version 0."""
        return self.size + IoSubmissionQueue.size * self.niosq + IoCompletionQueue.size * self.niocq


class IoSubmissionQueue(Layout, size=24):
    """An I/O submission queue as it was created, and where it stands.

    Source: NVM Express Base Specification 2.1, "I/O Submission Queue State data structure" (Figure 360).
    """

    iosqprp1 = U64(0, "PRP Entry 1 of the Create command")
    iosqqsize = U16(8, "Queue Size, 0's based")
    iosqqid = U16(10, "Queue Identifier")
    iosqcqid = U16(12, "Completion Queue Identifier")
    iosqa = U16(14, "Attributes; bit 0 Physically Contiguous, bits 2:1 Queue Priority")
    iosqhp = U16(16, "Head Pointer")
    iosqtp = U16(18, "Tail Pointer")

    @property
    def slots(self) -> int:
        """Return the number of entries, counted from one."""
        return self.iosqqsize + 1

    @property
    def contiguous(self) -> bool:
        """Return whether the queue is one contiguous buffer."""
        return bool(self.iosqa & 1)

    @property
    def priority(self) -> int:
        """Return the queue priority, 0 (urgent) to 3 (low)."""
        return self.iosqa >> 1 & 3

    @property
    def pending(self) -> int:
        """Return how many commands the guest has submitted that the controller has not fetched."""
        return (self.iosqtp - self.iosqhp) % self.slots


class IoCompletionQueue(Layout, size=24):
    """An I/O completion queue as it was created, and where it stands.

    Source: NVM Express Base Specification 2.1, "I/O Completion Queue State data structure" (Figure 361).
    """

    iocqprp1 = U64(0, "PRP Entry 1 of the Create command")
    iocqqsize = U16(8, "Queue Size, 0's based")
    iocqqid = U16(10, "Queue Identifier")
    iocqhp = U16(12, "Head Pointer")
    iocqtp = U16(14, "Tail Pointer")
    iocqa = U32(16, "Attributes; bit 0 contiguous, bit 1 interrupts on, bit 2 phase of slot 0, bits 31:16 vector")

    @property
    def slots(self) -> int:
        """Return the number of entries, counted from one."""
        return self.iocqqsize + 1

    @property
    def contiguous(self) -> bool:
        """Return whether the queue is one contiguous buffer."""
        return bool(self.iocqa & 1)

    @property
    def interrupts_enabled(self) -> bool:
        """Return whether the queue raises interrupts."""
        return bool(self.iocqa >> 1 & 1)

    @property
    def slot_0_phase(self) -> int:
        """Return the Phase Tag of slot 0."""
        return self.iocqa >> 2 & 1

    @property
    def interrupt_vector(self) -> int:
        """Return the interrupt vector."""
        return self.iocqa >> 16


@dataclass(frozen=True, slots=True)
class NvmeControllerState:
    """The NVMe part of a controller's state: its I/O queues.

    Attributes:
        ver: the version; of another than 0 nothing but the number is understood.
        body: what stands behind the version number, of a version that is not understood; empty for version 0.
    """

    submission_queues: tuple[IoSubmissionQueue, ...] = ()
    completion_queues: tuple[IoCompletionQueue, ...] = ()
    ver: int = KNOWN_VERSION
    body: bytes = b""

    @property
    def understood(self) -> bool:
        """Return whether the version is one whose queues can be read."""
        return self.ver == KNOWN_VERSION

    @classmethod
    def parse(cls, raw: Buffer) -> Self:
        """Read exactly one NVMe Controller State.

        Raises:
            MalformedError: of version 0, and the queue counts do not give the number of bytes.
        """
        header = NvmeStateHeader.at(raw)
        if header.ver != KNOWN_VERSION:
            return cls(ver=header.ver, body=bytes(raw[2:]))
        if header.total_bytes != len(raw):
            message = (
                f"the NVMe controller state announces {header.niosq} submission and {header.niocq} completion queues"
            )
            raise MalformedError(message, cause=f"they need {header.total_bytes} bytes, and it has {len(raw)}")
        middle = header.size + IoSubmissionQueue.size * header.niosq
        return cls(
            tuple(IoSubmissionQueue.at(raw, offset) for offset in range(header.size, middle, IoSubmissionQueue.size)),
            tuple(IoCompletionQueue.at(raw, offset) for offset in range(middle, len(raw), IoCompletionQueue.size)),
        )

    def pack(self) -> bytes:
        """Build the bytes :meth:`parse` reads."""
        if not self.understood:
            return self.ver.to_bytes(2, "little") + self.body
        counts = {"niosq": len(self.submission_queues), "niocq": len(self.completion_queues)}
        queues = (*self.submission_queues, *self.completion_queues)
        return NvmeStateHeader.pack(ver=self.ver, **counts) + b"".join(queue.raw for queue in queues)

    def problems(self) -> list[str]:
        """Return what the queues say that no controller can have, one sentence each; empty when they make sense."""
        return list(_queue_problems(self.submission_queues, self.completion_queues))


def _queue_problems(
    submission: tuple[IoSubmissionQueue, ...], completion: tuple[IoCompletionQueue, ...]
) -> Iterator[str]:
    for what, ids in (
        ("submission", [queue.iosqqid for queue in submission]),
        ("completion", [queue.iocqqid for queue in completion]),
    ):
        if 0 in ids:
            yield f"an I/O {what} queue has identifier 0, which is the admin queue"
        if any(later <= earlier for earlier, later in itertools.pairwise(ids)):
            yield f"the I/O {what} queues are not in ascending order of their identifiers"
    known = {queue.iocqqid for queue in completion}
    for sq in submission:
        if sq.iosqcqid not in known:
            yield f"submission queue {sq.iosqqid} uses completion queue {sq.iosqcqid}, which is not there"
        if max(sq.iosqhp, sq.iosqtp) >= sq.slots:
            yield f"submission queue {sq.iosqqid} has {sq.slots} slots, and head {sq.iosqhp}, tail {sq.iosqtp}"
    for cq in completion:
        if max(cq.iocqhp, cq.iocqtp) >= cq.slots:
            yield f"completion queue {cq.iocqqid} has {cq.slots} slots, and head {cq.iocqhp}, tail {cq.iocqtp}"


@dataclass(frozen=True, slots=True)
class WholeControllerState:
    """A whole Controller State in memory: header, NVMe part, vendor part.

    Attributes:
        nvme: the NVMe part, None when the state has none.
        vendor: the vendor specific data, which is nobody's business.
    """

    header: ControllerStateHeader
    nvme: NvmeControllerState | None
    vendor: bytes

    @classmethod
    def parse(cls, raw: Buffer) -> Self:
        """Read exactly one Controller State; bytes behind it are an error, as missing ones are.

        Raises:
            MalformedError: the sizes in the header and the bytes do not agree.
        """
        header = ControllerStateHeader.at(raw)
        if header.total_bytes != len(raw):
            message = f"the controller state announces {header.total_bytes} bytes and has {len(raw)}"
            raise MalformedError(message, cause="it is truncated, or its sizes are not true")
        vendor_at = header.size + header.nvme_bytes
        nvme = NvmeControllerState.parse(raw[header.size : vendor_at]) if header.nvme_bytes else None
        return cls(header, nvme, bytes(raw[vendor_at:]))


def pack_controller_state(*, nvme: Buffer = b"", vendor: Buffer = b"", suspended: bool, ver: int = 0) -> bytes:
    """Build a Controller State around its two parts.

    Args:
        nvme: bytes of an NVMe Controller State, a multiple of 4, or none.
        vendor: vendor specific data, a multiple of 4 bytes, or none.
        suspended: what CSATTR says.

    Raises:
        ValueError: a part is not whole dwords.
    """
    for what, part in (("nvme", nvme), ("vendor", vendor)):
        if len(part) % DWORD:
            raise ValueError(f"the {what} part has {len(part)} bytes, not whole dwords")
    sizes = {"nvmecss": len(nvme) // DWORD, "vss": len(vendor) // DWORD}
    return ControllerStateHeader.pack(ver=ver, csattr=int(suspended), **sizes) + bytes(nvme) + bytes(vendor)
