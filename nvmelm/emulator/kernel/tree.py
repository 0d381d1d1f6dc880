"""The emulated sysfs as a tree that is built where somebody looks.

A directory is a dictionary made anew on each access; links are stored as the kernel stores them, relative to where
they lie, so that following one crosses the tree as it does in ``/sys``.

::

    bus/pci/devices/<BDF>  ->  devices/pci0000:00/<root port>/<BDF>
    class/nvme/nvmeN       ->  devices/pci0000:00/<root port>/<BDF>/nvme/nvmeN
    block/nvmeNnM          ->  devices/pci0000:00/<root port>/<BDF>/nvme/nvmeN/nvmeNnM

Sources: Linux Documentation/ABI/testing/sysfs-bus-pci, sysfs-class-iommu, sysfs-block; shapes measured on 6.1.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from zlib import crc32

from nvmelm.emulator.kernel import disks, drivers, functions
from nvmelm.emulator.kernel.function_directory import block, function_directory
from nvmelm.emulator.machine.machine import Machine
from nvmelm.emulator.machine.nodes import Attribute, Directory, Node, SymbolicLink, constant, device_path, root_port
from nvmelm.emulator.machine.state import EmulatedFunction

_MAX_LINKS = 40  # as many as the kernel follows in one path

#: Parameters of the modules that managers read; Debian's kernels have no enable_unsafe_noiommu_mode.
_PARAMETERS = {
    "nvme_core": {"admin_timeout": "60", "io_timeout": "30", "multipath": "Y"},
    "vfio_iommu_type1": {"allow_unsafe_interrupts": "N", "dma_entry_limit": "65535"},
    "vfio_pci": {"enable_sriov": "N", "disable_idle_d3": "N", "nointxmask": "N"},
}


@dataclass(frozen=True, slots=True)
class Found:
    """A place in the tree: what is there, and its path with every link followed."""

    node: Node
    path: tuple[str, ...]


def look(machine: Machine, path: str, *, follow: bool = True) -> Found | None:
    """Return what a path leads to, or None; ``follow`` says whether a link at its very end is followed.

    Raises:
        OSError: ELOOP, the links go round in a circle.
    """
    pending = [part for part in reversed(path.split("/")) if part]
    path_parts: list[str] = []
    node: Node = Directory(lambda: _root(machine))
    trail: list[Node] = [node]
    links = 0
    while pending:
        part = pending.pop()
        if part == ".":
            continue
        if part == "..":
            if path_parts:
                path_parts.pop()
                trail.pop()
            continue
        if not isinstance(trail[-1], Directory):
            return None
        entry = trail[-1].get(part)
        if entry is None:
            return None
        if isinstance(entry, SymbolicLink) and (pending or follow):
            links += 1
            if entry.target.startswith("/"):  # from the root of this tree
                path_parts, trail = [], trail[:1]
            if links > _MAX_LINKS:
                raise drivers.refuse(errno.ELOOP)
            pending.extend(piece for piece in reversed(entry.target.split("/")) if piece)
            continue
        path_parts.append(part)
        trail.append(entry)
    return Found(trail[-1], tuple(path_parts))


def inode(machine: Machine, place: Found) -> int:
    """Return a number that a place keeps for as long as the device it belongs to exists."""
    for position, part in enumerate(place.path):
        function = machine.state["functions"].get(part)
        if function is not None:
            rest = "/".join(place.path[position + 1 :])
            return function["inode"] if not rest else crc32(f"{function['inode']}/{rest}".encode()) | 1 << 33
    return crc32("/".join(place.path).encode()) | 1 << 32


def _root(machine: Machine) -> dict[str, Node]:
    return {
        "block": Directory(lambda: _links_of(machine, "block", depth=1)),
        "bus": Directory(lambda: {"pci": Directory(lambda: _bus_pci(machine))}),
        "class": Directory(lambda: _class(machine)),
        "devices": Directory(lambda: _devices(machine)),
        "kernel": Directory(lambda: {"iommu_groups": Directory(lambda: _iommu_groups(machine))}),
        "module": Directory(lambda: _modules(machine)),
    }


def _devices(machine: Machine) -> dict[str, Node]:
    virtual: dict[str, Node] = {
        "block": Directory(lambda: disks.virtual(machine)),
        "nvme-subsystem": Directory(lambda: _subsystems(machine)),
    }
    return {"pci0000:00": Directory(lambda: _host_bridge(machine)), "virtual": Directory(lambda: virtual)}


def _subsystems(machine: Machine) -> dict[str, Node]:
    """Return the subsystems of the controllers that the kernel drives, with the disks that hang below them."""
    subsystems: dict[str, dict[str, Node]] = {}
    for bdf, function in machine.state["functions"].items():
        if function["nvme"] >= 0:
            entries = subsystems.setdefault(f"nvme-subsys{disks.subsystem(machine, function)}", {})
            entries[f"nvme{function['nvme']}"] = SymbolicLink(
                f"/{device_path(bdf, function['pf'])}/nvme/nvme{function['nvme']}"
            )
    for name, function in disks.heads(machine).items():
        row = machine.generation(machine.primary_of(function))
        spec = next(namespace for namespace in row.namespaces if name.endswith(f"n{namespace.nsid}"))
        entries = subsystems[f"nvme-subsys{disks.subsystem(machine, function)}"]
        entries[name] = Directory(partial(block, machine, function, row, name, spec))
    return {name: Directory(partial(dict, entries)) for name, entries in subsystems.items()}


def _bus_pci(machine: Machine) -> dict[str, Node]:
    state = machine.state

    def write_autoprobe(text: str) -> None:
        state["bus_autoprobe"] = text[:1] != "0"

    def write_rescan(text: str) -> None:
        if functions.parse_u16(text):
            functions.rescan(machine)

    return {
        "devices": Directory(lambda: _all_devices(machine)),
        "drivers": Directory(
            lambda: {name: Directory(partial(_driver, machine, name)) for name in drivers.drivers(machine)}
        ),
        "drivers_probe": Attribute(None, lambda text: drivers.drivers_probe(machine, text)),
        "drivers_autoprobe": Attribute(lambda: str(int(state["bus_autoprobe"])), write_autoprobe),
        "rescan": Attribute(None, write_rescan),
    }


def _all_devices(machine: Machine) -> dict[str, Node]:
    links: dict[str, Node] = {
        bdf: SymbolicLink(f"../../../{device_path(bdf, function['pf'])}")
        for bdf, function in machine.state["functions"].items()
    }
    for pf in machine.state["primaries"]:
        links[root_port(pf)] = SymbolicLink(f"../../../devices/pci0000:00/{root_port(pf)}")
    return links


def _driver(machine: Machine, name: str) -> dict[str, Node]:
    def writes(action: Callable[[Machine, str, str], None]) -> Attribute:
        return Attribute(None, lambda text: action(machine, name, text))

    entries: dict[str, Node] = {
        "bind": writes(drivers.bind),
        "unbind": writes(drivers.unbind),
        "new_id": writes(drivers.new_id),
        "remove_id": writes(drivers.remove_id),
    }
    if name != "pcieport":
        entries["module"] = SymbolicLink(f"../../../../module/{name.replace('-', '_')}")
    for bdf, function in machine.state["functions"].items():
        if function["driver"] == name:
            entries[bdf] = SymbolicLink(f"../../../../{device_path(bdf, function['pf'])}")
    return entries


def _host_bridge(machine: Machine) -> dict[str, Node]:
    ports: dict[str, Node] = {}
    for pf in machine.state["primaries"]:
        ports[root_port(pf)] = Directory(partial(_root_port, machine, pf))
    return ports


def _root_port(machine: Machine, pf: str) -> dict[str, Node]:
    entries: dict[str, Node] = {
        "vendor": constant("0x1b36"),
        "device": constant("0x000c"),
        "class": constant("0x060400"),
        "driver": SymbolicLink("../../../bus/pci/drivers/pcieport"),
        "subsystem": SymbolicLink("../../../bus/pci"),
    }
    for bdf, function in machine.state["functions"].items():
        if function["pf"] == pf:
            entries[bdf] = Directory(partial(function_directory, machine, function))
    return entries


def _class(machine: Machine) -> dict[str, Node]:
    entries: dict[str, Node] = {
        name: Directory(partial(_links_of, machine, name)) for name in ("nvme", "block", "vfio", "vfio-dev")
    }
    entries["nvme-subsystem"] = Directory(
        lambda: {name: SymbolicLink(f"/{disks.VIRTUAL}/nvme-subsystem/{name}") for name in _subsystems(machine)}
    )
    entries["iommu"] = Directory(lambda: _iommu_units(machine))
    return entries


def _iommu_units(machine: Machine) -> dict[str, Node]:
    options = machine.state["options"]
    if not options["iommu"]:
        return {}
    # Intel VT-d, Extended Capability Register: bit 3 is Interrupt Remapping support; the rest as QEMU's unit has it.
    register = 0xF00F4A if options["interrupt_remapping"] else 0xF00F42
    registers: dict[str, Node] = {"ecap": constant(f"{register:x}")}
    return {"dmar0": Directory(lambda: {"intel-iommu": Directory(lambda: registers)})}


def _links_of(machine: Machine, kind: str, depth: int = 2) -> dict[str, Node]:
    up = "../" * depth
    links: dict[str, Node] = {}
    for bdf, function in machine.state["functions"].items():
        base = f"{up}{device_path(bdf, function['pf'])}"
        if kind == "nvme" and function["nvme"] >= 0:
            links[f"nvme{function['nvme']}"] = SymbolicLink(f"{base}/nvme/nvme{function['nvme']}")
        elif kind == "block" and function["nvme"] >= 0:
            for nsid in disks.attached(machine, function):
                name = disks.entry_name(machine, function, nsid)
                links[name] = SymbolicLink(f"{base}/nvme/nvme{function['nvme']}/{name}")
        elif kind == "vfio-dev" and function["vfio"] >= 0 and machine.vfio_devices:
            links[f"vfio{function['vfio']}"] = SymbolicLink(f"{base}/vfio-dev/vfio{function['vfio']}")
        elif kind == "vfio" and function["vfio"] >= 0:
            links[vfio_group(function)] = SymbolicLink(f"{up}devices/virtual/vfio/{vfio_group(function)}")
    if kind == "block":
        links |= {name: SymbolicLink(f"/{disks.VIRTUAL}/block/{name}") for name in disks.virtual(machine)}
        for name, function in disks.heads(machine).items():
            place = f"nvme-subsystem/nvme-subsys{disks.subsystem(machine, function)}"
            links[name] = SymbolicLink(f"/{disks.VIRTUAL}/{place}/{name}")
    return links


def vfio_group(function: EmulatedFunction) -> str:
    """Return the name of a function's VFIO group below /dev/vfio (vfio_main.c, vfio_create_group)."""
    return f"{'noiommu-' if function.get('noiommu') else ''}{function['group']}"


