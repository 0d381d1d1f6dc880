"""A host with a VF that is ready for a VM, and a scripted VM, for the tests of step 5."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from nvmelm.host import Opener
from nvmelm.inventory.find import PrimaryRef
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import Mark, Picture, Role
from nvmelm.vm import verbs as vm
from nvmelm.vm.report import VmReport
from tests.unit import pictures
from tests.unit.fakes import FakeHost
from tests.unit.qmp_server import Machine, Server, serving

VF = "0000:01:00.1"
NAME = "nvmelm-0000-01-00-1"
QEMU = Opener("vfio/8", 4711, "qemu-system-x86")


class Bench:
    """A host with one VF ready for a VM, and the VM."""

    def __init__(self, directory: Path) -> None:
        self.host = FakeHost(directory / "state")
        device = f"bus/pci/devices/{VF}"
        self.host.texts = {f"kernel/iommu_groups/8/devices/{VF}": ""}
        self.host.texts |= {f"{device}/vendor": "0x1b36", f"{device}/device": "0x0010"}
        self.values: dict[str, Any] = {
            "online": True,
            "present": True,
            "driver": "vfio-pci",
            "iommu_group": 8,
            "vfio_node": "/dev/vfio/8",
            "vfio_device": "vfio0",
            "mark": mark(),
        }
        self.machine = Machine()
        self.socket = directory / "qmp"
        self.server: Server | None = None
        self.asked: list[str] = []

    @property
    def session(self) -> OpenPrimary:
        one = OpenPrimary(
            cast("Any", self.host), PrimaryRef("nvme0", Bdf.parse("0000:01:00.0"), "LAB0001"), cast("Any", None)
        )

        class Here(OpenPrimary):
            def picture(here, *, users: bool = True) -> Picture:  # noqa: N805
                return self.picture()

        return Here(one.host, one.ref, one.queue)

    def picture(self) -> Picture:
        users = tuple(f"{one} has /dev/{one.node} open" for one in self.host.open_by)
        return pictures.picture(pictures.secondary(1, **{"used_by": users, **self.values}), pictures.secondary(2))

    @contextmanager
    def running(self, **answers: Any) -> Iterator[Server]:
        with serving(self.socket, answers={**self.machine.answers(), **answers}) as server:
            self.server = server
            yield server

    def attach(self, **options: Any) -> VmReport:
        return vm.attach(self.session, 1, **{"qmp": str(self.socket), "confirm": self.asked.append, **options})

    def detach(self, **options: Any) -> VmReport:
        return vm.detach(self.session, 1, **{"qmp": str(self.socket), "confirm": self.asked.append, **options})


def mark(role: Role = Role.MIGRATABLE, **values: Any) -> Mark:
    known: dict[str, Any] = {
        "role": role,
        "holds": True,
        "given_at": "2026-11-21T00:00:00+00:00",
        "given_by": "root",
        "expires_at": None,
        "facts_digest": "0" * 64,
    }
    return Mark(**{**known, **values})


def deleting(bench: Bench, *, event: str = "DEVICE_DELETED", **data: Any) -> Callable[[Any], Any]:
    """Answer device_del as a guest that lets go (or says otherwise), the events of the device's parts first."""

    def answer(arguments: dict[str, str]) -> dict[str, Any]:
        bench.machine.device_del(arguments)
        server = cast("Server", bench.server)
        path = f"/machine/peripheral/{NAME}"
        server.emit("DEVICE_DELETED", path=f"{path}/part")
        server.emit("DEVICE_DELETED", device="another", path="/machine/peripheral/another")
        if event == "DEVICE_DELETED":
            bench.machine.devices.pop(arguments["id"].rpartition("/")[2])
            bench.machine.blocked = None
            bench.host.open_by.clear()
        server.emit(event, **(data or {"device": NAME, "path": path}))
        return {}

    return answer


def attached(bench: Bench, **values: str) -> None:
    bench.machine.devices[NAME] = {"kind": "vfio-pci", "host": VF, "port": "rp1", **values}
    bench.machine.blocked = [f"{VF}: VFIO device doesn't support migration"]
    bench.host.open_by.append(QEMU)
