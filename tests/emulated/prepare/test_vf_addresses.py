"""Where the VFs are is the device's business: their addresses may depend on how many there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.kernel.sysfs import EmulatedSysfs
from nvmelm.emulator.machine.generations import NVME_2_1, DeviceGeneration
from nvmelm.errors import NvmelmError
from nvmelm.inventory.opened import OpenPrimary, open_primary
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import ChangeReport, Role
from nvmelm.prepare import binding, sequence, sriov
from nvmelm.prepare.apply import ChangeRequest, apply
from nvmelm.prepare.cells import read_cells
from nvmelm.prepare.recover import recover
from tests.emulated.answers import agree
from tests.emulated.conftest import MakeHost

PF, OTHER = "0000:01:00.0", "0000:02:00.0"

#: From how many VFs on, First VF Offset, VF Stride: an address computed beforehand is wrong, each time otherwise.
ROUTES = {
    "zero reads as the PF itself": ((0, 0, 0), (1, 1, 1)),
    "a place nothing is at": ((0, 2, 1), (1, 1, 1)),
    "another PF's place": ((0, 256, 0), (1, 1, 1)),
    "every VF but the first at the PF": ((0, 1, 0), (1, 3, 2)),
    "it depends on how many": ((0, 1, 1), (1, 2, 1), (2, 4, 3)),
}


def device(route: str) -> DeviceGeneration:
    return NVME_2_1.with_(vf_routes=ROUTES[route])


@contextmanager
def opened(host: EmulatedHost) -> Iterator[OpenPrimary]:
    with open_primary(host, PF, change=True) as pf:
        yield pf


def prepare(host: EmulatedHost, vfs: int = 2, *, dry_run: bool = False) -> ChangeReport:
    with opened(host) as pf:
        return sequence.prepare(pf, Role.MIGRATABLE, vfs, confirm=agree, dry_run=dry_run)


def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Return where the list of writes grows from now on."""
    writes: list[tuple[str, str]] = []
    own = EmulatedSysfs.write

    def write(self: EmulatedSysfs, path: str, value: str) -> None:
        writes.append((path, value))
        own(self, path, value)

    monkeypatch.setattr(EmulatedSysfs, "write", write)
    return writes


def overrides(host: EmulatedHost) -> dict[str, str]:
    with host.machine.view() as state:
        return {bdf: function["override"] for bdf, function in state["functions"].items()}


@pytest.mark.parametrize("route", ROUTES)
def test_only_vfs_are_written_to_wherever_they_come_to_be(
    route: str, make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host(device(route), "nvme-2.1")
    writes = written(monkeypatch)
    report = prepare(host)
    assert report.picture is not None
    vfs = {secondary.address for secondary in report.picture.secondaries if secondary.present}
    assert [secondary.driver for secondary in report.picture.secondaries[:2]] == ["vfio-pci", "vfio-pci"]
    assert {path.split("/")[3] for path, _ in writes if path.endswith("driver_override")} == vfs
    assert {value for path, value in writes if path.endswith("drivers_probe")} == vfs
    assert {bdf: text for bdf, text in overrides(host).items() if text} == dict.fromkeys(vfs, "vfio-pci")
    assert not prepare(host).changed


@pytest.mark.parametrize("route", ROUTES)
def test_no_other_functions_address_is_shown_as_a_vfs(route: str, make_host: MakeHost) -> None:
    host = make_host(device(route), "nvme-2.1")
    with opened(host) as pf:
        addresses = [vf.address for vf in pf.picture().secondaries]
    assert not {PF, OTHER} & set(addresses)
    assert len(set(addresses) - {None}) == len([address for address in addresses if address])


@pytest.mark.parametrize("route", ROUTES)
def test_a_dry_run_names_the_kernels_links_and_says_that_addresses_are_not_known_yet(
    route: str, make_host: MakeHost
) -> None:
    report = prepare(make_host(device(route), "nvme-2.1"), dry_run=True)
    text = "\n".join(line for action in report.actions for line in (action.summary, *action.operations))
    assert f"echo vfio-pci > /sys/bus/pci/devices/{PF}/virtfn1/driver_override" in text
    assert text.count("0000:") == text.count(PF)
    assert any("known once they exist" in note for note in report.notes)


def test_another_number_of_vfs_is_planned_without_the_addresses_of_the_old_ones(make_host: MakeHost) -> None:
    host = make_host(device("it depends on how many"))
    prepare(host, 1)
    report = prepare(host, 2, dry_run=True)
    made = report.actions[[action.summary for action in report.actions].index("enable 2 VFs") :]
    assert not [line for action in made for line in (action.summary, *action.operations) if "01:00.2" in line]
    picture = prepare(host, 2).picture
    assert picture is not None
    assert [secondary.address for secondary in picture.secondaries[:2]] == ["0000:01:00.4", "0000:01:00.7"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("fault", ["sysfs/*drivers_probe=errno:EIO", "sysfs/*driver_override#2=errno:EIO"])
def test_put_back_is_said_of_every_path_that_was_written(route: str, fault: str, make_host: MakeHost) -> None:
    host = make_host(device(route), "nvme-2.1")
    host.arm(fault)
    with pytest.raises(NvmelmError) as met:
        prepare(host)
    assert met.value.rolled_back
    assert not any(overrides(host).values())
    assert set(overrides(host)) == {PF, OTHER}
    assert recover(host, confirm=agree).unfinished == ()


def test_an_override_that_was_only_to_be_there_for_a_moment_is_put_back_too(make_host: MakeHost) -> None:
    host = make_host()
    with opened(host) as pf:
        sriov.enable_sriov(pf, 1, confirm=agree)
        host.arm("sysfs/bus/pci/drivers_probe=errno:EIO")
        with pytest.raises(NvmelmError) as met:
            apply(
                pf, ChangeRequest("test", read_cells({"0x0042/driver": "nvme", "0x0042/override": ""})), confirm=agree
            )
    assert met.value.rolled_back
    assert not any(overrides(host).values())


def test_a_vf_that_is_another_function_by_now_is_not_written_to(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host()
    prepare(host)
    monkeypatch.setattr("nvmelm.inventory.pci.virtual_function", lambda *_: Bdf.parse(PF))
    with opened(host) as pf, pytest.raises(NvmelmError, match="has no VF 1"):
        binding.unbind(pf, [0x42], confirm=agree)
    assert overrides(host)[PF] == ""
