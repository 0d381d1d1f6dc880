"""The sysfs directory of one PCI function, and of the controller the nvme driver made of it."""

from __future__ import annotations

import errno
from functools import partial

from nvmelm.emulator.device.resets import reset_primary
from nvmelm.emulator.kernel import disks, drivers, functions
from nvmelm.emulator.machine.generations import DeviceGeneration, NamespaceRow
from nvmelm.emulator.machine.machine import Machine
from nvmelm.emulator.machine.nodes import Attribute, Directory, Node, SymbolicLink, constant
from nvmelm.emulator.machine.state import EmulatedFunction, EmulatedPrimary

_CLASS_NVME = "0x010802"
_RESET_METHODS_PF = "flr bus"
_RESET_METHODS_VF = "flr"
_BAR_BYTES = 16 * 1024  # registers and doorbells in BAR 0 and 1, as QEMU's controllers have them; no other BAR
_FIRST_BAR = 0xFE00_0000
_MEMORY_64 = 0x140204  # IORESOURCE_MEM, _MEM_64, _SIZEALIGN and the type bits of the BAR
_RESOURCES = 13  # lines of ``resource``: BAR 0 to 5, expansion ROM, the six BARs of all VFs together
_FIRST_VF_RESOURCE = 7
_DRIVER_QUEUE_DEPTH = 1024  # io_queue_depth of the nvme module
_DRIVER_CAP_KIB = 4096  # what the nvme driver of 6.1 allows, NVME_MAX_KB_SZ


def function_directory(machine: Machine, function: EmulatedFunction) -> dict[str, Node]:
    """Return the entries of ``devices/.../<BDF>``."""
    primary = machine.primary_of(function)
    row = machine.generation(primary)
    entries = _identity(function, row)
    entries |= _driver_entries(machine, function)
    entries["resource"] = constant(_resource(function, row))
    entries["reset"] = Attribute(None, lambda text: functions.write_reset(machine, function, text))
    methods = _RESET_METHODS_VF if function["index"] >= 0 else _RESET_METHODS_PF
    entries["reset_method"] = Attribute(lambda: methods, lambda text: _write_reset_method(methods, text))
    if function["group"] >= 0:
        entries["iommu_group"] = SymbolicLink(f"../../../../kernel/iommu_groups/{function['group']}")
    if function["index"] >= 0:
        entries["physfn"] = SymbolicLink(f"../{function['pf']}")
        entries["sriov_vf_msix_count"] = Attribute(None, _not_supported)
    else:
        entries |= _sriov(machine, function, primary, row)
    return entries


def _identity(function: EmulatedFunction, row: DeviceGeneration) -> dict[str, Node]:
    device = row.vf_device_id if function["index"] >= 0 else row.device_id
    vendor = row.vendor_id
    # A VF's own vendor and device registers read FFFFh; the kernel knows better (PCIe Base, SR-IOV).
    head = (
        b"\xff\xff\xff\xff" if function["index"] >= 0 else vendor.to_bytes(2, "little") + device.to_bytes(2, "little")
    )
    config = (head + bytes.fromhex("0604100002020801")).ljust(64, b"\0")
    uevent = [f"PCI_CLASS={_CLASS_NVME[3:]}", f"PCI_ID={vendor:04X}:{device:04X}", f"PCI_SLOT_NAME={function['bdf']}"]
    if function["driver"]:
        uevent.insert(0, f"DRIVER={function['driver']}")
    return {
        "vendor": constant(f"0x{vendor:04x}"),
        "device": constant(f"0x{device:04x}"),
        "class": constant(_CLASS_NVME),
        "subsystem_vendor": constant(f"0x{row.subsystem_vendor_id:04x}"),
        "subsystem_device": constant(f"0x{row.subsystem_device_id:04x}"),
        "revision": constant("0x02"),
        "numa_node": constant("-1"),
        "config": constant(config.decode("utf-8", "backslashreplace")),
        "uevent": constant("\n".join(uevent)),
        "subsystem": SymbolicLink("../../../../bus/pci"),
    }


def _resource(function: EmulatedFunction, row: DeviceGeneration) -> str:
    """Return start, end and flags of each memory region; the VFs' BARs stand in their PF's lines too, all in one."""
    start = _FIRST_BAR + _BAR_BYTES * (function["index"] + 1)
    regions = {0: (start, _BAR_BYTES)}
    if function["index"] < 0:
        regions[_FIRST_VF_RESOURCE] = (start + _BAR_BYTES, row.max_vfs * _BAR_BYTES)
    lines = []
    for number in range(_RESOURCES):
        first, size = regions.get(number, (0, 0))
        last, flags = (first + size - 1, _MEMORY_64) if size else (0, 0)
        lines.append(f"0x{first:016x} 0x{last:016x} 0x{flags:016x}")
    return "\n".join(lines)


