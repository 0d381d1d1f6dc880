"""The block devices of an emulated host: disks and their paths, partitions, and what stands on them.

Sources: Linux drivers/nvme/host/core.c and multipath.c: a path is ``nvme<subsystem>c<controller>n<head>`` and hidden,
its disk ``nvme<subsystem>n<head>`` lies below the subsystem, which has the number of the controller it was found by.
A claim of a partition is one of its whole disk, too (block/bdev.c, bd_prepare_to_claim).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nvmelm.emulator.machine.machine import Machine
from nvmelm.emulator.machine.nodes import Directory, Node, SymbolicLink, constant
from nvmelm.emulator.machine.state import EmulatedFunction, HostState

#: Where the kernel has devices that no hardware stands behind, below /sys.
VIRTUAL = "devices/virtual"


def attached(machine: Machine, function: EmulatedFunction) -> list[int]:
    """Return the ids of the namespaces that are attached to the controller behind a function."""
    primary, controller = machine.primary_of(function), machine.controller_of(function)
    return sorted(int(nsid) for nsid, ids in primary["attached"].items() if controller["cntlid"] in ids)


def multipath(machine: Machine) -> bool:
    """Return whether the nvme driver shows paths below controllers, and disks below their subsystem."""
    return machine.state["options"]["native_multipath"]


def subsystem(machine: Machine, function: EmulatedFunction) -> int:
    """Return the number of a driven function's NVM subsystem: that of its first controller."""
    driven = machine.state["functions"].values()
    return min(other["nvme"] for other in driven if other["pf"] == function["pf"] and other["nvme"] >= 0)


def disk_name(machine: Machine, function: EmulatedFunction, nsid: int) -> str:
    """Return the name of the disk that a namespace is."""
    number = subsystem(machine, function) if multipath(machine) else function["nvme"]
    return f"nvme{number}n{nsid}"


def entry_name(machine: Machine, function: EmulatedFunction, nsid: int) -> str:
    """Return what a controller's own directory calls a namespace: the disk, or the path to it."""
    if not multipath(machine):
        return disk_name(machine, function, nsid)
    return f"nvme{subsystem(machine, function)}c{function['nvme']}n{nsid}"


def names(machine: Machine, function: EmulatedFunction) -> list[str]:
    """Return the disks that a controller the kernel drives leads to."""
    return [disk_name(machine, function, nsid) for nsid in attached(machine, function)]


def heads(machine: Machine) -> dict[str, EmulatedFunction]:
    """Return the disks that hang below their subsystem, each with one function that leads to it."""
    driven = [function for function in machine.state["functions"].values() if function["nvme"] >= 0]
    return (
        {name: function for function in reversed(driven) for name in names(machine, function)}
        if multipath(machine)
        else {}
    )


def partitions(state: HostState, disk: str) -> list[str]:
    """Return the partitions of a disk that somebody has made: those that are mounted, open, or stood upon."""
    pattern = re.compile(re.escape(disk) + r"p\d+")
    return sorted(name for name in _mentioned(state) if pattern.fullmatch(name))


def _mentioned(state: HostState) -> set[str]:
    named = {mount["device"] for mount in state["mounts"]} | set(state["block_holders"])
    return named | {*state.get("claimed_blocks", ())} | {opener["device"] for opener in state.get("block_openers", ())}


def stands_on(machine: Machine, disk: str) -> dict[str, Node]:
    """Return the directories of a disk that tell who uses it: its partitions, and its holders."""
    entries: dict[str, Node] = {"holders": _holders(machine.state, disk)}
    for number, name in enumerate(partitions(machine.state, disk), 1):
        part = {"partition": constant(str(number)), "holders": _holders(machine.state, name)}
        entries[name] = Directory(lambda part=part: part)  # type: ignore[misc]  # bound now
    return entries


def _holders(state: HostState, device: str) -> Directory:
    holders = state["block_holders"].get(device, [])
    return Directory(lambda: {name: SymbolicLink(f"/{VIRTUAL}/block/{name}") for name in holders})


def virtual(machine: Machine) -> dict[str, Node]:
    """Return the device mapper and md devices of the host."""
    state = machine.state
    devices = sorted({name for holders in state["block_holders"].values() for name in holders})
    return {name: Directory(lambda name=name: stands_on(machine, name)) for name in devices}  # type: ignore[misc]


def claimed(state: HostState, device: str) -> bool:
    """Return whether an exclusive open of a device would end with EBUSY: it, or a partition of it, is claimed."""
    family = {device, *partitions(state, device)}
    used = {mount["device"] for mount in state["mounts"]} | {*state.get("claimed_blocks", ())}
    return bool(family & (used | {name for name, holders in state["block_holders"].items() if holders}))


def nodes(machine: Machine, function: EmulatedFunction) -> Iterator[str]:
    """Yield the nodes below /dev of a controller's disks and their partitions."""
    for disk in names(machine, function):
        yield from (disk, f"ng{disk.removeprefix('nvme')}", *partitions(machine.state, disk))
