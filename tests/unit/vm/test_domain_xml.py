"""A domain's XML: which host functions it has, which ones nvmelm is to prepare, and what is refused unread."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.errors import MalformedError
from nvmelm.inventory.pci import Bdf
from nvmelm.vm.libvirt import domain_xml
from nvmelm.vm.libvirt.domain_xml import DomainWanted, HostFunction

VF = Bdf.parse("0000:01:00.1")
PLACE = "<address domain='0x0000' bus='0x01' slot='0x00' function='0x1'/>"
GUEST = "<address type='pci' domain='0x0000' bus='0x05' slot='0x00' function='0x0'/>"


def domain(devices: str = "", metadata: str = "") -> bytes:
    head = f"<metadata>{metadata}</metadata>" if metadata else ""
    return f"<domain type='kvm'><name>vm1</name>{head}<devices>{devices}</devices></domain>".encode()


def vfs(*elements: str, namespace: str = "urn:nvmelm:domain:1") -> str:
    return f"<n:vfs xmlns:n='{namespace}'>{''.join(elements)}</n:vfs>"


@pytest.mark.parametrize(
    ("device", "function"),
    [
        (
            f"<hostdev mode='subsystem' type='pci' managed='no'><source>{PLACE}</source>{GUEST}</hostdev>",
            HostFunction(VF, "hostdev", managed=False, alias=None),
        ),
        (
            f"<hostdev mode='subsystem' type='pci'><source>{PLACE}</source><alias name='hostdev0'/></hostdev>",
            HostFunction(VF, "hostdev", managed=False, alias="hostdev0"),
        ),
        (
            f"<hostdev mode='subsystem' type='pci' managed='yes'><source>{PLACE}</source></hostdev>",
            HostFunction(VF, "hostdev", managed=True, alias=None),
        ),
        (
            f"<interface type='hostdev' managed='yes'><source>{PLACE}</source></interface>",
            HostFunction(VF, "interface", managed=True, alias=None),
        ),
        (
            f"<disk type='nvme' device='disk'><source type='pci' managed='yes' namespace='1'>{PLACE}</source></disk>",
            HostFunction(VF, "disk", managed=True, alias=None),
        ),
    ],
    ids=["hostdev", "hostdev by default", "managed hostdev", "interface", "nvme disk"],
)
def test_every_way_a_domain_has_a_host_function_is_seen(device: str, function: HostFunction) -> None:
    assert domain_xml.read(domain(device)).function(VF) == function


@pytest.mark.parametrize(
    "device",
    [
        f"<hostdev mode='subsystem' type='usb'><source>{PLACE}</source></hostdev>",
        f"<hostdev mode='subsystem' type='mdev'>{GUEST}</hostdev>",
        f"<disk type='file'>{GUEST}</disk>",
        f"<controller type='pci'>{PLACE}</controller>",
        "<hostdev type='pci'><source><address uuid='c2177883-f1bb-47f0-914d-32a22e3a8804'/></source></hostdev>x",
        "<hostdev type='pci'><source><address bus='0x100'/></source></hostdev>",
        "<hostdev type='pci'><source><address bus='one'/></source></hostdev>",
        "",
    ],
)
def test_other_devices_and_places_in_the_guest_are_no_host_functions(device: str) -> None:
    assert domain_xml.read(domain(device)).function(VF) is None


def test_the_vfs_that_nvmelm_is_to_prepare_stand_in_its_own_part_of_the_metadata() -> None:
    text = domain(metadata=vfs("<n:vf address='0000:01:00.1'/>", "<n:vf address='01:00.2' unmarked='yes'/>"))
    second = Bdf.parse("0000:01:00.2")
    assert domain_xml.mentions_us(text)
    assert domain_xml.read(text).wanted == (DomainWanted(VF, unmarked=False), DomainWanted(second, unmarked=True))


@pytest.mark.parametrize(
    "metadata",
    [
        vfs("<n:vf address='0000:01:00.1'/>", namespace="urn:another:1"),
        "<vfs><vf address='0000:01:00.1'/></vfs>",
        "<other xmlns='urn:another:1'>" + vfs("<n:vf address='0000:01:00.1'/>") + "</other>",
    ],
    ids=["another namespace", "no namespace", "inside somebody else's"],
)
def test_what_is_not_nvmelms_own_part_is_left_alone(metadata: str) -> None:
    assert domain_xml.read(domain(metadata=metadata)).wanted == ()


def test_most_domains_are_passed_over_unread() -> None:
    assert not domain_xml.mentions_us(domain())


BOMB = (
    b"<?xml version='1.0'?><!DOCTYPE domain [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]>"
    b"<domain><name>&b;</name></domain>"
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (BOMB, "document type"),
        (b"<!DOCTYPE domain SYSTEM 'file:///etc/passwd'><domain/>", "document type"),
        (b"<a>" * 65 + b"</a>" * 65, "deep"),
        (b" " * (domain_xml.MAX_BYTES + 1), "MiB"),
        (b"<domain>", "no element found"),
        (b"", "no element found"),
        (b"\xff\xfe<domain/>", ""),
        (domain(metadata=vfs("<n:vf address='../../etc'/>")), "'../../etc'"),
        (domain(metadata=vfs("<n:vf/>")), "''"),
    ],
    ids=["bomb", "outside", "deep", "long", "cut off", "empty", "not text", "no address", "address left out"],
)
def test_what_libvirt_would_not_write_is_refused(text: bytes, why: str) -> None:
    with pytest.raises(MalformedError) as caught:
        domain_xml.read(text)
    assert caught.value.reason == "domain-xml"
    assert why in caught.value.cause


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: f"<domain>{text}</domain>".encode()))
def test_any_bytes_are_read_or_refused(text: bytes) -> None:
    with suppress(MalformedError):
        assert domain_xml.read(text).functions == ()