def _driver_entries(machine: Machine, function: EmulatedFunction) -> dict[str, Node]:
    entries: dict[str, Node] = {
        "driver_override": Attribute(
            lambda: function["override"] or "(null)", lambda text: drivers.set_override(function, text)
        )
    }
    if function["driver"]:
        entries["driver"] = SymbolicLink(f"../../../../bus/pci/drivers/{function['driver']}")
    if function["nvme"] >= 0:
        name = f"nvme{function['nvme']}"
        entries["nvme"] = Directory(lambda: {name: Directory(lambda: _controller(machine, function))})
    if function["vfio"] >= 0 and machine.vfio_devices:
        node: dict[str, Node] = {"device": SymbolicLink(f"../../../{function['bdf']}")}
        if machine.state["options"]["cdev"]:
            node["dev"] = constant(f"511:{function['vfio']}")
        entries["vfio-dev"] = Directory(lambda: {f"vfio{function['vfio']}": Directory(lambda: node)})
    return entries


def _sriov(
    machine: Machine, function: EmulatedFunction, primary: EmulatedPrimary, row: DeviceGeneration
) -> dict[str, Node]:
    def write_autoprobe(text: str) -> None:
        primary["autoprobe"] = functions.parse_bool(text)

    offset, stride = machine.vf_routing(primary)
    entries: dict[str, Node] = {
        "sriov_totalvfs": constant(str(row.max_vfs)),
        "sriov_numvfs": Attribute(
            lambda: str(primary["numvfs"]), lambda text: functions.set_numvfs(machine, function, text)
        ),
        "sriov_offset": constant(str(offset)),
        "sriov_stride": constant(str(stride)),
        "sriov_vf_device": constant(f"{row.vf_device_id:x}"),
        "sriov_vf_total_msix": constant("0"),
        "sriov_drivers_autoprobe": Attribute(lambda: str(int(primary["autoprobe"])), write_autoprobe),
    }
    for index in range(primary["numvfs"]):
        entries[f"virtfn{index}"] = SymbolicLink(f"../{machine.vf_address(primary, index)}")
    return entries


def _write_reset_method(methods: str, text: str) -> None:
    if not set(text.split()) <= {*methods.split(), "default"}:
        raise drivers.refuse(errno.EINVAL)


def _not_supported(_: str) -> None:
    raise drivers.refuse(errno.EOPNOTSUPP)


def _controller(machine: Machine, function: EmulatedFunction) -> dict[str, Node]:
    primary, controller = machine.primary_of(function), machine.controller_of(function)
    row = machine.generation(primary)

    def reset(_: str) -> None:
        if function["index"] < 0:
            reset_primary(machine, primary, "controller")

    entries: dict[str, Node] = {
        "address": constant(function["bdf"]),
        "cntlid": constant(str(controller["cntlid"])),
        "cntrltype": constant("io"),
        "dev": constant(f"240:{function['nvme']}"),
        "device": SymbolicLink(f"../../../{function['bdf']}"),
        "firmware_rev": constant(row.firmware),
        "model": constant(row.model),
        "numa_node": constant("-1"),
        "reset_controller": Attribute(None, reset),
        "serial": constant(primary["serial"]),
        "sqsize": constant(str(min(row.queue_entries_max, _DRIVER_QUEUE_DEPTH) - 1)),
        "state": constant("live"),
        "subsysnqn": constant(row.subnqn.format(serial=primary["serial"])),
        "subsystem": SymbolicLink("../../../../../../class/nvme"),
        "transport": constant("pcie"),
    }
    for spec in row.namespaces:
        if controller["cntlid"] in primary["attached"].get(str(spec.nsid), []):
            name = disks.entry_name(machine, function, spec.nsid)
            entries[name] = Directory(partial(block, machine, function, row, name, spec))
    return entries


def block(
    machine: Machine, function: EmulatedFunction, row: DeviceGeneration, name: str, spec: NamespaceRow
) -> dict[str, Node]:
    """Return the directory of a disk, or of the hidden path to one."""
    limits = transfer_limits(machine, row)
    return {
        "dev": constant(f"259:{32 * function['nvme'] + spec.nsid - 1}"),
        "device": SymbolicLink(f"../../nvme{function['nvme']}"),
        **disks.stands_on(machine, name),
        "nsid": constant(str(spec.nsid)),
        "ro": constant("0"),
        "size": constant(str(spec.size >> 9)),
        "queue": Directory(
            lambda: {
                "logical_block_size": constant(str(1 << spec.lba_shift)),
                "max_hw_sectors_kb": constant(str(limits[0])),
                "max_segments": constant(str(limits[1])),
            }
        ),
    }


def transfer_limits(machine: Machine, row: DeviceGeneration) -> tuple[int, int]:
    """Return max_hw_sectors_kb and max_segments as the driver computes them from MDTS."""
    options = machine.state["options"]
    kib = options["max_hw_sectors_kb"] or min(row.mdts_bytes // 1024 or _DRIVER_CAP_KIB, _DRIVER_CAP_KIB)
    return kib, options["max_segments"]
