"""Who else binds this machine's PCI functions: driverctl's saved overrides, and devices that libvirt manages itself.

========================================= ====================================================================
``/etc/driverctl.d/pci-<address>``        one override a file; loaded whenever the function appears
``/etc/libvirt/qemu/*.xml``               domains; ``managed='yes'`` on a ``hostdev`` or ``interface``, or on the
                                          ``source`` of an NVMe disk, has libvirt unbind and rebind the function
========================================= ====================================================================

Two managers would undo each other's work, so nvmelm leaves such functions alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nvmelm.disk.bounded import names_in, read_file
from nvmelm.errors import MalformedError
from nvmelm.host import Claim
from nvmelm.numbers import number

_OVERRIDES = "etc/driverctl.d"
_DOMAINS = "etc/libvirt/qemu"
_ADDRESS = re.compile(r"pci-([0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])")
#: A domain without this has no managed device; most are passed over without being parsed.
_MANAGED = re.compile(rb"managed\s*=\s*['\"]yes['\"]")
#: A domain has some kilobytes; one of a thousand devices has a few hundred.
_MAX_BYTES = 4 << 20


def claims(root: Path) -> list[Claim]:
    """Return the functions that others bind.

    Args:
        root: the machine's root directory, below which its ``/etc`` is.

    Raises:
        HostError: a file that is there cannot be read.
    """
    return [*_overrides(root / _OVERRIDES), *_domains(root / _DOMAINS)]


def _overrides(directory: Path) -> Iterator[Claim]:
    for name in names_in(directory):
        match = _ADDRESS.fullmatch(name)
        if match and read_file(directory / name, _MAX_BYTES).strip():  # driverctl takes an empty file for none
            yield Claim(match[1], "driverctl", "")


def _domains(directory: Path) -> Iterator[Claim]:
    for name in names_in(directory):
        if not name.endswith(".xml"):
            continue
        try:
            text = read_file(directory / name, _MAX_BYTES)
        except MalformedError:  # too large for a domain
            continue
        if _MANAGED.search(text):
            yield from _managed(text, name.removesuffix(".xml"))


def _managed(text: bytes, name: str) -> Iterator[Claim]:
    from xml.etree import ElementTree  # here: few hosts have managed devices

    try:
        domain = ElementTree.fromstring(text)  # noqa: S314 - root's own file; expat bounds what entities expand to
    except (ElementTree.ParseError, LookupError, ValueError):  # libvirt cannot read it either, so it binds nothing
        return
    for element in domain.iter():
        if element.get("managed") != "yes":
            continue
        # A hostdev's own address is where the guest sees it; the host's stands in its source.
        place = element.find("address") if element.tag == "source" else element.find("source/address")
        address = _address(place.attrib) if place is not None else None
        if address is not None:
            yield Claim(address, "libvirt", domain.findtext("name") or name)


#: The parts of a PCI address, and the most each can be.
_PARTS = {"domain": 0xFFFF_FFFF, "bus": 0xFF, "slot": 0x1F, "function": 7}


def _address(parts: dict[str, str]) -> str | None:
    """Return an address as sysfs writes it, or None when it is none."""
    domain, bus, slot, function = (number(parts.get(key, "0"), most=most) for key, most in _PARTS.items())
    if domain is None or bus is None or slot is None or function is None:
        return None
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"
