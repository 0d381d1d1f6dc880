"""From what is to what should be: the one planner behind every verb that prepares, undoes or recovers a host.

What a preparation touches is a set of *cells*, each with a plain value::

    vfs                number of enabled VFs              autoprobe          sriov_drivers_autoprobe
    0x0001/vq, /vi     flexible resources assigned        0x0001/online      secondary controller state
    0x0001/driver      name of the bound driver or None   0x0001/override    driver_override, empty when unset
    0x0001/mark        "migratable", "resumable" or None  0x0001/namespaces  ids attached, "1,2"; "" for none
    0x0001/valid_s     for how long the mark was given, in seconds, or None for no end

Namespaces are cells only where the picture was read with them: they cost commands, and hardly a verb touches them.

A verb names the values it wants; :func:`plan` compares them with the picture and returns the actions in the one order
that is safe. Wanting what is already there plans nothing: that is idempotence. Wanting what was there before is the
undo. Each action carries its exact writes and commands (the dry run prints them) and the value of every cell before
and after (the journal keeps them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from nvmelm.commands import namespace, virtualization
from nvmelm.inventory.pci import DEVICES, DRIVERS, VFIO_DRIVER
from nvmelm.inventory.picture import Picture, Role, Secondary
from nvmelm.inventory.read import no_vf
from nvmelm.numbers import decimal, hexadecimal
from nvmelm.prepare.actions import (
    VF,
    Action,
    Cells,
    Change,
    MarkChange,
    Operation,
    Phase,
    SysfsWrite,
    Value,
    VfWrite,
    span_text,
)
from nvmelm.wire.opcodes import ResourceType


def cell(cntlid: int, name: str) -> str:
    """Return the name of a controlled function's cell."""
    return f"{cntlid:#06x}/{name}"


def cells_of(picture: Picture) -> Cells:
    """Return every cell of a picture."""
    cells: Cells = {"vfs": picture.primary.vfs_enabled, "autoprobe": picture.primary.drivers_autoprobe}
    for secondary in picture.secondaries:
        cells[cell(secondary.cntlid, "vq")] = secondary.vq
        cells[cell(secondary.cntlid, "vi")] = secondary.vi
        cells[cell(secondary.cntlid, "online")] = secondary.online
        cells[cell(secondary.cntlid, "driver")] = secondary.driver
        cells[cell(secondary.cntlid, "override")] = secondary.driver_override
        mark = secondary.mark if secondary.mark and secondary.mark.holds else None
        cells[cell(secondary.cntlid, "mark")] = str(mark.role) if mark else None
        cells[cell(secondary.cntlid, "valid_s")] = mark.valid_s if mark else None
        if secondary.namespaces is not None:
            cells[cell(secondary.cntlid, "namespaces")] = namespaces_value(secondary.namespaces)
    return cells


def namespaces_value(nsids: Iterable[int]) -> str:
    """Return the value of a cell ``namespaces``: the ids in order, parted by commas."""
    return ",".join(str(nsid) for nsid in sorted(set(nsids)))


def namespaces_wanted(target: Mapping[str, Value]) -> frozenset[int]:
    """Return the controllers of whose namespaces some cells speak: the picture has to be read with these."""
    names = (name.partition("/")[0] for name in target if name.endswith("/namespaces"))
    return frozenset(cntlid for name in names if (cntlid := hexadecimal(name, most=0xFFFF)) is not None)


def survives_boot(name: str) -> bool:
    """Return whether a cell is as it was after a reboot: attachments are the subsystem's and outlive every reset."""
    return name.endswith("/namespaces")


def differences(picture: Picture, target: Mapping[str, Value]) -> list[Change]:
    """Return the cells whose value is not the wanted one; an unknown cell reads as None."""
    now = cells_of(picture)
    return [Change(name, now.get(name), value) for name, value in target.items() if now.get(name) != value]


def plan(picture: Picture, target: Mapping[str, Value]) -> list[Action]:
    """Return the actions that take a host from a picture to the wanted cells, in order.

    Raises:
        NotReadyError: a cell is wanted of a controlled function or VF that is not, and will not be, there.
    """
    return _Planner(picture, target).run()


