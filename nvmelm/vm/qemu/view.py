"""What a virtual machine has: its state, the host functions in it, and where one more can be put.

Asked through QMP's object tree (``qom-list``, ``qom-get``). ``query-pci`` would not do: it lists what is behind a port
only after the guest's firmware has numbered the buses, and a VM that waits with ``-S`` has run no firmware.

A PCI Express port has room for one device. QEMU 7.2 accepts a second one all the same, where no guest looks, and
taking either away takes both; so a port counts as free only when nothing is on its bus.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from nvmelm.errors import MalformedError, NvmelmError
from nvmelm.inventory.pci import Bdf
from nvmelm.vm.qemu.monitor import Monitor, printable
from nvmelm.vm.report import Vmm

#: Where QEMU keeps devices that were given a name, and those that were not.
NAMED = "/machine/peripheral"
UNNAMED = "/machine/peripheral-anon"

#: Ports of a root complex or a switch; each has one bus with one place.
_PORTS = ("pcie-root-port", "ioh3420", "xio3130-downstream")
_ROOT_PORT_BUS = "child<PCIE>"
_VFIO = ("vfio-pci", "vfio-pci-nohotplug")
_CHILD = re.compile(r"child<([A-Za-z0-9_.,+-]{1,80})>")
_ON_BUS = re.compile(r"child\[[0-9]+\]")
_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,128}")

#: More devices than a PCI domain has functions no VM has; a peer that lists more is not believed.
_MOST_DEVICES = 4096
MOST_BLOCKERS = 16

#: Migration capabilities that go with no VFIO device.
_BLOCKING = ("postcopy-ram", "background-snapshot")
_RETURN_PATH = "return-path"


@dataclass(frozen=True, slots=True)
class QomDevice:
    """A device of the VM: where it is kept, what it is, and its name if it was given one."""

    path: str
    kind: str
    id: str | None

    @property
    def handle(self) -> str:
        """Return what ``device_del`` takes: the name, or the path of a device without one."""
        return self.id or self.path


def status(monitor: Monitor) -> Vmm:
    """Ask for name, version and run state."""
    state = _object(monitor, "query-status")
    name = _object(monitor, "query-name").get("name")
    return Vmm(
        name=printable(name, 80) if isinstance(name, str) else None,
        version=monitor.version,
        status=printable(state.get("status"), 40),
        running=state.get("running") is True,
    )


def devices(monitor: Monitor) -> list[QomDevice]:
    """List the devices that were added by the operator, with and without a name."""
    listed = []
    for place in (NAMED, UNNAMED):
        for name, kind in _children(monitor, place):
            listed.append(QomDevice(f"{place}/{name}", kind, name if place == NAMED else None))
    if len(listed) > _MOST_DEVICES:
        raise _nonsense(f"it lists {len(listed)} devices")
    return listed


def find(monitor: Monitor, known: list[QomDevice], address: Bdf) -> QomDevice | None:
    """Return the device that is a function of this host, or None when the VM does not have it."""
    for device in known:
        if device.kind in _VFIO and address in _host_functions(monitor, device):
            return device
    return None


def bus_of(monitor: Monitor, path: str) -> str | None:
    """Return the name of the bus a device is on, or None when the VMM does not say."""
    bus = _property(monitor, path, "parent_bus")
    name = bus.rpartition("/")[2] if isinstance(bus, str) else ""
    return name if _NAME.fullmatch(name) else None


def free_port(monitor: Monitor, known: list[QomDevice]) -> str | None:
    """Return the bus of the first port a device can be put into while the VM runs, or None when there is none."""
    for port in known:
        if port.kind in _PORTS and port.id and _free(monitor, port):
            return port.id
    return None


def taken(monitor: Monitor, known: list[QomDevice], bus: str) -> bool:
    """Return whether the bus of a port has its one device already; False for a bus that is not a port's."""
    port = next((device for device in known if device.id == bus and device.kind in _PORTS), None)
    return port is not None and _occupied(monitor, f"{port.path}/{bus}")


def blockers(monitor: Monitor) -> tuple[str, ...]:
    """Return why the VM would refuse to be migrated, in its VMM's words, each once; empty when it would not."""
    reasons = _object(monitor, "query-migrate").get("blocked-reasons", [])
    if not isinstance(reasons, list):
        raise _nonsense("its blocked-reasons are no list")
    return tuple(dict.fromkeys(printable(reason) for reason in reasons[:MOST_BLOCKERS]))


