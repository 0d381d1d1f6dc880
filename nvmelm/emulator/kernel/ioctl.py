"""The emulated host's :class:`~nvmelm.host.AdminQueue`: the kernel's ioctl before a controller's admin queue."""

from __future__ import annotations

import errno
import os
import time
from contextlib import AbstractContextManager

from nvmelm.emulator.device import dispatch
from nvmelm.emulator.device.request import AdminRequest
from nvmelm.emulator.device.resets import reset_primary
from nvmelm.emulator.kernel import functions
from nvmelm.emulator.kernel.function_directory import transfer_limits
from nvmelm.emulator.machine import faults
from nvmelm.emulator.machine.machine import Machine
from nvmelm.emulator.machine.memory import PAGE
from nvmelm.emulator.machine.state import EmulatedFunction, Fault, HostState
from nvmelm.errors import DeviceGoneError, HostError, NvmelmError, PermissionDeniedError, TimedOutError, host_error
from nvmelm.host import AdminCommand, Completion

#: Errnos of the ioctl that mean a dead or removed controller, as the real queue takes them.
_GONE = frozenset({errno.ENODEV, errno.ENXIO, errno.EIO, errno.ESHUTDOWN})


class EmulatedQueue:
    """The admin queue of one controller that the emulated kernel's nvme driver drives.

    Args:
        bdf: the controller's function.
        inode: the function's inode; a function that was removed and made anew is another one.
    """

    def __init__(self, machine: Machine, controller: str, bdf: str, inode: int) -> None:
        self._machine = machine
        self._controller = controller
        self._bdf = bdf
        self._inode = inode
        self._node = f"/dev/{controller}"
        with machine.view():
            kib, segments = transfer_limits(machine, machine.generation(machine.primary_of(self._function())))
        self._max_transfer_bytes = min(kib * 1024, segments * PAGE) & -PAGE
        self._hard_limit = kib * 1024

    @property
    def max_transfer_bytes(self) -> int:
        """Return the largest data buffer the emulated kernel surely carries in one command, bytes."""
        return self._max_transfer_bytes

    def submit(self, command: AdminCommand) -> Completion:
        """Run one command and return its completion, whatever its status."""
        self._check_buffer(command)
        with self._transaction(command) as state:  # a single one for what is nearly every command
            armed, delay_ms = faults.armed(state), state["options"]["latency_ms"]
            if not armed and not delay_ms:
                return self._carry_out(command, state)
            self._machine.store.untouched()
        fault = faults.for_command(self._machine, command) if armed else None
        self._wait(command, fault, delay_ms)
        if fault is None:
            return self._run(command)
        return self._strike(command, fault)

    def close(self) -> None:
        """Do nothing: the host keeps the state open."""

    def _function(self) -> EmulatedFunction:
        function = self._machine.state["functions"].get(self._bdf)
        if function is None or function["inode"] != self._inode or function["nvme"] < 0:
            raise self._gone("the controller was not there", errno.ENODEV)
        return function

    def _transaction(self, command: AdminCommand) -> AbstractContextManager[HostState]:
        return self._machine.view() if command.opcode in dispatch.READ_ONLY else self._machine.change()

    def _run(self, command: AdminCommand) -> Completion:
        with self._transaction(command) as state:
            return self._carry_out(command, state)

    def _carry_out(self, command: AdminCommand, state: HostState) -> Completion:
        machine = self._machine
        if not state["options"]["privileged"]:
            raise PermissionDeniedError(
                f"{command.name} was not carried out: {self._node}: {os.strerror(errno.EACCES)}",
                path=self._node,
                errno=errno.EACCES,
                cause="the kernel asks for root here",
                fix="run it as root",
            )
        function = self._function()
        primary, controller = machine.primary_of(function), machine.controller_of(function)
        memory = machine.registered(command.data_out)
        try:
            row = machine.generation(primary)
            return dispatch.execute(AdminRequest(machine, primary, row, controller, command, dispatch.execute, memory))
        except OSError as error:  # the real disk below the emulated one, not the emulated kernel
            raise host_error("the emulated host cannot keep its state", str(machine.directory), error) from error

    def _wait(self, command: AdminCommand, fault: Fault | None, delay_ms: float) -> None:
        if fault is not None and fault["action"] == "delay":
            delay_ms += float(fault["value"])
        if delay_ms:
            time.sleep(min(delay_ms, command.timeout_ms) / 1000)
        if delay_ms > command.timeout_ms:
            raise self._lost(command)

    def _strike(self, command: AdminCommand, fault: Fault) -> Completion:
        action, value = fault["action"], fault["value"]
        match action:
            case "status":
                return Completion(int(value, 0), 0, bytes(command.data_in_length))
            case "lose":
                self._run(command)
                raise self._lost(command)
            case "reset":
                with self._machine.change():
                    reset_primary(self._machine, self._machine.primary_of(self._function()), "controller")
            case "vanish":
                with self._machine.change():
                    functions.vanish(self._machine, self._machine.primary_of(self._function()))
                raise self._gone(f"{command.name} was not carried out", errno.ENODEV)
            case "errno":
                raise self._refused(command, getattr(errno, value))
            case "nonsense":
                completion = self._run(command)
                data = faults.nonsense(value, command, bytes(command.data_in_length) or completion.data)
                if completion.data:
                    data = faults.nonsense(value, command, completion.data)
                return Completion(completion.status, completion.result, data[: command.data_in_length])
            case "crash-before" | "raise-before":
                faults.crash(action)
            case "crash-after" | "raise-after":
                completion = self._run(command)
                faults.crash(action)
                return completion
        return self._run(command)

    def _lost(self, command: AdminCommand) -> TimedOutError:
        """Let the driver give up on a command: it resets the primary, and the ioctl ends with EINTR."""
        with self._machine.change():
            reset_primary(self._machine, self._machine.primary_of(self._function()), "controller")
        return TimedOutError(
            f"{command.name} was not carried out: {self._node}: the driver gave up on it",
            cause=f"no completion within {command.timeout_ms // 1000} s; the driver reset the primary controller, and "
            "with it every secondary controller went Offline and lost its resources, whatever sysfs shows",
            fix=f"nvmelm secondary list {self._controller}, then nvmelm recover",
            reason="admin-timeout",
        )

    def _gone(self, what: str, number: int) -> DeviceGoneError:
        return DeviceGoneError(
            f"{what}: {self._node}: {os.strerror(number)}",
            path=self._node,
            errno=number,
            cause="the controller is dead, or was removed",
            fix="nvmelm list; dmesg tells what the driver saw",
            reason="controller-gone",
        )

    def _refused(self, command: AdminCommand, number: int) -> NvmelmError:
        what = f"{command.name} was not carried out"
        if number == errno.EINTR:
            return self._lost(command)
        if number in _GONE:
            return self._gone(what, number)
        return host_error(what, self._node, OSError(number, os.strerror(number)))

    def _check_buffer(self, command: AdminCommand) -> None:
        """Refuse what the driver cannot map: more than the queue's limit."""
        if command.data_length > self._hard_limit:
            raise HostError(
                f"{command.name} was not carried out: {self._node}: {os.strerror(errno.EINVAL)}",
                path=self._node,
                errno=errno.EINVAL,
                cause=f"the driver cannot map a buffer of {command.data_length} bytes; it takes at most "
                f"{self._max_transfer_bytes} here",
                fix="transfer less in one command",
                reason="unmappable",
            )
