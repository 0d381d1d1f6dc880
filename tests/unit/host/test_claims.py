"""What driverctl and libvirt bind, read from their files as they write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvmelm.errors import HostError
from nvmelm.host import Claim
from nvmelm.host.local.claims import claims

ADDRESS = "<address domain='0x0000' bus='0x3b' slot='0x02' function='0x1'/>"
SEEN_BY_THE_GUEST = "<address type='pci' domain='0x0000' bus='0x07' slot='0x00' function='0x0'/>"


def domain(root: Path, devices: str, name: str = "web", file: str = "web.xml") -> None:
    place = root / "etc/libvirt/qemu"
    place.mkdir(parents=True, exist_ok=True)
    (place / file).write_text(f"<domain type='kvm'><name>{name}</name><devices>{devices}</devices></domain>")


def override(root: Path, name: str, text: str = "vfio-pci\n") -> None:
    place = root / "etc/driverctl.d"
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(text)


def test_a_host_without_other_managers_has_no_claims(tmp_path: Path) -> None:
    assert claims(tmp_path) == []


def test_an_override_of_driverctl_is_a_file_of_bus_and_address(tmp_path: Path) -> None:
    override(tmp_path, "pci-0000:3b:02.1")
    override(tmp_path, "vmbus-0000:3b:02.2")
    override(tmp_path, "pci-0000:3b:02.3", "")
    override(tmp_path, "README")
    assert claims(tmp_path) == [Claim("0000:3b:02.1", "driverctl", "")]


@pytest.mark.parametrize(
    "device",
    [
        f"<hostdev mode='subsystem' type='pci' managed='yes'><source>{ADDRESS}</source>{SEEN_BY_THE_GUEST}</hostdev>",
        f"<interface type='hostdev' managed='yes'><source>{ADDRESS}</source></interface>",
        f"<disk type='nvme' device='disk'><source type='pci' managed='yes' namespace='1'>{ADDRESS}</source></disk>",
    ],
)
def test_what_libvirt_manages_itself_is_its_own(tmp_path: Path, device: str) -> None:
    domain(tmp_path, device)
    assert claims(tmp_path) == [Claim("0000:3b:02.1", "libvirt", "web")]


@pytest.mark.parametrize("managed", ["", " managed='no'"])
def test_what_libvirt_does_not_manage_is_not(tmp_path: Path, managed: str) -> None:
    domain(tmp_path, f"<hostdev mode='subsystem' type='pci'{managed}><source>{ADDRESS}</source></hostdev>")
    assert claims(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "<domain managed='yes'",
        "<?xml version='1.0' encoding='no-such'?><domain managed='yes'/>",
        "<domain><hostdev managed='yes'><source><address bus='one'/></source></hostdev></domain>",
        "<!DOCTYPE d [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;&a;'>]><domain managed='yes'>&c;</domain>",
    ],
)
def test_a_file_that_is_no_domain_claims_nothing(tmp_path: Path, text: str) -> None:
    domain(tmp_path, "")
    (tmp_path / "etc/libvirt/qemu/web.xml").write_text(text)
    assert claims(tmp_path) == []


def test_a_place_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    place = tmp_path / "etc/driverctl.d/pci-0000:3b:02.1"
    place.mkdir(parents=True)
    with pytest.raises(HostError):
        claims(tmp_path)
