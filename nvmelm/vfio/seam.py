"""The seam between a VMM's calls and one controlled function.

The interposer hands over what only it has (:class:`Opening`: the device's registers, the VM's memory, its vectors), and
asks a :class:`Function` what to answer. Every method of a function is called from one thread at a time; a refusal is a
:class:`Refusal`, whose errno is what the VMM gets and whose text goes to the journal.

Numbers are those of ``include/uapi/linux/vfio.h`` (Linux 6.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

#: ``VFIO_MIGRATION_*``: what a device says it can do.
STOP_COPY, P2P, PRE_COPY = 1 << 0, 1 << 1, 1 << 2

#: What an :class:`Incoming` takes at once at most, and what waits in the pipe behind it at most, bytes. It is the pipe
#: that Linux makes, and one page of a kernel with pages of 64 KiB, below which no pipe can be.
PIECE_BYTES = 64 * 1024


class DeviceState(IntEnum):
    """``enum vfio_device_mig_state``."""

    ERROR = 0
    STOP = 1
    RUNNING = 2
    STOP_COPY = 3
    RESUMING = 4
    RUNNING_P2P = 5
    PRE_COPY = 6
    PRE_COPY_P2P = 7


class Refusal(Exception):  # noqa: N818 (an answer to a VMM, not one of nvmelm's own errors)
    """What is asked is refused.

    Attributes:
        errno: what the VMM's call returns, ENOTTY where a device without migration would say so.
        reason: a sentence for the journal, empty when nobody needs one.
        written: it stands in the journal already; one that comes again is written once.
        ends_vm: the VM must not start here: its state has arrived, the VMM will not look at the errno, and the source
            goes on only if this VMM says nothing more.
    """

    def __init__(self, errno: int, reason: str = "") -> None:
        super().__init__(errno, reason)
        self.errno = errno
        self.reason = reason
        self.written = False
        self.ends_vm = False


class Registers(Protocol):
    """The function's own registers; each method raises OSError when the kernel refuses."""

    def read32(self, offset: int) -> int:
        """Read four bytes of BAR0 at ``offset``, a multiple of 4; EIO while memory decode is off.

        vfio-pci answers reads of a device's file so; a mapping of BAR0 would end this process with SIGBUS instead.
        """
        ...

    def write32(self, offset: int, value: int) -> None:
        """Write a 32-bit ``value`` to BAR0, likewise."""
        ...

    def command(self) -> int:
        """Return the Command register of the PCI configuration space (16 bits at offset 4), as the VMM sees it."""
        ...

    def set_command(self, value: int) -> None:
        """Write the Command register, as the VMM does."""
        ...

    def reset(self) -> None:
        """Reset the function as ``VFIO_DEVICE_RESET`` does; the kernel keeps configuration space and vectors.

        The function asked for it and knows: :meth:`Function.was_reset` is not called for it.
        """
        ...


class GuestMemory(Protocol):
    """The VM's memory by I/O address, as the VMM mapped it for DMA.

    Both raise LookupError when the VMM has mapped no memory at all of the range's bytes, and OSError when the VMM's
    memory cannot be reached.
    """

    def read(self, iova: int, length: int) -> bytes:
        """Return ``length`` bytes from an I/O address on; they may lie in several mappings."""
        ...

    def write(self, iova: int, data: bytes) -> None:
        """Store bytes from an I/O address on."""
        ...


class Vectors(Protocol):
    """The function's interrupts."""

    def trigger(self) -> None:
        """Raise every vector the VMM has set up once; a spurious interrupt is harmless, a lost one is not."""
        ...


@dataclass(frozen=True, slots=True)
class Opening:
    """What comes with a function that a VMM opened.

    Attributes:
        address: the function's PCI address, as the kernel writes it.
        pid: the VMM's process in our own PID namespace.
        vm: the VM's name where the VMM's arguments tell it, else the VMM's program; a stranger's text.
        reopened: the VMM has had it open since before the interposer began: it goes on from what was recorded.
    """

    address: str
    pid: int
    vm: str
    registers: Registers
    memory: GuestMemory
    vectors: Vectors
    reopened: bool = False


class Outgoing(Protocol):
    """A state on its way out: read by the VMM from ``data_fd`` until its end."""

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes, none at the end; raise :class:`Refusal` when the device fails in between."""
        ...

    def close(self) -> None:
        """Stop here, read whole or not."""
        ...


class Incoming(Protocol):
    """A state on its way in: what the VMM writes into ``data_fd``."""

    @property
    def judged(self) -> bool:
        """Whether its header was judged and not refused: until then it is taken in small pieces."""
        ...

    def write(self, data: bytes) -> None:
        """Take up to :data:`PIECE_BYTES` as they come; raise :class:`Refusal` as soon as they are seen to be unfit."""
        ...

    def close(self) -> None:
        """Stop here: no more bytes will come. What was written is judged by the next arc, not by this."""
        ...


class LogRange(NamedTuple):
    """A range of I/O addresses whose writes are logged, in bytes."""

    iova: int
    length: int


class Function(Protocol):
    """One controlled function as VFIO's migration interface shows it; all of it may raise :class:`Refusal`."""

    def flags(self) -> int:
        """Return ``VFIO_MIGRATION_*`` bits; ENOTTY for a function that no mark allows to migrate."""
        ...

    @property
    def state(self) -> DeviceState: ...

    def set_state(self, state: DeviceState) -> Outgoing | Incoming | None:
        """Take the arcs to ``state``; return the stream that its ``data_fd`` carries, for STOP_COPY and RESUMING."""
        ...

    def data_size(self) -> int:
        """Return an estimate of the stream's length in bytes, never 0."""
        ...

    def can_log(self) -> bool:
        """Return whether logging of writes is answered: what a PROBE of it asks."""
        ...

    def logging_start(self, ranges: Sequence[LogRange], page_size: int) -> int:
        """Begin to log writes; return the page size in bytes that is used.

        Args:
            ranges: in bytes, disjoint, each a multiple of the page size; the kernel's own drivers take no others.
            page_size: in bytes, a hint: the VMM uses what is returned.
        """
        ...

    def logging_report(self, iova: int, length: int, page_size: int) -> bytes:
        """Return a bitmap of the pages written since the last report, bit 0 of byte 0 first.

        What was reported is forgotten. After a refusal the VMM takes every page as written.

        Args:
            iova: where the first page begins, a multiple of ``page_size``.
            length: in bytes; the last page may be cut.
            page_size: in bytes, a power of two.
        """
        ...

    def logging_stop(self) -> None: ...

    def was_reset(self) -> None:
        """Take note that the VMM's ``VFIO_DEVICE_RESET`` succeeded: the state is RUNNING, what was loaded is gone.

        This and :meth:`close` raise nothing: there is nobody to tell.
        """
        ...

    def close(self) -> None:
        """Take note that the VMM closed the device, or died."""
        ...


class Functions(Protocol):
    """Which functions of this host are answered for."""

    def open(self, opening: Opening) -> Function | None:
        """Return the function a VMM has just opened, or None when it is none of ours: its calls then run untouched."""
        ...
