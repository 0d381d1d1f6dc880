"""From what is to what should be: the one planner behind every verb that prepares, undoes or recovers a host.

What a preparation touches is a set of *cells*, each with a plain value::

    vfs                number of enabled VFs              autoprobe          sriov_drivers_autoprobe
    0x0001/vq, /vi     flexible resources assigned        0x0001/online      secondary controller state
    0x0001/driver      name of the bound driver or None   0x0001/override    driver_override, empty when unset
    0x0001/mark        "migratable", "resumable" or None

A verb names the values it wants; :func:`plan` compares them with the picture and returns the actions in the one order
that is safe. Wanting what is already there plans nothing: that is idempotence. Wanting what was there before is the
undo. Each action carries its exact writes and commands (the dry run prints them) and the value of every cell before
and after (the journal keeps them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from nvmelm.commands import virtualization
from nvmelm.discovery import no_vf
from nvmelm.pci import DRIVERS, VFIO_DRIVER
from nvmelm.picture import ActionView, Picture, Role, Secondary
from nvmelm.transport import AdminCommand
from nvmelm.wire.opcodes import ResourceType

Value = int | bool | str | None
Cells = dict[str, Value]


class Phase(StrEnum):
    """The order of a plan; actions of one phase touch different functions and do not depend on each other."""

    REVOKE = "revoke mark"
    UNBIND = "unbind"
    OFFLINE = "offline"
    AUTOPROBE = "drivers autoprobe"
    VFS = "sr-iov"
    ASSIGN = "assign resources"
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


@dataclass(frozen=True, slots=True)
class MarkChange:
    """A mark given or, with None, taken back."""

    cntlid: int
    role: Role | None

    def __str__(self) -> str:
        return (
            f"mark controller {self.cntlid:#06x} {self.role}" if self.role else f"unmark controller {self.cntlid:#06x}"
        )


Operation = SysfsWrite | AdminCommand | MarkChange


@dataclass(frozen=True, slots=True)
class Change:
    """A cell's value before and after an action."""

    cell: str
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
        operations = tuple(operation_text(one) for one in self.operations) if exact else ()
        return ActionView(step=self.phase, summary=self.summary, operations=operations)


def operation_text(operation: Operation) -> str:
    """Return an operation as one exact line: the write as a shell would do it, the command with its words."""
    if isinstance(operation, AdminCommand):
        from nvmelm.commands.describe import describe  # knows every command; only a dry run needs it

        words = " ".join(f"{word:08x}" for word in operation.words)
        return f"admin {operation.opcode:#04x} cdw10-15 {words}  ({describe(operation)})"
    return str(operation)


def cell(cntlid: int, name: str) -> str:
    """Return the name of a controlled function's cell."""
    return f"{cntlid:#06x}/{name}"


def cells_of(picture: Picture) -> Cells:
    """Return every cell of a picture."""
    cells: Cells = {"vfs": picture.primary.vfs_enabled, "autoprobe": picture.primary.drivers_autoprobe}
    for one in picture.secondaries:
        cells[cell(one.cntlid, "vq")] = one.vq
        cells[cell(one.cntlid, "vi")] = one.vi
        cells[cell(one.cntlid, "online")] = one.online
        cells[cell(one.cntlid, "driver")] = one.driver
        cells[cell(one.cntlid, "override")] = one.driver_override
        cells[cell(one.cntlid, "mark")] = str(one.mark.role) if one.mark and one.mark.holds else None
    return cells


def differences(picture: Picture, target: Mapping[str, Value]) -> list[Change]:
    """Return the cells whose value is not the wanted one; an unknown cell reads as None."""
    now = cells_of(picture)
    return [Change(name, now.get(name), value) for name, value in target.items() if now.get(name) != value]


def plan(picture: Picture, target: Mapping[str, Value]) -> list[Action]:
    """Return the actions that take a host from a picture to the wanted cells, in order.

    Raises:
        UsageError: a cell is wanted of a controlled function or VF that is not, and will not be, there.
    """
    return _Planner(picture, target).run()


