"""A function that a virtual machine has open through VFIO."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from nvmelm.emulator.device.registers import Port
from nvmelm.emulator.device.resets import reset_function
from nvmelm.emulator.kernel import functions
from nvmelm.emulator.machine.machine import Machine
from nvmelm.emulator.machine.memory import Memory
from nvmelm.errors import host_error


class VfioFunction:
    """A function opened through VFIO, and the memory its DMA goes to. Opening and closing reset the function.

    Args:
        bdf: the function; it must be bound to vfio-pci and nobody else may have it open.
        memory: the file of the virtual machine's memory, relative to the host's directory.
        name: the name of the process that shows as having it open.

    Raises:
        HostError: ENOENT, it is not bound to vfio-pci; EBUSY, it is open already.
        DeviceGoneError: there is no such function.
    """

    def __init__(self, machine: Machine, bdf: str, *, memory: str, name: str) -> None:
        self._machine = machine
        self.bdf = bdf
        self.memory_name = memory
        with machine.change() as state:
            try:
                functions.open_vfio(machine, bdf, pid=os.getpid(), name=name, memory=memory)
            except OSError as error:
                function = state["functions"].get(bdf)
                node = f"/dev/vfio/{function['group'] if function else '?'}"
                raise host_error("could not open", node, error) from error
            self._inode = machine.function(bdf)["inode"]

    def belongs_to(self, vm: str) -> None:
        """Say which virtual machine has it, by the name the machine's process was given."""
        with self._machine.change() as state:
            for holder in state["holders"]:
                if holder["bdf"] == self.bdf:
                    holder["vm"] = vm

    @property
    def command(self) -> int:
        """Return the Command register; a function that was just opened has memory decode and bus master off."""
        with self._machine.view():
            holder = self._machine.opened(self.bdf)
            return holder.get("command", 0) if holder is not None else 0

    @command.setter
    def command(self, value: int) -> None:
        with self._machine.change():
            holder = self._machine.opened(self.bdf)
            if holder is not None:
                holder["command"] = value & 0xFFFF

    def set_vectors(self, count: int) -> None:
        """Set up so many MSI-X vectors, as ``VFIO_DEVICE_SET_IRQS`` does; 0 takes them away."""
        with self._machine.change():
            holder = self._machine.opened(self.bdf)
            if holder is not None:
                holder["vectors"] = count

    def reset(self) -> None:
        """Reset the function, as ``VFIO_DEVICE_RESET`` does; configuration space and vectors are put back."""
        with self._machine.change() as state:
            function = state["functions"].get(self.bdf)
            if function is not None and function["inode"] == self._inode:
                reset_function(self._machine, function)

    @property
    def memory(self) -> Memory:
        """Return the virtual machine's memory."""
        return self._machine.memory(self.memory_name)

    @contextmanager
    def port(self) -> Iterator[Port | None]:
        """Use the controller's registers for the length of a transaction; None when the function is not there."""
        with self._machine.change() as state:
            function = state["functions"].get(self.bdf)
            if function is None or function["inode"] != self._inode:
                yield None
                return
            primary = self._machine.primary_of(function)
            yield Port(self._machine, primary, self._machine.controller_of(function))

    @contextmanager
    def look(self) -> Iterator[Port | None]:
        """Look at the controller's registers, which changes nothing; None when the function is not there."""
        with self._machine.view() as state:
            function = state["functions"].get(self.bdf)
            if function is None or function["inode"] != self._inode:
                yield None
                return
            yield Port(self._machine, self._machine.primary_of(function), self._machine.controller_of(function))

    @property
    def asked_to_release(self) -> bool:
        """Return whether the kernel wants the function back, as its request interrupt says."""
        with self._machine.view():
            holder = self._machine.holder(self.bdf)
            return holder is not None and holder["release"]

    def close(self) -> None:
        """Close the function; a second time, or after it has gone, does nothing."""
        with self._machine.change() as state:
            holder = self._machine.holder(self.bdf)
            if holder is not None and holder["memory"] == self.memory_name and self.bdf in state["functions"]:
                functions.close_vfio(self._machine, self.bdf)
