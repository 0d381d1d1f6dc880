"""PCI functions: SR-IOV on and off, function resets, and VFIO opens, with the kernel's order of checks.

Sources: Linux drivers/pci/iov.c (sriov_numvfs_store), drivers/pci/pci-sysfs.c, Documentation/ABI/testing/
sysfs-bus-pci; errnos measured on 6.1, 7.2 and 7.3.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from nvmelm.emulator.device.resets import offline, reset_function
from nvmelm.emulator.kernel.drivers import NVME, VFIO, Blocks, attach, refuse, release
from nvmelm.emulator.machine import uevents
from nvmelm.emulator.machine.machine import Machine, alive, process_start
from nvmelm.emulator.machine.state import EmulatedFunction, EmulatedPrimary, Holder

_NUMBER = re.compile(r"\s*\+?(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)\n?")
_BOOLEANS = {"1": True, "y": True, "on": True, "0": False, "n": False, "of": False}


def parse_u16(text: str) -> int:
    """Return what kstrtou16 reads: decimal, ``0x`` or octal; EINVAL for anything else, also for more than 65535."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise refuse(errno.EINVAL)
    digits = match[1]
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits.startswith("0") and digits != "0" else 10
    number = int(digits, base)
    if number > 0xFFFF:
        raise refuse(errno.EINVAL)
    return number


def parse_bool(text: str) -> bool:
    """Return what kstrtobool reads from the first character, or the first two after an ``o``."""
    lowered = text.lower()
    value = _BOOLEANS.get(lowered[:2] if lowered.startswith("o") else lowered[:1])
    if value is None:
        raise refuse(errno.EINVAL)
    return value


def set_numvfs(machine: Machine, function: EmulatedFunction, text: str) -> None:
    """Write to ``sriov_numvfs``."""
    primary = machine.primary_of(function)
    wanted = parse_u16(text)
    if wanted > machine.generation(primary).max_vfs:
        raise refuse(errno.ERANGE)
    if wanted == primary["numvfs"]:
        return
    if function["driver"] != NVME:  # no driver, or vfio-pci without enable_sriov
        raise refuse(errno.ENOENT)
    if wanted == 0:
        disable_vfs(machine, primary)
        return
    if primary["numvfs"]:
        raise refuse(errno.EBUSY)
    _enable_vfs(machine, primary, wanted)


def _enable_vfs(machine: Machine, primary: EmulatedPrimary, count: int) -> None:
    primary["numvfs"] = count
    added = [add_function(machine, machine.vf_address(primary, index), primary["bdf"], index) for index in range(count)]
    if machine.state["bus_autoprobe"]:
        for function in added:
            attach(machine, function)
    uevents.changed(machine, machine.function(primary["bdf"]))


def add_function(machine: Machine, bdf: str, pf: str, index: int) -> EmulatedFunction:
    """Make a PCI function appear; it gets an inode no function had before."""
    state = machine.state
    state["next_inode"] += 64  # room for the attributes below it
    group = _group(machine, pf, index) if state["options"]["iommu"] else -1
    function = state["functions"][bdf] = EmulatedFunction(
        bdf=bdf,
        pf=pf,
        index=index,
        inode=state["next_inode"],
        driver="",
        override="",
        nvme=-1,
        vfio=-1,
        group=group,
    )
    uevents.appeared(machine, function)
    return function


def _group(machine: Machine, pf: str, index: int) -> int:
    """Return the IOMMU group of a new function; without ACS functions below one port share theirs."""
    functions, sharing = machine.state["functions"], machine.state["options"]["groups"]
    if index >= 0 and sharing == "pf":
        return functions[pf]["group"]
    if index > 0 and sharing == "vfs":
        return next(other["group"] for other in functions.values() if other["pf"] == pf and other["index"] == 0)
    return machine.free_group()


