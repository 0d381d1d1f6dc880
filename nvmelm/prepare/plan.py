"""From what is to what should be: the one planner behind every verb that prepares, undoes or recovers a host.

A verb names the values it wants of cells (:mod:`nvmelm.prepare.cells`); :func:`plan` compares them with the picture
and returns the actions in the one order that is safe. Wanting what is already there plans nothing: that is idempotence.
Wanting what was there before is the undo. Each action carries its exact writes and commands (the dry run prints them)
and the value of every cell before and after (the journal keeps them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from nvmelm.commands import namespace, virtualization
from nvmelm.inventory.pci import DEVICES, DRIVERS, VFIO_DRIVER
from nvmelm.inventory.picture import Picture, Role, Secondary
from nvmelm.inventory.read import no_vf
from nvmelm.numbers import decimal
from nvmelm.prepare.actions import VF, Action, Change, MarkChange, Operation, Phase, SysfsWrite, VfWrite, span_text
from nvmelm.prepare.cells import AUTOPROBE, VFS, Cell, CellName, Cells, Value, cells_of
from nvmelm.wire.opcodes import ResourceType


def differences(picture: Picture, wanted: Mapping[Cell, Value]) -> list[Change]:
    """Return the cells whose value is not the wanted one; an unknown cell reads as None."""
    now = cells_of(picture)
    return [Change(name, now.get(name), value) for name, value in wanted.items() if now.get(name) != value]


def plan(picture: Picture, wanted: Mapping[Cell, Value]) -> list[Action]:
    """Return the actions that take a host from a picture to the wanted cells, in order.

    Raises:
        NotReadyError: a cell is wanted of a controlled function or VF that is not, and will not be, there.
    """
    return _Planner(picture, wanted).run()


class _Planner:
    def __init__(self, picture: Picture, wanted: Mapping[Cell, Value]) -> None:
        self.picture = picture
        self.now = cells_of(picture)
        self.wanted = self._completed(wanted)
        self.actions: list[Action] = []
        self.dirty: set[int] = set()  # functions whose resources change, to be reset before they go online
        self.pf = f"{DEVICES}/{picture.primary.address}"
        self.renewed = False  # the VFs are other ones by now than the picture shows

    def run(self) -> list[Action]:
        wanted = self.wanted.get(VFS, self.now[VFS])
        appear = int(wanted or 0) if wanted != self.now[VFS] else 0
        if appear:
            self._autoprobe(False, Phase.AUTOPROBE)
        if wanted != self.now[VFS] and self.now[VFS]:
            self._remove_vfs(appear)
        for take_down in (self._revoke, self._unbind, self._offline):
            self._each(take_down)
        for give in (self._assign, self._attach):
            self._each(give)
        if appear:
            self._enable_vfs(appear)
        self._each(self._reset)
        for bring_up in (self._online, self._mark, self._bind):
            self._each(bring_up)
        if AUTOPROBE in self.wanted:
            self._autoprobe(bool(self.wanted[AUTOPROBE]), Phase.AUTOPROBE_LAST)
        return self.actions

    def _completed(self, wanted: Mapping[Cell, Value]) -> Cells:
        """Want back what going offline for a change of one resource type takes along: the other type, and online."""
        completed = dict(wanted)
        for secondary in self.picture.secondaries:
            keys = [Cell(secondary.cntlid, name) for name in (CellName.VQ, CellName.VI, CellName.ONLINE)]
            if self.now[keys[2]] and any(key in wanted and wanted[key] != self.now[key] for key in keys[:2]):
                for key in keys:
                    completed.setdefault(key, self.now[key])
        return completed

    def _each(self, part: Callable[[Secondary], None]) -> None:
        for secondary in self.picture.secondaries:
            part(secondary)

    def _wants(self, secondary: Secondary, name: CellName) -> bool:
        key = Cell(secondary.cntlid, name)
        return key in self.wanted and self.wanted[key] != self.now[key]

    def _enabled(self, secondary: Secondary) -> bool:
        return 1 <= secondary.vf_number <= int(self.now[VFS] or 0)

    def _function(self, secondary: Secondary, name: str, value: str = VF) -> VfWrite:
        """Return the write of an attribute of the function's VF, which must be enabled by then."""
        return self._vf_write(secondary, f"{DEVICES}/{VF}/{name}", value)

    def _vf_write(self, secondary: Secondary, path: str, value: str) -> VfWrite:
        self._require_vf(secondary)
        return VfWrite(self.picture.primary.address, secondary.vf_number - 1, path, value, self._address(secondary))

    def _require_vf(self, secondary: Secondary) -> None:
        if not self._enabled(secondary):
            raise no_vf(self.picture, secondary)

    def _address(self, secondary: Secondary) -> str:
        """Return the VF's address as the kernel has it; empty while only the device could say where it will be."""
        return secondary.address or "" if secondary.present and not self.renewed else ""

    def _name(self, secondary: Secondary) -> str:
        if secondary.vf_number == 0:
            return f"{secondary.cntlid:#06x}"
        return f"{secondary.cntlid:#06x} ({self._address(secondary) or f'VF {secondary.vf_number}'})"

    def _emit(
        self,
        phase: Phase,
        summary: str,
        operations: tuple[Operation, ...],
        changes: Mapping[Cell, Value],
        secondary: Secondary | None = None,
        *,
        loses: str = "",
        needs_idle: tuple[int, ...] = (),
        kept: tuple[Change, ...] = (),
    ) -> None:
        made = tuple(Change(name, self.now[name], value) for name, value in changes.items() if self.now[name] != value)
        self.now.update(changes)
        cntlid = secondary.cntlid if secondary else None
        self.actions.append(Action(phase, summary, operations, (*made, *kept), cntlid, loses, needs_idle))

    def _autoprobe(self, wanted: bool, phase: Phase) -> None:
        if self.now[AUTOPROBE] in (None, wanted):
            return
        text = "on" if wanted else "off: new VFs are left to nvmelm, no driver takes them"
        write = SysfsWrite(f"{self.pf}/sriov_drivers_autoprobe", "1" if wanted else "0")
        self._emit(phase, f"switch driver autoprobe {text}", (write,), {AUTOPROBE: wanted})

    def _remove_vfs(self, later: int) -> None:
        """Remove all VFs; ``later`` is how many are enabled after that."""
        present = [secondary for secondary in self.picture.secondaries if self._enabled(secondary)]
        gone: Cells = {VFS: 0}
        for secondary in present:
            for name, value in (
                (CellName.VQ, 0),
                (CellName.VI, 0),
                (CellName.ONLINE, False),
                (CellName.DRIVER, None),
                (CellName.OVERRIDE, ""),
            ):
                gone[Cell(secondary.cntlid, name)] = value
            gone |= _no_mark(secondary)
        used = [secondary for secondary in present if secondary.online or secondary.driver]
        names = ", ".join(str(secondary.address) for secondary in used)
        unmarks = tuple(
            MarkChange(secondary.cntlid, None)
            for secondary in present
            if self.now[Cell(secondary.cntlid, CellName.MARK)]
        )
        count = _count(int(self.now[VFS] or 0), "VF")
        self._emit(
            Phase.VFS,
            f"remove {count}: {_kept_zero(later)}",
            (*unmarks, SysfsWrite(f"{self.pf}/sriov_numvfs", "0")),
            gone,
            loses=f"{names} will be removed with their resources and bindings" if used else "",
            needs_idle=tuple(secondary.cntlid for secondary in present),
        )

    def _enable_vfs(self, wanted: int) -> None:
        """Enable VFs; each has its resources by now, so it comes up with an MSI-X table of the right size."""
        write = SysfsWrite(f"{self.pf}/sriov_numvfs", str(wanted))
        kept = self._kept(
            Cell(secondary.cntlid, name)
            for secondary in self.picture.secondaries
            for name in (CellName.VQ, CellName.VI)
            if secondary.vf_number
        )
        self._emit(Phase.VFS, f"enable {_count(wanted, 'VF')}", (write,), {VFS: wanted}, kept=kept)
        self.dirty.clear()
        self.renewed = True

    def _kept(self, resources: Iterable[Cell]) -> tuple[Change, ...]:
        """Return what a way back takes along, VFs or a controller that goes offline again: it has to bring it back."""
        return tuple(Change(name, self.now[name], self.now[name]) for name in resources if self.now[name])

    def _revoke(self, secondary: Secondary) -> None:
        if self._wants(secondary, CellName.MARK) and self.now[Cell(secondary.cntlid, CellName.MARK)] is not None:
            summary = f"take the mark of {self._name(secondary)} back"
            self._emit(Phase.REVOKE, summary, (MarkChange(secondary.cntlid, None),), _no_mark(secondary), secondary)

    def _unbind(self, secondary: Secondary) -> None:
        bound = self.now[Cell(secondary.cntlid, CellName.DRIVER)]
        if not bound or not (
            self._wants(secondary, CellName.DRIVER) or (self._goes_offline(secondary) and bound == "nvme")
        ):
            return
        write = self._function(secondary, "driver/unbind")
        self._emit(
            Phase.UNBIND,
            f"unbind {self._name(secondary)} from {bound}",
            (write,),
            {Cell(secondary.cntlid, CellName.DRIVER): None},
            secondary,
            loses=f"{secondary.address} is taken from the {bound} driver" if bound == "nvme" else "",
            needs_idle=(secondary.cntlid,),
        )

    def _goes_offline(self, secondary: Secondary) -> bool:
        if not self.now[Cell(secondary.cntlid, CellName.ONLINE)]:
            return False
        return (
            self._wants(secondary, CellName.VQ)
            or self._wants(secondary, CellName.VI)
            or self._wants(secondary, CellName.ONLINE)
        )

    def _offline(self, secondary: Secondary) -> None:
        held = bool(self.now[Cell(secondary.cntlid, CellName.VQ)] or self.now[Cell(secondary.cntlid, CellName.VI)])
        empty = (
            self.wanted.get(Cell(secondary.cntlid, CellName.VQ)) == 0
            and self.wanted.get(Cell(secondary.cntlid, CellName.VI)) == 0
        )
        if not (self._goes_offline(secondary) or (held and empty)):
            return
        online = bool(self.now[Cell(secondary.cntlid, CellName.ONLINE)])
        gone: Cells = {Cell(secondary.cntlid, name): 0 for name in (CellName.VQ, CellName.VI)}
        gone |= {Cell(secondary.cntlid, CellName.ONLINE): False, **_no_mark(secondary)}
        unmark = (MarkChange(secondary.cntlid, None),) if self.now[Cell(secondary.cntlid, CellName.MARK)] else ()
        self._emit(
            Phase.OFFLINE,
            f"take {self._name(secondary)} offline; its resources are given back",
            (*unmark, virtualization.offline(secondary.cntlid)),
            gone,
            secondary,
            loses=f"controller {secondary.cntlid:#06x} stops working" if online else "",
            needs_idle=(secondary.cntlid,) if online else (),
        )

    def _assign(self, secondary: Secondary) -> None:
        for name, kind in ((CellName.VQ, ResourceType.VQ), (CellName.VI, ResourceType.VI)):
            key = Cell(secondary.cntlid, name)
            wanted = self.wanted.get(key, self.now[key])
            if wanted == self.now[key]:
                continue
            count = int(wanted or 0)
            command = virtualization.assign(secondary.cntlid, kind, count)
            summary = f"assign {count} {name.upper()} resources to {self._name(secondary)}"
            self._emit(Phase.ASSIGN, summary, (command,), {key: count}, secondary)
            self.dirty.add(secondary.cntlid)

    def _attach(self, secondary: Secondary) -> None:
        """Attach what is missing before what is too much is detached."""
        key = Cell(secondary.cntlid, CellName.NAMESPACES)
        if not self._wants(secondary, CellName.NAMESPACES):
            return
        now, wanted = (_nsids(value) for value in (self.now[key], self.wanted[key]))
        missing, extra = sorted(wanted - now), sorted(now - wanted)
        commands = [namespace.attach(nsid, [secondary.cntlid]) for nsid in missing]
        commands += [namespace.detach(nsid, [secondary.cntlid]) for nsid in extra]
        lost = ", ".join(map(str, extra))
        online = bool(
            self.now[Cell(secondary.cntlid, CellName.ONLINE)] or self.now[Cell(secondary.cntlid, CellName.DRIVER)]
        )
        self._emit(
            Phase.NAMESPACES,
            f"attach namespaces {self.wanted[key] or 'none'} to {self._name(secondary)}, and no other",
            tuple(commands),
            {key: self.wanted[key]},
            secondary,
            loses=f"controller {secondary.cntlid:#06x} loses namespace {lost}" if extra and online else "",
            needs_idle=(secondary.cntlid,) if extra and online else (),
        )

    def _reset(self, secondary: Secondary) -> None:
        if secondary.cntlid in self.dirty and self._enabled(secondary):
            write = self._function(secondary, "reset", "1")
            self._emit(
                Phase.RESET,
                f"reset {self._name(secondary)}, so that its MSI-X table has its new size",
                (write,),
                {},
                secondary,
            )

    def _online(self, secondary: Secondary) -> None:
        key = Cell(secondary.cntlid, CellName.ONLINE)
        if self.wanted.get(key) and not self.now[key]:
            self._require_vf(secondary)
            command = virtualization.online(secondary.cntlid)
            summary = f"bring {self._name(secondary)} online"
            kept = self._kept(Cell(secondary.cntlid, name) for name in (CellName.VQ, CellName.VI))
            self._emit(Phase.ONLINE, summary, (command,), {key: True}, secondary, kept=kept)

    def _mark(self, secondary: Secondary) -> None:
        mark, span = Cell(secondary.cntlid, CellName.MARK), Cell(secondary.cntlid, CellName.VALID_S)
        role = self.wanted.get(mark, self.now[mark])
        if not role or not (self._wants(secondary, CellName.MARK) or self._wants(secondary, CellName.VALID_S)):
            return
        valid_s = self.wanted.get(span)
        change = MarkChange(
            secondary.cntlid, Role(str(role)), valid_s if isinstance(valid_s, int) and valid_s else None
        )
        summary = f"mark {self._name(secondary)} {role}{span_text(change.valid_s)}"
        self._emit(Phase.MARK, summary, (change,), {mark: str(role), span: change.valid_s}, secondary)

    def _bind(self, secondary: Secondary) -> None:
        driver, override = Cell(secondary.cntlid, CellName.DRIVER), Cell(secondary.cntlid, CellName.OVERRIDE)
        wanted = self.wanted.get(driver)
        if wanted and wanted != self.now[driver]:
            final = str(self.wanted.get(override, wanted if wanted == VFIO_DRIVER else ""))
            writes = [self._override(secondary, str(wanted)), self._vf_write(secondary, "bus/pci/drivers_probe", VF)]
            if final != wanted:
                writes.append(self._override(secondary, final))
            changes: Cells = {driver: wanted, override: final}
            # The override is another one in between: the way back from there has to know it even if it ends the same.
            kept = (Change(override, final, final),) if final == self.now[override] else ()
            self._emit(
                Phase.BIND, f"bind {self._name(secondary)} to {wanted}", tuple(writes), changes, secondary, kept=kept
            )
        elif self._wants(secondary, CellName.OVERRIDE) and self._enabled(secondary):
            text = str(self.wanted[override] or "")
            write = self._override(secondary, text)
            summary = f"{'set' if text else 'clear'} the driver override of {self._name(secondary)}"
            self._emit(Phase.BIND, summary, (write,), {override: text}, secondary)

    def _override(self, secondary: Secondary, text: str) -> VfWrite:
        # An empty write reports success and changes nothing; a newline clears the override.
        return self._function(secondary, "driver_override", text or "\n")


def driver_bind_path(name: str) -> str:
    """Return the attribute that binds a function to one driver and, unlike drivers_probe, reports why it failed."""
    return f"{DRIVERS}/{name}/bind"


def _no_mark(secondary: Secondary) -> Cells:
    return {Cell(secondary.cntlid, CellName.MARK): None, Cell(secondary.cntlid, CellName.VALID_S): None}


def _kept_zero(wanted: int) -> str:
    return "the kernel changes a count only by way of 0" if wanted else "SR-IOV is switched off"


def _nsids(value: Value) -> set[int]:
    numbers = (decimal(text, most=0xFFFF_FFFF) for text in str(value or "").split(","))
    return {nsid for nsid in numbers if nsid is not None}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