def blocking_capabilities(monitor: Monitor) -> tuple[str, ...]:
    """Return the migration capabilities that are on and keep a VM with a VF from being migrated.

    Source: QEMU, docs/devel/migration/vfio.rst, and ``query-migrate-capabilities`` of its QMP reference.
    """
    on = _capabilities(monitor, state=True)
    return tuple(name for name in _BLOCKING if name in on)


def lacks_return_path(monitor: Monitor) -> bool:
    """Return whether the VMM could hear what becomes of its VM at the destination, and would not.

    Without it QEMU's source has migrated as soon as its last byte is in the socket, and waits paused (postmigrate) when
    the destination refuses.

    Source: QEMU, docs/devel/migration/main.rst, "Return path".
    """
    return _RETURN_PATH in _capabilities(monitor, state=False)


def _capabilities(monitor: Monitor, *, state: bool) -> list[object]:
    """Return the migration capabilities that are on, or off; what a VMM says may be no text, and have no hash."""
    rows = _optional(monitor, "query-migrate-capabilities")
    if not isinstance(rows, list):  # a VMM without the command has no such capability
        return []
    return [row.get("capability") for row in rows if isinstance(row, dict) and row.get("state") is state]


def _optional(monitor: Monitor, command: str) -> object:
    """Return a command's answer, or None when the VMM does not know the command."""
    try:
        return monitor.execute(command)
    except NvmelmError as error:
        if error.reason == "no-such-qmp-command":
            return None
        raise


def _free(monitor: Monitor, port: QomDevice) -> bool:
    """Return whether a port is empty and takes devices while the VM runs; its bus bears the port's name."""
    bus = f"{port.path}/{port.id}"
    if (port.id, _ROOT_PORT_BUS) not in _rows(monitor, port.path) or _occupied(monitor, bus):
        return False
    return bool(_property(monitor, bus, "hotplug-handler"))


def _occupied(monitor: Monitor, bus: str) -> bool:
    return any(_ON_BUS.fullmatch(name) for name, _ in _rows(monitor, bus))


def _host_functions(monitor: Monitor, device: QomDevice) -> set[Bdf]:
    """Return the host function behind a vfio device; it is named by address or by its directory in sysfs."""
    functions = set()
    for name in ("host", "sysfsdev"):
        value = _property(monitor, device.path, name)
        last = value.rstrip("/").rpartition("/")[2] if isinstance(value, str) else ""
        if Bdf.looks_like(last):
            functions.add(Bdf.parse(last))
    return functions


def memory_bytes(monitor: Monitor) -> int | None:
    """Return how much memory the guest has, None when the VMM does not say (QEMU 2.11 and later do)."""
    try:
        answer = _object(monitor, "query-memory-size-summary")
    except NvmelmError as error:
        if error.reason in ("qmp-lost", "qmp-silent", "qmp-garbage"):
            raise
        return None
    parts = [answer.get(name, 0) for name in ("base-memory", "plugged-memory")]
    return sum(parts) if all(type(part) is int and part >= 0 for part in parts) else None


def _children(monitor: Monitor, path: str) -> list[tuple[str, str]]:
    """Return name and type of the objects below a path; names that no VMM gives are left out."""
    matches = ((name, _CHILD.fullmatch(kind)) for name, kind in _rows(monitor, path))
    return [(name, match[1]) for name, match in matches if match and _NAME.fullmatch(name)]


def _rows(monitor: Monitor, path: str) -> list[tuple[str, str]]:
    answer = monitor.execute("qom-list", {"path": path})
    if not isinstance(answer, list) or not all(isinstance(row, dict) for row in answer):
        raise _nonsense("its object tree is no list of objects")
    return [(str(row.get("name")), str(row.get("type"))) for row in answer]


def _property(monitor: Monitor, path: str, name: str) -> Any:
    """Return a property, or None when the object has none of this name or has just gone."""
    try:
        return monitor.execute("qom-get", {"path": path, "property": name})
    except NvmelmError as error:
        if error.reason in ("qmp-error", "no-such-device"):
            return None
        raise


def _object(monitor: Monitor, command: str) -> dict[str, Any]:
    answer = monitor.execute(command)
    if not isinstance(answer, dict):
        raise _nonsense(f"its answer to {command} is no object")
    return answer


def _nonsense(why: str) -> MalformedError:
    fix = "check that the socket is the VM's own QMP monitor"
    return MalformedError("the VMM answered nonsense", cause=why, fix=fix, reason="qmp-garbage")
