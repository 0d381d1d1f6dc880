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
    for one in picture.secondaries:
        cells[cell(one.cntlid, "vq")] = one.vq
        cells[cell(one.cntlid, "vi")] = one.vi
        cells[cell(one.cntlid, "online")] = one.online
        cells[cell(one.cntlid, "driver")] = one.driver
        cells[cell(one.cntlid, "override")] = one.driver_override
        mark = one.mark if one.mark and one.mark.holds else None
        cells[cell(one.cntlid, "mark")] = str(mark.role) if mark else None
        cells[cell(one.cntlid, "valid_s")] = mark.valid_s if mark else None
        if one.namespaces is not None:
            cells[cell(one.cntlid, "namespaces")] = namespaces_value(one.namespaces)
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

    def _function(self, one: Secondary, name: str, value: str = VF) -> VfWrite:
        """Return the write of an attribute of the function's VF, which must be enabled by then."""
        return self._vf_write(one, f"{DEVICES}/{VF}/{name}", value)

    def _vf_write(self, one: Secondary, path: str, value: str) -> VfWrite:
        self._require_vf(one)
        return VfWrite(self.picture.primary.address, one.vf_number - 1, path, value, self._address(one))

    def _require_vf(self, one: Secondary) -> None:
        if not self._enabled(one):
            raise no_vf(self.picture, one)

    def _address(self, one: Secondary) -> str:
        """Return the VF's address as the kernel has it; empty while only the device could say where it will be."""
        return one.address or "" if one.present and not self.renewed else ""

    def _name(self, one: Secondary) -> str:
        if one.vf_number == 0:
            return f"{one.cntlid:#06x}"
        return f"{one.cntlid:#06x} ({self._address(one) or f'VF {one.vf_number}'})"

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
            gone |= _no_mark(one)
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
        self.renewed = True

    def _revoke(self, one: Secondary) -> None:
        if self._wants(one, "mark") and self.now[cell(one.cntlid, "mark")] is not None:
            summary = f"take the mark of {self._name(one)} back"
            self._emit(Phase.REVOKE, summary, (MarkChange(one.cntlid, None),), _no_mark(one), one)

    def _unbind(self, one: Secondary) -> None:
        bound = self.now[cell(one.cntlid, "driver")]
        if not bound or not (self._wants(one, "driver") or (self._goes_offline(one) and bound == "nvme")):
            return
        write = self._function(one, "driver/unbind")
        self._emit(
            Phase.UNBIND,
            f"unbind {self._name(one)} from {bound}",
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
        gone |= {cell(one.cntlid, "online"): False, **_no_mark(one)}
        unmark = (MarkChange(one.cntlid, None),) if self.now[cell(one.cntlid, "mark")] else ()
        self._emit(
            Phase.OFFLINE,
            f"take {self._name(one)} offline; its resources are given back",
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
            summary = f"assign {count} {name.upper()} resources to {self._name(one)}"
            self._emit(Phase.ASSIGN, summary, (command,), {key: count}, one)
            self.dirty.add(one.cntlid)

    def _attach(self, one: Secondary) -> None:
        """Attach what is missing before what is too much is detached."""
        key = cell(one.cntlid, "namespaces")
        if not self._wants(one, "namespaces"):
            return
        now, wanted = (_nsids(value) for value in (self.now[key], self.target[key]))
        missing, extra = sorted(wanted - now), sorted(now - wanted)
        commands = [namespace.attach(nsid, [one.cntlid]) for nsid in missing]
        commands += [namespace.detach(nsid, [one.cntlid]) for nsid in extra]
        lost = ", ".join(map(str, extra))
        online = bool(self.now[cell(one.cntlid, "online")] or self.now[cell(one.cntlid, "driver")])
        self._emit(
            Phase.NAMESPACES,
            f"attach namespaces {self.target[key] or 'none'} to {self._name(one)}, and no other",
            tuple(commands),
            {key: self.target[key]},
            one,
            loses=f"controller {one.cntlid:#06x} loses namespace {lost}" if extra and online else "",
            needs_idle=(one.cntlid,) if extra and online else (),
        )

    def _reset(self, one: Secondary) -> None:
        if one.cntlid in self.dirty and self._enabled(one):
            write = self._function(one, "reset", "1")
            self._emit(
                Phase.RESET, f"reset {self._name(one)}, so that its MSI-X table has its new size", (write,), {}, one
            )

    def _online(self, one: Secondary) -> None:
        key = cell(one.cntlid, "online")
        if self.target.get(key) and not self.now[key]:
            self._require_vf(one)
            command = virtualization.online(one.cntlid)
            self._emit(Phase.ONLINE, f"bring {self._name(one)} online", (command,), {key: True}, one)

    def _mark(self, one: Secondary) -> None:
        mark, span = cell(one.cntlid, "mark"), cell(one.cntlid, "valid_s")
        role = self.target.get(mark, self.now[mark])
        if not role or not (self._wants(one, "mark") or self._wants(one, "valid_s")):
            return
        valid_s = self.target.get(span)
        change = MarkChange(one.cntlid, Role(str(role)), valid_s if isinstance(valid_s, int) and valid_s else None)
        summary = f"mark {self._name(one)} {role}{span_text(change.valid_s)}"
        self._emit(Phase.MARK, summary, (change,), {mark: str(role), span: change.valid_s}, one)

    def _bind(self, one: Secondary) -> None:
        driver, override = cell(one.cntlid, "driver"), cell(one.cntlid, "override")
        wanted = self.target.get(driver)
        if wanted and wanted != self.now[driver]:
            final = str(self.target.get(override, wanted if wanted == VFIO_DRIVER else ""))
            writes = [self._override(one, str(wanted)), self._vf_write(one, "bus/pci/drivers_probe", VF)]
            if final != wanted:
                writes.append(self._override(one, final))
            changes: dict[str, Value] = {driver: wanted, override: final}
            # The override is another one in between: the way back from there has to know it even if it ends the same.
            kept = (Change(override, final, final),) if final == self.now[override] else ()
            self._emit(Phase.BIND, f"bind {self._name(one)} to {wanted}", tuple(writes), changes, one, kept=kept)
        elif self._wants(one, "override") and self._enabled(one):
            text = str(self.target[override] or "")
            write = self._override(one, text)
            summary = f"{'set' if text else 'clear'} the driver override of {self._name(one)}"
            self._emit(Phase.BIND, summary, (write,), {override: text}, one)

    def _override(self, one: Secondary, text: str) -> VfWrite:
        # An empty write reports success and changes nothing; a newline clears the override.
        return self._function(one, "driver_override", text or "\n")


def driver_bind_path(name: str) -> str:
    """Return the attribute that binds a function to one driver and, unlike drivers_probe, reports why it failed."""
    return f"{DRIVERS}/{name}/bind"


def _no_mark(one: Secondary) -> dict[str, Value]:
    return {cell(one.cntlid, "mark"): None, cell(one.cntlid, "valid_s"): None}


def _kept_zero(wanted: int) -> str:
    return "the kernel changes a count only by way of 0" if wanted else "SR-IOV is switched off"


def _nsids(value: Value) -> set[int]:
    numbers = (decimal(text, most=0xFFFF_FFFF) for text in str(value or "").split(","))
    return {nsid for nsid in numbers if nsid is not None}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
