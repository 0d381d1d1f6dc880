"""The words of a plan: writes, commands and changes of marks, and the action that holds them.

A VF's address is not one of them. PCI Express lets First VF Offset and VF Stride change with NumVFs and with the ARI
setting, and Linux reads them anew when the count is written, so an address computed earlier may be another function's,
or the PF's own. What is written about a VF is a :class:`VfWrite`: it follows the kernel's ``virtfnN`` link at the
moment of the write.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nvmelm.host import AdminCommand
from nvmelm.inventory.pci import DEVICES, Bdf
from nvmelm.inventory.picture import ActionView, Role
from nvmelm.prepare.cells import Cell, Value


class Phase(StrEnum):
    """The order of a plan; actions of one phase touch different functions and do not depend on each other."""

    REVOKE = "revoke mark"
    UNBIND = "unbind"
    OFFLINE = "offline"
    AUTOPROBE = "drivers autoprobe"
    VFS = "sr-iov"
    ASSIGN = "assign resources"
    NAMESPACES = "attach namespaces"
    RESET = "function-level reset"
    ONLINE = "online"
    MARK = "mark"
    BIND = "bind"
    AUTOPROBE_LAST = "drivers autoprobe, last"
    STATE = "controller state"


@dataclass(frozen=True, slots=True)
class SysfsWrite:
    """One write of an attribute; ``path`` is relative to /sys."""

    path: str
    value: str

    def __str__(self) -> str:
        return f"echo {self.value.strip() or chr(39) * 2} > /sys/{self.path}"


#: Stands for a VF's address in the path and the value of a :class:`VfWrite`.
VF = "{vf}"


@dataclass(frozen=True, slots=True)
class VfWrite:
    """One write about a VF, at the address its PF's ``virtfnN`` link shows when it is made.

    Attributes:
        pf: address of the PF.
        index: VF Number less one, the N of ``virtfnN``.
        path, value: as in :class:`SysfsWrite`, with ``{vf}`` for the address.
        seen: where the VF is now and will be at the write; empty when it is made anew before.
    """

    pf: str
    index: int
    path: str
    value: str
    seen: str = ""

    def at(self, address: Bdf) -> SysfsWrite:
        """Return the write for the address that the link shows."""
        return self._with(str(address))

    def __str__(self) -> str:
        if self.seen:
            return str(self._with(self.seen))
        link = f"{DEVICES}/{self.pf}/virtfn{self.index}"
        path = self.path.replace(f"{DEVICES}/{VF}", link)
        return str(SysfsWrite(path, self.value.replace(VF, f"$(basename $(readlink /sys/{link}))")))

    def _with(self, address: str) -> SysfsWrite:
        return SysfsWrite(self.path.replace(VF, address), self.value.replace(VF, address))


@dataclass(frozen=True, slots=True)
class MarkChange:
    """A mark given, for ``valid_s`` seconds from then on or without an end; or, with None, taken back."""

    cntlid: int
    role: Role | None
    valid_s: int | None = None

    def __str__(self) -> str:
        if self.role is None:
            return f"unmark controller {self.cntlid:#06x}"
        return f"mark controller {self.cntlid:#06x} {self.role}{span_text(self.valid_s)}"


def span_text(valid_s: int | None) -> str:
    """Return how long a mark holds, as the end of a clause; nothing for one without an end."""
    return f" for {valid_s} s" if valid_s else ""


Operation = SysfsWrite | VfWrite | AdminCommand | MarkChange


@dataclass(frozen=True, slots=True)
class Change:
    """A cell's value before and after an action."""

    cell: Cell
    before: Value
    after: Value


@dataclass(frozen=True, slots=True)
class Action:
    """One change to the host, with what it does to the cells.

    Attributes:
        cntlid: the controlled function it is about, or None for the PF as a whole.
        loses: what stops or is lost by it, as a sentence; empty for nothing. Whoever runs it has to agree.
        needs_idle: VFs (CNTLIDs) nobody may have in use meanwhile.
    """

    phase: Phase
    summary: str
    operations: tuple[Operation, ...]
    changes: tuple[Change, ...]
    cntlid: int | None = None
    loses: str = ""
    needs_idle: tuple[int, ...] = ()

    def view(self, *, exact: bool = True) -> ActionView:
        """Return the action as a reader sees it, with its exact writes and commands or without."""
        operations = tuple(operation_text(operation) for operation in self.operations) if exact else ()
        return ActionView(step=self.phase, summary=self.summary, operations=operations)


def operation_text(operation: Operation) -> str:
    """Return an operation as one exact line: the write as a shell would do it, the command with its words."""
    if isinstance(operation, AdminCommand):
        from nvmelm.commands.describe import describe  # knows every command; only a dry run needs it

        words = " ".join(f"{word:08x}" for word in operation.words)
        return f"admin {operation.opcode:#04x} cdw10-15 {words}  ({describe(operation)})"
    return str(operation)