def disable_vfs(machine: Machine, primary: EmulatedPrimary, *, forced: bool = False) -> None:
    """Clear VF Enable: the functions go away, and what they were told with them; waits for a VM that holds one."""
    addresses = [machine.vf_address(primary, index) for index in range(primary["numvfs"])]
    held = [bdf for bdf in addresses if machine.holder(bdf)]
    if held and not forced:
        raise Blocks(held)
    for bdf in addresses:
        function = machine.state["functions"].pop(bdf)
        uevents.vanished(machine, function)
        controller = machine.controller_of(function)
        offline(machine, primary, controller)
        controller["io"] = None
    machine.state["holders"] = [holder for holder in machine.state["holders"] if holder["bdf"] not in addresses]
    primary["numvfs"] = 0


def write_reset(machine: Machine, function: EmulatedFunction, text: str) -> None:
    """Write to ``reset``: only 1 is taken."""
    try:
        wanted = parse_u16(text)
    except OSError:
        wanted = 0
    if wanted != 1:
        raise refuse(errno.EINVAL)
    reset_function(machine, function)


def open_vfio(machine: Machine, bdf: str, *, pid: int, name: str, memory: str) -> None:
    """Open a function through VFIO, which resets it.

    Args:
        memory: the file its DMA goes to, relative to the host's directory.
    """
    function = machine.function(bdf)
    if function["driver"] != VFIO:
        raise refuse(errno.ENOENT)  # there is no /dev/vfio node for it
    reap(machine)
    if machine.holder(bdf) or any(holder["pid"] != pid for holder in _group_holders(machine, function)):
        raise refuse(errno.EBUSY)  # a group is opened by one process
    if not viable(machine, bdf):
        raise refuse(errno.EPERM)
    machine.state["holders"].append(
        {"bdf": bdf, "pid": pid, "start": process_start(pid), "name": name, "memory": memory, "release": False}
    )
    reset_function(machine, function)


def _group_holders(machine: Machine, function: EmulatedFunction) -> Iterator[Holder]:
    for member in machine.state["functions"].values():
        holder = machine.holder(member["bdf"]) if member["group"] == function["group"] else None
        if holder is not None:
            yield holder


def viable(machine: Machine, bdf: str) -> bool:
    """Return whether VFIO gives a function's group out: no driver of the host's owns one of it (iommu_group_claim)."""
    with machine.view() as state:
        group = state["functions"][bdf]["group"]
        return all(member["driver"] != NVME for member in state["functions"].values() if member["group"] == group)


def close_vfio(machine: Machine, bdf: str) -> None:
    """Close a function that was opened through VFIO, which resets it too."""
    machine.state["holders"] = [holder for holder in machine.state["holders"] if holder["bdf"] != bdf]
    function = machine.state["functions"].get(bdf)
    if function is not None:
        reset_function(machine, function)


def reap(machine: Machine) -> None:
    """Close what dead processes had open, as the kernel does when a process ends."""
    for holder in [holder for holder in machine.state["holders"] if not alive(holder)]:
        close_vfio(machine, holder["bdf"])
        machine.remove_memory(holder["memory"])


def vanish(machine: Machine, primary: EmulatedPrimary) -> None:
    """Take a device off the bus, as a surprise removal does: everything about it goes at once."""
    primary["gone"] = True
    disable_vfs(machine, primary, forced=True)
    function = machine.state["functions"].pop(primary["bdf"], None)
    if function is not None:
        uevents.vanished(machine, function)
        function["driver"], function["nvme"] = "", -1
        release(machine, function)


def rescan(machine: Machine) -> None:
    """Find devices that vanished, as writing 1 to ``bus/pci/rescan`` does when they are back in their slot."""
    for primary in machine.state["primaries"].values():
        if primary["bdf"] not in machine.state["functions"]:
            primary["gone"] = False
            attach(machine, add_function(machine, primary["bdf"], primary["bdf"], -1))


def node_error() -> OSError:
    """Return what opening a device node says that is not there."""
    return OSError(errno.ENOENT, os.strerror(errno.ENOENT))