class _Planner:
    def __init__(self, picture: Picture, target: Mapping[str, Value]) -> None:
        self.picture = picture
        self.now = cells_of(picture)
        self.target = self._completed(target)
        self.actions: list[Action] = []
        self.dirty: set[int] = set()  # functions whose resources change, to be reset before they go online
        self.pf = f"{DEVICES}/{picture.primary.address}"
        self.renewed = False  # the VFs are other ones by now than the picture shows

    def run(self) -> list[Action]:
        wanted = self.target.get("vfs", self.now["vfs"])
        appear = int(wanted or 0) if wanted != self.now["vfs"] else 0
        if appear:
            self._autoprobe(False, Phase.AUTOPROBE)
        if wanted != self.now["vfs"] and self.now["vfs"]:
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
        if "autoprobe" in self.target:
            self._autoprobe(bool(self.target["autoprobe"]), Phase.AUTOPROBE_LAST)
        return self.actions

    def _completed(self, target: Mapping[str, Value]) -> Cells:
        """Want back what going offline for a change of one resource type takes along: the other type, and online."""
        completed = dict(target)
        for secondary in self.picture.secondaries:
            keys = [cell(secondary.cntlid, name) for name in ("vq", "vi", "online")]
            if self.now[keys[2]] and any(key in target and target[key] != self.now[key] for key in keys[:2]):
                for key in keys:
                    completed.setdefault(key, self.now[key])
        return completed

    def _each(self, part: Callable[[Secondary], None]) -> None:
        for secondary in self.picture.secondaries:
            part(secondary)

    def _wants(self, secondary: Secondary, name: str) -> bool:
        key = cell(secondary.cntlid, name)
        return key in self.target and self.target[key] != self.now[key]

    def _enabled(self, secondary: Secondary) -> bool:
        return 1 <= secondary.vf_number <= int(self.now["vfs"] or 0)

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
        changes: Mapping[str, Value],
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
        if self.now["autoprobe"] in (None, wanted):
            return
        text = "on" if wanted else "off: new VFs are left to nvmelm, no driver takes them"
        write = SysfsWrite(f"{self.pf}/sriov_drivers_autoprobe", "1" if wanted else "0")
        self._emit(phase, f"switch driver autoprobe {text}", (write,), {"autoprobe": wanted})

    def _remove_vfs(self, later: int) -> None:
        """Remove all VFs; ``later`` is how many are enabled after that."""
        present = [secondary for secondary in self.picture.secondaries if self._enabled(secondary)]
        gone: dict[str, Value] = {"vfs": 0}
        for secondary in present:
            for name, value in (("vq", 0), ("vi", 0), ("online", False), ("driver", None), ("override", "")):
                gone[cell(secondary.cntlid, name)] = value
            gone |= _no_mark(secondary)
        used = [secondary for secondary in present if secondary.online or secondary.driver]
        names = ", ".join(str(secondary.address) for secondary in used)
        unmarks = tuple(
            MarkChange(secondary.cntlid, None) for secondary in present if self.now[cell(secondary.cntlid, "mark")]
        )
        count = _count(int(self.now["vfs"] or 0), "VF")
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
        # Taking them away again takes what they hold, also what they held before: the way back has to know that.
        held = [
            cell(secondary.cntlid, name)
            for secondary in self.picture.secondaries
            for name in ("vq", "vi")
            if secondary.vf_number
        ]
        kept = tuple(Change(name, self.now[name], self.now[name]) for name in held if self.now[name])
        self._emit(Phase.VFS, f"enable {_count(wanted, 'VF')}", (write,), {"vfs": wanted}, kept=kept)
        self.dirty.clear()
        self.renewed = True

    def _revoke(self, secondary: Secondary) -> None:
        if self._wants(secondary, "mark") and self.now[cell(secondary.cntlid, "mark")] is not None:
            summary = f"take the mark of {self._name(secondary)} back"
            self._emit(Phase.REVOKE, summary, (MarkChange(secondary.cntlid, None),), _no_mark(secondary), secondary)

    def _unbind(self, secondary: Secondary) -> None:
        bound = self.now[cell(secondary.cntlid, "driver")]
        if not bound or not (self._wants(secondary, "driver") or (self._goes_offline(secondary) and bound == "nvme")):
            return
        write = self._function(secondary, "driver/unbind")
        self._emit(
            Phase.UNBIND,
            f"unbind {self._name(secondary)} from {bound}",
            (write,),
            {cell(secondary.cntlid, "driver"): None},
            secondary,
            loses=f"{secondary.address} is taken from the {bound} driver" if bound == "nvme" else "",
            needs_idle=(secondary.cntlid,),
        )

    def _goes_offline(self, secondary: Secondary) -> bool:
        if not self.now[cell(secondary.cntlid, "online")]:
            return False
        return self._wants(secondary, "vq") or self._wants(secondary, "vi") or self._wants(secondary, "online")

    def _offline(self, secondary: Secondary) -> None:
        held = bool(self.now[cell(secondary.cntlid, "vq")] or self.now[cell(secondary.cntlid, "vi")])
        empty = (
            self.target.get(cell(secondary.cntlid, "vq")) == 0 and self.target.get(cell(secondary.cntlid, "vi")) == 0
        )
        if not (self._goes_offline(secondary) or (held and empty)):
            return
        online = bool(self.now[cell(secondary.cntlid, "online")])
        gone: dict[str, Value] = {cell(secondary.cntlid, name): 0 for name in ("vq", "vi")}
        gone |= {cell(secondary.cntlid, "online"): False, **_no_mark(secondary)}
        unmark = (MarkChange(secondary.cntlid, None),) if self.now[cell(secondary.cntlid, "mark")] else ()
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
        for name, kind in (("vq", ResourceType.VQ), ("vi", ResourceType.VI)):
            key = cell(secondary.cntlid, name)
            wanted = self.target.get(key, self.now[key])
            if wanted == self.now[key]:
                continue
            count = int(wanted or 0)
            command = virtualization.assign(secondary.cntlid, kind, count)
            summary = f"assign {count} {name.upper()} resources to {self._name(secondary)}"
            self._emit(Phase.ASSIGN, summary, (command,), {key: count}, secondary)
            self.dirty.add(secondary.cntlid)

    def _attach(self, secondary: Secondary) -> None:
        """Attach what is missing before what is too much is detached."""
        key = cell(secondary.cntlid, "namespaces")
        if not self._wants(secondary, "namespaces"):
            return
        now, wanted = (_nsids(value) for value in (self.now[key], self.target[key]))
        missing, extra = sorted(wanted - now), sorted(now - wanted)
        commands = [namespace.attach(nsid, [secondary.cntlid]) for nsid in missing]
        commands += [namespace.detach(nsid, [secondary.cntlid]) for nsid in extra]
        lost = ", ".join(map(str, extra))
        online = bool(self.now[cell(secondary.cntlid, "online")] or self.now[cell(secondary.cntlid, "driver")])
        self._emit(
            Phase.NAMESPACES,
            f"attach namespaces {self.target[key] or 'none'} to {self._name(secondary)}, and no other",
            tuple(commands),
            {key: self.target[key]},
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
        key = cell(secondary.cntlid, "online")
        if self.target.get(key) and not self.now[key]:
            self._require_vf(secondary)
            command = virtualization.online(secondary.cntlid)
            self._emit(Phase.ONLINE, f"bring {self._name(secondary)} online", (command,), {key: True}, secondary)

    def _mark(self, secondary: Secondary) -> None:
        mark, span = cell(secondary.cntlid, "mark"), cell(secondary.cntlid, "valid_s")
        role = self.target.get(mark, self.now[mark])
        if not role or not (self._wants(secondary, "mark") or self._wants(secondary, "valid_s")):
            return
        valid_s = self.target.get(span)
        change = MarkChange(
            secondary.cntlid, Role(str(role)), valid_s if isinstance(valid_s, int) and valid_s else None
        )
        summary = f"mark {self._name(secondary)} {role}{span_text(change.valid_s)}"
        self._emit(Phase.MARK, summary, (change,), {mark: str(role), span: change.valid_s}, secondary)

    def _bind(self, secondary: Secondary) -> None:
        driver, override = cell(secondary.cntlid, "driver"), cell(secondary.cntlid, "override")
        wanted = self.target.get(driver)
        if wanted and wanted != self.now[driver]:
            final = str(self.target.get(override, wanted if wanted == VFIO_DRIVER else ""))
            writes = [self._override(secondary, str(wanted)), self._vf_write(secondary, "bus/pci/drivers_probe", VF)]
            if final != wanted:
                writes.append(self._override(secondary, final))
            changes: dict[str, Value] = {driver: wanted, override: final}
            # The override is another one in between: the way back from there has to know it even if it ends the same.
            kept = (Change(override, final, final),) if final == self.now[override] else ()
            self._emit(
                Phase.BIND, f"bind {self._name(secondary)} to {wanted}", tuple(writes), changes, secondary, kept=kept
            )
        elif self._wants(secondary, "override") and self._enabled(secondary):
            text = str(self.target[override] or "")
            write = self._override(secondary, text)
            summary = f"{'set' if text else 'clear'} the driver override of {self._name(secondary)}"
            self._emit(Phase.BIND, summary, (write,), {override: text}, secondary)

    def _override(self, secondary: Secondary, text: str) -> VfWrite:
        # An empty write reports success and changes nothing; a newline clears the override.
        return self._function(secondary, "driver_override", text or "\n")


def driver_bind_path(name: str) -> str:
    """Return the attribute that binds a function to one driver and, unlike drivers_probe, reports why it failed."""
    return f"{DRIVERS}/{name}/bind"


def _no_mark(secondary: Secondary) -> dict[str, Value]:
    return {cell(secondary.cntlid, "mark"): None, cell(secondary.cntlid, "valid_s"): None}


def _kept_zero(wanted: int) -> str:
    return "the kernel changes a count only by way of 0" if wanted else "SR-IOV is switched off"


def _nsids(value: Value) -> set[int]:
    numbers = (decimal(text, most=0xFFFF_FFFF) for text in str(value or "").split(","))
    return {nsid for nsid in numbers if nsid is not None}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
