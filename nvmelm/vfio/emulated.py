"""What comes with a function that an emulated virtual machine has opened: the seam's other side on emulated hosts."""

from __future__ import annotations

import os
from dataclasses import dataclass

from nvmelm.emulator.guest.migrating_vm import MigratingVm
from nvmelm.emulator.kernel.vfio import VfioFunction
from nvmelm.emulator.machine.memory import Memory
from nvmelm.vfio.seam import Opening


@dataclass(frozen=True, slots=True)
class EmulatedMemory:
    """The guest's memory, mapped for DMA from address 0."""

    function: VfioFunction

    @property
    def _memory(self) -> Memory:
        return self.function.memory

    def read(self, iova: int, length: int) -> bytes:
        """Return bytes; LookupError where nothing is mapped."""
        try:
            return self._memory.read(iova, length)
        except ValueError as error:
            raise LookupError(str(error)) from error

    def write(self, iova: int, data: bytes) -> None:
        """Store bytes, likewise."""
        try:
            self._memory.write(iova, data)
        except ValueError as error:
            raise LookupError(str(error)) from error


@dataclass(slots=True)
class CountedVectors:
    """The function's interrupts; what they do to a guest that looks at its queues anyway is counted."""

    triggered: int = 0

    def trigger(self) -> None:
        """Raise each once."""
        self.triggered += 1


def opening_of(vm: MigratingVm) -> Opening:
    """Return what an interposer would hand over of a VM's function."""
    return Opening(
        address=vm.bdf,
        pid=os.getpid(),
        vm=vm.name,
        registers=vm.bar,
        memory=EmulatedMemory(vm.function),
        vectors=CountedVectors(),
    )
