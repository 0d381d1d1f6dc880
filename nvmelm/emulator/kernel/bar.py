"""BAR0 of a controlled function as whoever has it open through VFIO reads and writes it, and its Command register.

::

    0x00 CAP   0x08 VS   0x0C INTMS, INTMC   0x14 CC   0x1C CSTS   0x24 AQA   0x28 ASQ   0x30 ACQ
    0x1000 + (2y + c) * (4 << CAP.DSTRD)    doorbell of queue y: c = 0 tail of the submission, 1 head of the completion

While memory decode is off in the Command register the kernel refuses every access with EIO.

Source: NVM Express Base Specification 2.1, Controller Properties; NVMe over PCIe Transport Specification 1.1,
Doorbells; Linux 6.1 drivers/vfio/pci/vfio_pci_rdwr.c.
"""

from __future__ import annotations

import errno
import os

from nvmelm.emulator.device import dispatch
from nvmelm.emulator.device.admin_commands import ControllerAdminQueue
from nvmelm.emulator.device.engine import CC_ENABLE
from nvmelm.emulator.device.registers import Port
from nvmelm.emulator.kernel.vfio import VfioFunction

CAP, VS, CC, CSTS, AQA, ASQ, ACQ = 0x00, 0x08, 0x14, 0x1C, 0x24, 0x28, 0x30
DOORBELLS = 0x1000
MEMORY_DECODE, BUS_MASTER = 1 << 1, 1 << 2
_GONE = 0xFFFF_FFFF
_CONTIGUOUS_QUEUES = 1 << 16
_NVM_COMMAND_SET = 1 << 37


class Bar:
    """The registers of a function that a virtual machine has open."""

    def __init__(self, function: VfioFunction) -> None:
        self._function = function

    def command(self) -> int:
        """Return the Command register of the configuration space."""
        return self._function.command

    def set_command(self, value: int) -> None:
        """Write the Command register."""
        self._function.command = value

    def reset(self) -> None:
        """Reset the function; the kernel puts its configuration space back."""
        self._function.reset()

    def read32(self, offset: int) -> int:
        """Read four bytes; EIO while memory decode is off."""
        self._require_decode()
        if offset == CSTS:
            with self._function.port() as port:  # a controller may get ready by the look
                return self._read(port, offset) if port is not None else _GONE
        with self._function.look() as port:
            return self._read(port, offset) if port is not None else _GONE

    def write32(self, offset: int, value: int) -> None:
        """Write four bytes; EIO while memory decode is off."""
        self._require_decode()
        with self._function.port() as port:
            if port is not None and port.io is not None:
                self._write(port, offset, value)

    def event(self, result: int) -> None:
        """Let an asynchronous event happen in the controller, with this DW0."""
        with self._function.port() as port:
            if port is not None:
                ControllerAdminQueue(port, dispatch.execute).event(result)

    def _require_decode(self) -> None:
        if not self._function.command & MEMORY_DECODE:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    @staticmethod
    def _read(port: Port, offset: int) -> int:
        row, io = port.machine.generation(port.primary), port.io
        if io is None or port.primary["gone"]:
            return _GONE
        cap = row.queue_entries_max - 1 | _CONTIGUOUS_QUEUES | row.ready_timeout << 24
        cap |= row.doorbell_stride << 32 | _NVM_COMMAND_SET
        words = {CAP: cap, ASQ: io["asq"], ACQ: io["acq"]}
        for at, value in words.items():
            if offset in (at, at + 4):
                return value >> 8 * (offset - at) & 0xFFFF_FFFF
        match offset:
            case 0x08:
                return row.version
            case 0x14:
                return io["cc"]
            case 0x1C:
                return port.read_csts()
            case 0x24:
                return io["aqa"]
        return 0

    @staticmethod
    def _write(port: Port, offset: int, value: int) -> None:
        io = port.io
        if io is None:
            return
        if offset >= DOORBELLS:
            Bar._doorbell(port, offset - DOORBELLS, value & 0xFFFF)
        elif offset == CC:
            port.write_cc(value)
        elif io["cc"] & CC_ENABLE:
            return  # the admin queue is taken when CC.EN is set; a later write changes nothing
        elif offset == AQA:
            io["aqa"] = value
        elif offset in (ASQ, ASQ + 4):
            io["asq"] = _half(io["asq"], offset - ASQ, value)
        elif offset in (ACQ, ACQ + 4):
            io["acq"] = _half(io["acq"], offset - ACQ, value)

    @staticmethod
    def _doorbell(port: Port, offset: int, value: int) -> None:
        number, rest = divmod(offset, 4 << port.machine.generation(port.primary).doorbell_stride)
        if rest:
            return
        qid, completion = divmod(number, 2)
        if qid:
            (port.ring_cq if completion else port.ring_sq)(qid, value)
            return
        queue = ControllerAdminQueue(port, dispatch.execute)
        (queue.ring_cq if completion else queue.ring_sq)(value)


def _half(before: int, at: int, value: int) -> int:
    """Return a register of 8 bytes of which 4 were written; the low 12 bits of a queue's address are zero."""
    shift = 8 * at
    return (before & ~(0xFFFF_FFFF << shift) | value << shift) & ~0xFFF
