"""Do the operations of one phase of a plan on a host, and check that each took effect.

This is the one place from which a plan writes sysfs and sends commands that change a controller. The address of a VF
comes from the kernel's ``virtfnN`` link at the moment of each write, and no write that the kernel may block is waited
for without an end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from nvmelm.commands import execute
from nvmelm.errors import HostError, MalformedError, NotSupportedError, TimedOutError
from nvmelm.host import AdminCommand
from nvmelm.inventory import marks, pci
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import Picture, Secondary
from nvmelm.prepare.actions import Action, MarkChange, Operation, Phase, SysfsWrite, VfWrite
from nvmelm.prepare.cells import VFS, CellName
from nvmelm.prepare.plan import driver_bind_path
from nvmelm.process import parallel
from nvmelm.process.interrupts import begin
from nvmelm.process.waiting import wait_until
from nvmelm.wire.opcodes import Opcode, VirtualizationAction

#: The kernel waits 0.1 s when it enables VFs and 1 s when it disables them; slow devices take longer.
_VFS_DEADLINE_S = 30.0
#: How long a process that holds a VF gets to let go of it after the operator agreed.
_IDLE_DEADLINE_S = 60.0

#: The kernel waits 100 ms for each reset, and works while it binds: 32 VFs take 0.3 s and 0.07 s so, in the lab.
_RESETTING_THREADS, _BINDING_THREADS = 32, 8

#: Attributes in whose write the kernel calls a driver or waits for the device.
_BLOCKING = frozenset({"sriov_numvfs", "unbind", "bind", "drivers_probe", "reset"})

T = TypeVar("T")


class Executor:
    """Does the operations of one phase on a host, and checks that each took effect."""

    def __init__(self, pf: OpenPrimary, picture: Picture) -> None:
        self.session = pf
        self.host = pf.host
        self.picture = picture  # as it was when the actions were planned

    def phase(self, phase: Phase, actions: list[Action]) -> None:
        if phase is Phase.RESET:
            self._reset(actions)
            return
        if phase is Phase.MARK:
            self._mark(actions)
            return
        if phase is Phase.BIND:
            self._load_drivers(actions)
            self._each(self._bind, actions, threads=_BINDING_THREADS)
            return
        for action in actions:
            if phase in (Phase.VFS, Phase.UNBIND):
                self._take_away(action)
            else:
                for operation in action.operations:
                    self._do(operation)

    def _do(self, operation: Operation) -> None:
        if isinstance(operation, (SysfsWrite, VfWrite)):
            self._write(self._placed(operation))
        elif isinstance(operation, MarkChange):
            marks.revoke(self.host, self.session.address, operation.cntlid)
        else:
            self._command(operation)

    def _placed(self, write: SysfsWrite | VfWrite) -> SysfsWrite:
        """Return a write with the address its VF has now.

        Raises:
            HostError: the PF has no such VF, or its link leads to another function than the one that was agreed to.
        """
        if isinstance(write, SysfsWrite):
            return write
        pf = self.session.ref.address
        address = pci.virtual_function(self.host.sysfs, pf, write.index)
        link = f"{pf.path}/virtfn{write.index}"
        fix = f"nvmelm show {pf}, and dmesg"
        if address is None or address == pf:
            cause = "the link leads to no VF" if address else "there is no such link"
            raise HostError(f"{pf} has no VF {write.index + 1}", path=link, cause=cause, fix=fix, reason="no-vf")
        if write.seen and str(address) != write.seen:
            cause = f"it was {write.seen} when this was planned, and is {address} now"
            raise HostError(f"VF {write.index + 1} of {pf} is another function", path=link, cause=cause, fix=fix)
        return write.at(address)

    def _write(self, write: SysfsWrite) -> None:
        """Write, and stop waiting for a write the kernel blocks; a recording keeps one order and never blocks."""
        if self.host.kind == "replay" or not _may_block(write.path):
            self.host.sysfs.write(write.path, write.value)
        else:
            _bounded(lambda: self.host.sysfs.write(write.path, write.value), f"write {write}")

    def _command(self, command: AdminCommand) -> None:
        modified = execute(self.session.queue, command).result & 0xFFFF
        if _assigns(command) and modified != command.cdw11 & 0xFFFF:
            cause = f"it reports {modified} modified instead of {command.cdw11 & 0xFFFF}"
            raise MalformedError("the controller assigned another number of resources", cause=cause)

    def _reset(self, actions: list[Action]) -> None:
        """Reset the functions, all at once where the kernel lets us: it waits 100 ms for each."""
        operations = [operation for action in actions for operation in action.operations]
        writes = [self._placed(operation) for operation in operations if isinstance(operation, (SysfsWrite, VfWrite))]
        usable = [operation for operation in writes if self.host.sysfs.exists(operation.path)]
        self._each(self._do, usable, threads=_RESETTING_THREADS)

    def _each(self, do: Callable[[T], None], items: Sequence[T], *, threads: int) -> None:
        """Do something for each function: at once on a host where that saves time, else one after the other."""
        if self.host.serial or len(items) == 1:
            for item in items:
                do(item)
        else:
            parallel.each(do, items, threads=threads)

    def _mark(self, actions: list[Action]) -> None:
        """Verify the facts as they are now, then give the marks."""
        picture = self.session.picture(users=False)
        for action in actions:
            for change in action.operations:
                secondary = picture.secondary(change.cntlid) if isinstance(change, MarkChange) else None
                if secondary is not None and isinstance(change, MarkChange) and change.role is not None:
                    marks.verify(picture, secondary)
                    marks.give(self.host, picture, secondary, change.role, valid_s=change.valid_s)

    def _take_away(self, action: Action) -> None:
        """Write what makes functions disappear or lose their driver; the kernel blocks it while a process holds one."""
        held = [
            secondary
            for secondary in self.picture.secondaries
            if secondary.cntlid in action.needs_idle and secondary.vfio_node
        ]
        if held:
            self._wait_idle(held)
        for operation in action.operations:
            self._do(operation)
        if action.phase is Phase.VFS:
            self._wait_for_vfs(next(int(change.after or 0) for change in action.changes if change.cell == VFS))

    def _wait_idle(self, held: list[Secondary]) -> None:
        nodes = [str(secondary.vfio_node).removeprefix("/dev/") for secondary in held]
        held = [secondary for secondary in held if secondary.used_by] or held
        users = [user for secondary in held for user in secondary.used_by]
        names = ", ".join(str(secondary.address) for secondary in held)
        what = f"{names} to be let go of" + (f" ({', '.join(users)})" if users else "")
        fix = "stop the VM, or nvmelm vm detach"
        wait_until(lambda: not self.host.openers(nodes), what, deadline_s=_IDLE_DEADLINE_S, fix=fix)

    def _wait_for_vfs(self, wanted: int) -> None:
        address = self.session.ref.address
        what = f"{wanted} VFs to appear below {address}"
        sysfs = self.host.sysfs
        wait_until(lambda: pci.count_virtual_functions(sysfs, address) == wanted, what, deadline_s=_VFS_DEADLINE_S)

    def _load_drivers(self, actions: list[Action]) -> None:
        wanted = {
            change.after for action in actions for change in action.changes if change.cell.name is CellName.DRIVER
        }
        if pci.VFIO_DRIVER in wanted and not self.host.sysfs.exists(f"{pci.DRIVERS}/{pci.VFIO_DRIVER}"):
            self.host.load_module(pci.VFIO_DRIVER)

    def _bind(self, action: Action) -> None:
        bound = [change for change in action.changes if change.cell.name is CellName.DRIVER]
        operations = [operation for operation in action.operations if isinstance(operation, (SysfsWrite, VfWrite))]
        for number, operation in enumerate(operations):
            write = self._placed(operation)
            self._write(write)
            if bound and number == 1:
                self._check_bound(pci.Bdf.parse(write.value), str(bound[0].after))

    def _check_bound(self, function: pci.Bdf, driver: str) -> None:
        """Believe the driver link only: drivers_probe reports success whether anything was bound or not."""
        if pci.driver(self.host.sysfs, function) == driver:
            return
        if driver == pci.VFIO_DRIVER and pci.iommu_group(self.host.sysfs, function) is None:
            cause = "it is in no IOMMU group: the IOMMU is off or absent, and a VM's DMA could reach all memory"
            fix = "switch the IOMMU on in the firmware and on the kernel command line; nvmelm host check tells which"
            raise NotSupportedError(f"{function} cannot be bound to {driver}", cause=cause, fix=fix, reason="no-iommu")
        self._write(SysfsWrite(driver_bind_path(driver), str(function)))  # this one reports the probe's errno
        if pci.driver(self.host.sysfs, function) != driver:
            message = f"{function} was not bound to {driver}"
            raise HostError(message, path=function.path, cause="the kernel gave no reason", fix="dmesg | tail")


def _assigns(command: AdminCommand) -> bool:
    return (
        command.opcode == Opcode.VIRTUALIZATION_MANAGEMENT
        and command.cdw10 & 0xF == VirtualizationAction.SECONDARY_ASSIGN
    )


def _may_block(path: str) -> bool:
    """Return whether the kernel may wait in a write: for a process that holds a function, for a driver, for a reset."""
    return path.rpartition("/")[2] in _BLOCKING


def _bounded(write: Callable[[], None], what: str) -> None:
    """Do a write the kernel may block, and stop waiting for it at a deadline."""
    failures: list[BaseException] = []
    turn = threading.Lock()  # taken by whoever comes first: the write, or the end of waiting for it

    def attempt() -> None:
        try:
            if turn.acquire(blocking=False):  # otherwise nobody waits any more, and others may have the PF
                write()
        except BaseException as error:  # it is raised where the caller is
            failures.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    begin(thread)
    thread.join(_IDLE_DEADLINE_S)
    if turn.acquire(blocking=False) or thread.is_alive():
        cause = "the kernel has not ended it: a process may hold a function open, or a driver or device hangs"
        raise TimedOutError(
            f"waited {_IDLE_DEADLINE_S:g} s in vain to {what}", cause=cause, fix="stop the VM that has it; dmesg"
        )
    if failures:
        raise failures[0]
