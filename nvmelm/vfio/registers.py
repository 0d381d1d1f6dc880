"""The registers of a controlled function that its state does not carry: CC, AQA, ASQ and ACQ, and the admin doorbells.

Properties of a suspended controller are read as ever. At a destination they are written with CC.EN last, and the
controller is waited for until it says that it is ready, as long as CAP.TO allows it to take.

Source: NVM Express Base Specification 2.1, "Controller Properties", "Migration Send command" (Suspend); NVMe over PCIe
Transport Specification 1.1, "Doorbells".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nvmelm.errors import NvmelmError
from nvmelm.process.waiting import wait_until
from nvmelm.vfio.seam import Registers

_CAP, _CC, _CSTS, _AQA, _ASQ, _ACQ, _DOORBELLS = 0x00, 0x14, 0x1C, 0x24, 0x28, 0x30, 0x1000
CC_ENABLE = 1 << 0
_READY, _FATAL = 1 << 0, 1 << 1
_MEMORY_DECODE, _BUS_MASTER = 1 << 1, 1 << 2
_GONE = 0xFFFF_FFFF
_TIMEOUT_UNIT_S = 0.5


@dataclass(frozen=True, slots=True)
class AdminRegisters:
    """What a driver wrote before it enabled its controller, and how it enabled it."""

    cc: int
    aqa: int
    asq: int
    acq: int

    @property
    def enabled(self) -> bool:
        """Return whether the controller is on."""
        return bool(self.cc & CC_ENABLE)


@contextmanager
def reachable(registers: Registers, *, dma: bool = False) -> Iterator[None]:
    """Keep memory decode on for the length of a block, and bus master if the controller has to do DMA in it.

    A guest that stands still may have either off, as before its firmware has found the function.

    Raises:
        OSError: the kernel refused.
    """
    before = registers.command()
    wanted = before | _MEMORY_DECODE | (_BUS_MASTER if dma else 0)
    if wanted == before:
        yield
        return
    registers.set_command(wanted)
    try:
        yield
    finally:
        registers.set_command(before)


class Controller:
    """A controller through its function's registers, which are reachable."""

    def __init__(self, registers: Registers) -> None:
        self._registers = registers
        low, high = registers.read32(_CAP), registers.read32(_CAP + 4)
        if low == high == _GONE:
            raise NvmelmError(
                "the function's registers read all ones",
                cause="the controller is dead, or its VF was taken away",
                fix="nvmelm secondary list PF shows what is left",
                reason="registers-gone",
            )
        #: How long the controller may take to get ready, s.
        self.timeout_s = max(low >> 24, 1) * _TIMEOUT_UNIT_S
        self._stride = 4 << (high & 0xF)

    def read(self) -> AdminRegisters:
        """Return the registers as they are."""
        read = self._registers.read32
        asq, acq = (read(at) | read(at + 4) << 32 for at in (_ASQ, _ACQ))
        return AdminRegisters(cc=read(_CC), aqa=read(_AQA), asq=asq, acq=acq)

    @property
    def enabled(self) -> bool:
        """Return whether CC.EN is set."""
        return bool(self._registers.read32(_CC) & CC_ENABLE)

    @property
    def ready(self) -> bool:
        """Return whether the controller says that it is ready.

        Raises:
            NvmelmError: it says that it has failed.
        """
        csts = self._registers.read32(_CSTS)
        if csts & _FATAL:
            raise NvmelmError(
                f"the controller reports a fatal status (CSTS {csts:#010x})",
                cause="it is Offline, or did not take its registers",
                fix="nvmelm secondary list PF",
                reason="controller-fatal",
            )
        return bool(csts & _READY)

    def enable(self, values: AdminRegisters) -> None:
        """Write all registers, CC.EN last, and wait until the controller is ready.

        Raises:
            TimedOutError: it is not ready within CAP.TO.
            NvmelmError: it failed.
        """
        self.write(values)
        wait_until(lambda: self.ready, "the controller to get ready (CSTS.RDY)", deadline_s=self.timeout_s)

    def write(self, values: AdminRegisters) -> None:
        """Write all registers, CC.EN last."""
        write = self._registers.write32
        write(_AQA, values.aqa)
        for at, value in ((_ASQ, values.asq), (_ACQ, values.acq)):
            write(at, value & 0xFFFF_FFFF)
            write(at + 4, value >> 32)
        write(_CC, values.cc & ~CC_ENABLE)
        if values.enabled:
            write(_CC, values.cc)

    def ring_sq(self, tail: int) -> None:
        """Write the tail doorbell of the admin submission queue."""
        self._registers.write32(_DOORBELLS, tail)

    def ring_cq(self, head: int) -> None:
        """Write the head doorbell of the admin completion queue."""
        self._registers.write32(_DOORBELLS + self._stride, head)