class _Planner:
    def __init__(self, picture: Picture, target: Mapping[str, Value]) -> None:
        self.picture = picture
        self.now = cells_of(picture)
        self.target = self._completed(target)
        self.actions: list[Action] = []
        self.dirty: set[int] = set()  # functions whose resources change, to be reset before they go online
        self.pf = f"bus/pci/devices/{picture.primary.address}"

    def run(self) -> list[Action]:
        wanted = self.target.get("vfs", self.now["vfs"])
        appear = int(wanted or 0) if wanted != self.now["vfs"] else 0
        if appear:
            self._autoprobe(False, Phase.AUTOPROBE)
        if wanted != self.now["vfs"] and self.now["vfs"]:
            self._remove_vfs(appear)
        for take_down in (self._revoke, self._unbind, self._offline):
            self._each(take_down)
        self._each(self._assign)
        if appear:
            self._enable_vfs(appear)
        self._each(self._reset)
        for bring_up in (self._online, self._mark, self._bind):
            self._each(bring_up)
        if "autoprobe" in self.target:
            self._autoprobe(bool(self.target["autoprobe"]), Phase.AUTOPROBE_LAST)
        return self.actions

    def _completed(self, target: Mapping[str, Value]) -> Cells:
        """Want back what going offline for a change of one resource type takes along: the other type, and online."""
        completed = dict(target)
        for one in self.picture.secondaries:
            keys = [cell(one.cntlid, name) for name in ("vq", "vi", "online")]
            if self.now[keys[2]] and any(key in target and target[key] != self.now[key] for key in keys[:2]):
                for key in keys:
                    completed.setdefault(key, self.now[key])
        return completed

    def _each(self, part: Callable[[Secondary], None]) -> None:
        for one in self.picture.secondaries:
            part(one)

    def _wants(self, one: Secondary, name: str) -> bool:
        key = cell(one.cntlid, name)
        return key in self.target and self.target[key] != self.now[key]

    def _enabled(self, one: Secondary) -> bool:
        return 1 <= one.vf_number <= int(self.now["vfs"] or 0)

    def _function(self, one: Secondary, name: str) -> str:
        """Return the sysfs path of an attribute of the function's VF, which must be enabled by then."""
        if not self._enabled(one) or one.address is None:
            raise no_vf(self.picture, one)
        return f"bus/pci/devices/{one.address}/{name}"

    def _emit(
        self,
        phase: Phase,
        summary: str,
        operations: tuple[Operation, ...],
        changes: Mapping[str, Value],
        one: Secondary | None = None,
        *,
        loses: str = "",
        needs_idle: tuple[int, ...] = (),
        kept: tuple[Change, ...] = (),
    ) -> None:
        made = tuple(Change(name, self.now[name], value) for name, value in changes.items() if self.now[name] != value)
        self.now.update(changes)
        cntlid = one.cntlid if one else None
        self.actions.append(Action(phase, summary, operations, (*made, *kept), cntlid, loses, needs_idle))

    def _autoprobe(self, wanted: bool, phase: Phase) -> None:
        if self.now["autoprobe"] in (None, wanted):
            return
        text = "on" if wanted else "off: new VFs are left to nvmelm, no driver takes them"
        write = SysfsWrite(f"{self.pf}/sriov_drivers_autoprobe", "1" if wanted else "0")
        self._emit(phase, f"switch driver autoprobe {text}", (write,), {"autoprobe": wanted})

    def _remove_vfs(self, later: int) -> None:
        """Remove all VFs; ``later`` is how many are enabled after that."""
        present = [one for one in self.picture.secondaries if self._enabled(one)]
        gone: dict[str, Value] = {"vfs": 0}
        for one in present:
            for name, value in (("vq", 0), ("vi", 0), ("online", False), ("driver", None), ("override", "")):
                gone[cell(one.cntlid, name)] = value
            gone[cell(one.cntlid, "mark")] = None
        used = [one for one in present if one.online or one.driver]
        names = ", ".join(str(one.address) for one in used)
        unmarks = tuple(MarkChange(one.cntlid, None) for one in present if self.now[cell(one.cntlid, "mark")])
        count = _count(int(self.now["vfs"] or 0), "VF")
        self._emit(
            Phase.VFS,
            f"remove {count}: {_kept_zero(later)}",
            (*unmarks, SysfsWrite(f"{self.pf}/sriov_numvfs", "0")),
            gone,
            loses=f"{names} will be removed with their resources and bindings" if used else "",
            needs_idle=tuple(one.cntlid for one in present),
        )

    def _enable_vfs(self, wanted: int) -> None:
        """Enable VFs; each has its resources by now, so it comes up with an MSI-X table of the right size."""
        write = SysfsWrite(f"{self.pf}/sriov_numvfs", str(wanted))
        # Taking them away again takes what they hold, also what they held before: the way back has to know that.
        held = [cell(one.cntlid, name) for one in self.picture.secondaries for name in ("vq", "vi") if one.vf_number]
        kept = tuple(Change(name, self.now[name], self.now[name]) for name in held if self.now[name])
        self._emit(Phase.VFS, f"enable {_count(wanted, 'VF')}", (write,), {"vfs": wanted}, kept=kept)
        self.dirty.clear()

    def _revoke(self, one: Secondary) -> None:
        if self._wants(one, "mark") and self.now[cell(one.cntlid, "mark")] is not None:
            summary = f"take the mark of {_name(one)} back"
            self._emit(Phase.REVOKE, summary, (MarkChange(one.cntlid, None),), {cell(one.cntlid, "mark"): None}, one)

    def _unbind(self, one: Secondary) -> None:
        bound = self.now[cell(one.cntlid, "driver")]
        if not bound or not (self._wants(one, "driver") or (self._goes_offline(one) and bound == "nvme")):
            return
        write = SysfsWrite(self._function(one, "driver/unbind"), str(one.address))
        self._emit(
            Phase.UNBIND,
            f"unbind {_name(one)} from {bound}",
            (write,),
            {cell(one.cntlid, "driver"): None},
            one,
            loses=f"{one.address} is taken from the {bound} driver" if bound == "nvme" else "",
            needs_idle=(one.cntlid,),
        )

    def _goes_offline(self, one: Secondary) -> bool:
        if not self.now[cell(one.cntlid, "online")]:
            return False
        return self._wants(one, "vq") or self._wants(one, "vi") or self._wants(one, "online")

    def _offline(self, one: Secondary) -> None:
        held = bool(self.now[cell(one.cntlid, "vq")] or self.now[cell(one.cntlid, "vi")])
        empty = self.target.get(cell(one.cntlid, "vq")) == 0 and self.target.get(cell(one.cntlid, "vi")) == 0
        if not (self._goes_offline(one) or (held and empty)):
            return
        online = bool(self.now[cell(one.cntlid, "online")])
        gone: dict[str, Value] = {cell(one.cntlid, name): 0 for name in ("vq", "vi")}
        gone |= {cell(one.cntlid, "online"): False, cell(one.cntlid, "mark"): None}
        unmark = (MarkChange(one.cntlid, None),) if self.now[cell(one.cntlid, "mark")] else ()
        self._emit(
            Phase.OFFLINE,
            f"take {_name(one)} offline; its resources are given back",
            (*unmark, virtualization.offline(one.cntlid)),
            gone,
            one,
            loses=f"controller {one.cntlid:#06x} stops working" if online else "",
            needs_idle=(one.cntlid,) if online else (),
        )

    def _assign(self, one: Secondary) -> None:
        for name, kind in (("vq", ResourceType.VQ), ("vi", ResourceType.VI)):
            key = cell(one.cntlid, name)
            wanted = self.target.get(key, self.now[key])
            if wanted == self.now[key]:
                continue
            count = int(wanted or 0)
            command = virtualization.assign(one.cntlid, kind, count)
            summary = f"assign {count} {name.upper()} resources to {_name(one)}"
            self._emit(Phase.ASSIGN, summary, (command,), {key: count}, one)
            self.dirty.add(one.cntlid)

    def _reset(self, one: Secondary) -> None:
        if one.cntlid in self.dirty and self._enabled(one) and one.address is not None:
            write = SysfsWrite(f"bus/pci/devices/{one.address}/reset", "1")
            self._emit(Phase.RESET, f"reset {_name(one)}, so that its MSI-X table has its new size", (write,), {}, one)

    def _online(self, one: Secondary) -> None:
        key = cell(one.cntlid, "online")
        if self.target.get(key) and not self.now[key]:
            self._function(one, "online")
            command = virtualization.online(one.cntlid)
            self._emit(Phase.ONLINE, f"bring {_name(one)} online", (command,), {key: True}, one)

    def _mark(self, one: Secondary) -> None:
        key = cell(one.cntlid, "mark")
        if self.target.get(key) and self.target[key] != self.now[key]:
            role = Role(str(self.target[key]))
            self._emit(Phase.MARK, f"mark {_name(one)} {role}", (MarkChange(one.cntlid, role),), {key: str(role)}, one)

    def _bind(self, one: Secondary) -> None:
        driver, override = cell(one.cntlid, "driver"), cell(one.cntlid, "override")
        wanted = self.target.get(driver)
        if wanted and wanted != self.now[driver]:
            final = str(self.target.get(override, wanted if wanted == VFIO_DRIVER else ""))
            writes = [SysfsWrite(self._function(one, "driver_override"), str(wanted))]
            writes.append(SysfsWrite("bus/pci/drivers_probe", str(one.address)))
            if final != wanted:
                writes.append(_override_write(self._function(one, "driver_override"), final))
            changes: dict[str, Value] = {driver: wanted, override: final}
            self._emit(Phase.BIND, f"bind {_name(one)} to {wanted}", tuple(writes), changes, one)
        elif self._wants(one, "override") and self._enabled(one):
            text = str(self.target[override] or "")
            write = _override_write(self._function(one, "driver_override"), text)
            summary = f"{'set' if text else 'clear'} the driver override of {_name(one)}"
            self._emit(Phase.BIND, summary, (write,), {override: text}, one)


def driver_bind_path(name: str) -> str:
    """Return the attribute that binds a function to one driver and, unlike drivers_probe, reports why it failed."""
    return f"{DRIVERS}/{name}/bind"


def _override_write(path: str, text: str) -> SysfsWrite:
    return SysfsWrite(path, text or "\n")  # an empty write reports success and changes nothing


def _kept_zero(wanted: int) -> str:
    return "the kernel changes a count only by way of 0" if wanted else "SR-IOV is switched off"


def _name(one: Secondary) -> str:
    return f"{one.cntlid:#06x} ({one.address})" if one.address else f"{one.cntlid:#06x}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