def _iommu_groups(machine: Machine) -> dict[str, Node]:
    groups: dict[str, Node] = {}
    for function in machine.state["functions"].values():
        if function["group"] >= 0:
            groups[str(function["group"])] = Directory(partial(_iommu_group, machine, function["group"]))
    return groups


def _iommu_group(machine: Machine, group: int) -> dict[str, Node]:
    members: dict[str, Node] = {
        bdf: SymbolicLink(f"../../../../{device_path(bdf, function['pf'])}")
        for bdf, function in machine.state["functions"].items()
        if function["group"] == group
    }
    entries: dict[str, Node] = {"devices": Directory(lambda: members), "reserved_regions": constant("")}
    if any(machine.state["functions"][bdf].get("noiommu") for bdf in members):
        return entries | {"name": constant("vfio-noiommu"), "type": constant("unknown")}
    return entries | {"type": constant("DMA-FQ")}


def _modules(machine: Machine) -> dict[str, Node]:
    return {name: Directory(partial(_module, machine, name)) for name in machine.state["modules"]}


def _module(machine: Machine, name: str) -> dict[str, Node]:
    entries: dict[str, Node] = {"initstate": constant("live"), "refcnt": constant("0")}
    parameters = _PARAMETERS.get(name, {})
    if name == "vfio" and machine.state["options"]["noiommu"]:
        parameters = {**parameters, "enable_unsafe_noiommu_mode": "Y"}
    if parameters:
        entries["parameters"] = Directory(lambda: {key: constant(value) for key, value in parameters.items()})
    return entries
