"""The NVMe driver of :mod:`tests.lab.nvme_driver` in a VM whose processor a test drives (:mod:`tests.lab.mailbox`).

It begins where a guest's firmware begins: buses are numbered, windows and BARs placed, MSI-X written, by configuration
cycles. An interrupt message goes into a word of the VM's memory, which an interrupt message is as much as any other
write is; so a test sees interrupts of a processor that takes none.

Source: PCI Express Base Specification, type 0 and 1 headers, MSI-X.
"""

from __future__ import annotations

import struct

from tests.lab.machine import wait_for
from tests.lab.mailbox import Processor
from tests.lab.nvme_driver import DEADLINE_S, IOVA, MEMORY, PAGE, Driver

#: Far above the VM's memory, and apart from what its machine has at fixed places.
WINDOWS, WINDOW_BYTES = 0xD000_0000, 0x10_0000
#: One word for each vector.
INTERRUPTS = 60 * PAGE

COMMAND, BAR0, BUSES, MEMORY_WINDOW, CAPABILITIES = 0x04, 0x10, 0x18, 0x20, 0x34
MEMORY_AND_BUS_MASTER = 0x6
MSIX, MSIX_ENABLE = 0x11, 1 << 31
EXPRESS, SLOT_CONTROL, POWER_INDICATOR_OFF, POWER_OFF = 0x10, 0x18, 3 << 8, 1 << 10


class GuestDriver(Driver):
    """The driver of a function that is passed to a VM.

    Args:
        processor: of the VM that has it now; :meth:`follow` takes another one.
        slot: of the root port on bus 0; the function is alone behind it.
        number: from 1 on, which of the VM's functions it is; says the bus, the window, and the part of the memory.
    """

    def __init__(self, processor: Processor, slot: int, number: int = 1) -> None:
        iova = IOVA + (number - 1) * MEMORY
        super().__init__(f"the VM's function {number}", _pages(processor, iova), iova)
        self.processor, self.slot, self.bus = processor, slot, number
        self.bar = WINDOWS + number * WINDOW_BYTES

    def find(self) -> None:
        """Number the bus behind the root port, and place the function's BAR in the port's window."""
        self.processor.config_write(0, self.slot, 0, BUSES, self.bus << 16 | self.bus << 8)
        window = self.bar >> 16 & 0xFFF0
        self.processor.config_write(0, self.slot, 0, MEMORY_WINDOW, window << 16 | window)
        self.processor.config_write(0, self.slot, 0, COMMAND, MEMORY_AND_BUS_MASTER)
        for offset, value in ((BAR0, self.bar), (BAR0 + 4, 0), (COMMAND, MEMORY_AND_BUS_MASTER)):
            self.processor.config_write(self.bus, 0, 0, offset, value)

    def enable_interrupts(self, vectors: int) -> None:
        """Write the first entries of the MSI-X table, and enable it."""
        capability = self._capability(self.bus, 0, MSIX)
        table = self.processor.config_read(self.bus, 0, 0, capability + 4)
        assert table & 7 == 0, "the table is expected in BAR 0"
        for vector in range(vectors):
            entry = (table & ~7) + 16 * vector
            for offset, value in enumerate((self.iova + INTERRUPTS + 4 * vector, 0, vector + 1, 0)):
                self.write32(entry + 4 * offset, value)
        control = self.processor.config_read(self.bus, 0, 0, capability)
        self.processor.config_write(self.bus, 0, 0, capability, control | MSIX_ENABLE)

    def interrupted(self, vector: int) -> bool:
        """Return whether a vector's message has come since the last look."""
        at = INTERRUPTS + 4 * vector
        word = struct.unpack("<I", self.pages[at : at + 4])[0]
        self.pages[at : at + 4] = bytes(4)
        return bool(word == vector + 1)

    def await_interrupt(self, vector: int) -> None:
        """Wait for a vector's message."""
        wait_for(lambda: self.interrupted(vector), f"an interrupt by vector {vector} of {self.bdf}", DEADLINE_S)

    def let_go(self) -> None:
        """Switch the port's power off, by which a guest agrees to an unplug."""
        control = self._capability(0, self.slot, EXPRESS) + SLOT_CONTROL
        value = self.processor.config_read(0, self.slot, 0, control)
        self.processor.config_write(0, self.slot, 0, control, value & 0xFFFF | POWER_INDICATOR_OFF | POWER_OFF)

    def follow(self, processor: Processor) -> None:
        """Go on where the VM runs now, with its memory and nothing else."""
        self.processor, self.pages = processor, _pages(processor, self.iova)

    def read32(self, offset: int) -> int:
        return self.processor.read32(self.bar + offset)

    def write32(self, offset: int, value: int) -> None:
        self.processor.write32(self.bar + offset, value)

    def _capability(self, bus: int, device: int, identity: int) -> int:
        """Return the place of a capability in a function's configuration space."""
        place = self.processor.config_read(bus, device, 0, CAPABILITIES) & 0xFC
        while place:
            word = self.processor.config_read(bus, device, 0, place)
            if word & 0xFF == identity:
                return place
            place = word >> 8 & 0xFC
        raise AssertionError(f"device {device} of bus {bus} has no capability {identity:#x}")


def _pages(processor: Processor, iova: int) -> memoryview:
    return memoryview(processor.memory)[iova : iova + MEMORY]
