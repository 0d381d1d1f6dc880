"""What the emulated virtual machine's monitor says about itself, in the shape QEMU's says it.

Source: QEMU documentation, QEMU QMP Reference Manual, query-pci, query-migrate; messages measured on 11.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nvmelm.emulator.guest.qmp import Arguments, QmpError

NO_MIGRATION = "VFIO migration init failed: migration is not supported in kernel: Inappropriate ioctl for device"
MIGRATION_OFF = "Migration is disabled for VFIO device"

_BRIDGE = {"class": 0x0604, "desc": "PCI bridge"}
_CONTROLLER = {"class": 0x0108, "desc": "Non-Volatile memory controller"}
_ROOT_PORT = {"vendor": 0x1B36, "device": 0x000C}
_FIRST_SLOT = 2


def blocked_reasons(devices: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Answer query-migrate for (address, enable-migration) of each function the machine has."""
    reasons = [f"{bdf}: {MIGRATION_OFF if switch == 'off' else NO_MIGRATION}" for bdf, switch in devices]
    return {"blocked-reasons": reasons} if reasons else {}


def pci(ports: Sequence[str], devices: Mapping[str, tuple[str, dict[str, int]]]) -> list[dict[str, Any]]:
    """Answer query-pci.

    Args:
        ports: the names of the root ports.
        devices: what sits below a root port: its name and its PCI ids.
    """
    return [{"bus": 0, "devices": [_root_port(number, name, devices.get(name)) for number, name in enumerate(ports)]}]


def _root_port(number: int, name: str, device: tuple[str, dict[str, int]] | None) -> dict[str, Any]:
    bus = number + 1
    below = [] if device is None else [_entry(bus, 0, _CONTROLLER, *device)]
    entry = _entry(0, _FIRST_SLOT + number, _BRIDGE, name, _ROOT_PORT)
    entry["pci_bridge"] = {"bus": {"number": 0, "secondary": bus, "subordinate": bus}, "devices": below}
    return entry


def _entry(bus: int, slot: int, kind: dict[str, Any], name: str, ids: dict[str, int]) -> dict[str, Any]:
    return {
        "bus": bus,
        "slot": slot,
        "function": 0,
        "class_info": kind,
        "id": ids,
        "irq": 0,
        "irq_pin": 1,
        "qdev_id": name,
        "regions": [],
    }


Properties = dict[str, tuple[str, str]]
"""An object's properties by name: type and value."""

_NAMED, _UNNAMED = "/machine/peripheral", "/machine/peripheral-anon"


def place(name: str, *, named: bool) -> str:
    """Return where the object tree keeps a device."""
    return f"{_NAMED if named else _UNNAMED}/{name}"


def objects(ports: Sequence[str], devices: Sequence[tuple[str, str, str]]) -> dict[str, Properties]:
    """Return the part of the object tree that qom-list and qom-get show.

    Args:
        ports: the names of the root ports; each has a bus of its name.
        devices: path, host address and bus of each function.
    """
    tree: dict[str, Properties] = {
        "/machine": {
            "type": ("string", "pc-q35-machine"),
            "peripheral": ("child<container>", _NAMED),
            "peripheral-anon": ("child<container>", _UNNAMED),
        },
        _NAMED: {"type": ("string", "container")},
        _UNNAMED: {"type": ("string", "container")},
    }
    for port in ports:
        path = f"{_NAMED}/{port}"
        tree[_NAMED][port] = ("child<pcie-root-port>", path)
        tree[path] = {"type": ("string", "pcie-root-port"), port: ("child<PCIE>", f"{path}/{port}")}
        tree[f"{path}/{port}"] = {"type": ("string", "PCIE"), "hotplug-handler": ("link<hotplug-handler>", path)}
    for path, bdf, bus in devices:
        parent, _, name = path.rpartition("/")
        bus_path = f"{_NAMED}/{bus}/{bus}"
        tree[parent][name] = ("child<vfio-pci>", path)
        tree[bus_path]["child[0]"] = ("link<vfio-pci>", path)
        tree[path] = {
            "type": ("string", "vfio-pci"),
            "host": ("str", bdf),
            "sysfsdev": ("str", f"/sys/bus/pci/devices/{bdf}"),
            "parent_bus": ("link<bus>", bus_path),
        }
    return tree


def qom_list(tree: dict[str, Properties], arguments: Arguments) -> list[dict[str, str]]:
    """Answer qom-list."""
    return [{"name": name, "type": kind} for name, (kind, _) in _object(tree, arguments).items()]


def qom_get(tree: dict[str, Properties], arguments: Arguments) -> str:
    """Answer qom-get."""
    properties, name = _object(tree, arguments), str(arguments.get("property"))
    if name not in properties:
        raise QmpError(f"Property '{properties['type'][1]}.{name}' not found")
    return properties[name][1]


def _object(tree: dict[str, Properties], arguments: Arguments) -> Properties:
    path = str(arguments.get("path"))
    if path not in tree:
        raise QmpError(f"Device '{path}' not found", "DeviceNotFound")
    return tree[path]
