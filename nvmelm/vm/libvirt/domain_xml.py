"""What a libvirt domain's XML says of host functions: those the domain has, and those nvmelm is to prepare for it.

The second is nvmelm's own part of the domain's metadata, which libvirt keeps and does not look at::

    <metadata>
      <nvmelm:vfs xmlns:nvmelm="urn:nvmelm:domain:1">
        <nvmelm:vf address="0000:01:00.1"/>
        <nvmelm:vf address="0000:01:00.2" unmarked="yes"/>
      </nvmelm:vfs>
    </metadata>

The text is a peer's: it is bounded, a document type (and with it every entity) is refused, and no tree is built.

Source: libvirt, Domain XML format: General metadata, Host device assignment, Network interfaces, Hard drives.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nvmelm.errors import MalformedError
from nvmelm.inventory.pci import Bdf
from nvmelm.numbers import number

NAMESPACE = "urn:nvmelm:domain:1"
#: A domain has some kilobytes; one of a thousand devices has a few hundred.
MAX_BYTES = 4 << 20

_DEVICE = ("domain", "devices")
_VF = ("domain", "metadata", f"{NAMESPACE} vfs", f"{NAMESPACE} vf")
#: Elements that take a function of the host, and the ``type`` they then have.
_KINDS = {"hostdev": "pci", "interface": "hostdev", "disk": "nvme"}
_PARTS = {"domain": 0xFFFF_FFFF, "bus": 0xFF, "slot": 0x1F, "function": 7}
#: Elements inside each other; libvirt's own schema has fewer than twenty.
_DEEPEST = 64


@dataclass(frozen=True, slots=True)
class HostFunction:
    """A function of the host in a domain: in which element, whether libvirt binds it itself, and its alias if any."""

    address: Bdf
    kind: str
    managed: bool
    alias: str | None


@dataclass(frozen=True, slots=True)
class DomainWanted:
    """A VF that nvmelm is to prepare before the domain starts; an unmarked one cannot be migrated."""

    address: Bdf
    unmarked: bool


@dataclass(frozen=True, slots=True)
class DomainXml:
    """What a domain's XML says of host functions."""

    functions: tuple[HostFunction, ...]
    wanted: tuple[DomainWanted, ...]

    def function(self, address: Bdf) -> HostFunction | None:
        """Return the domain's device that is a function of the host, or None."""
        return next((function for function in self.functions if function.address == address), None)


def mentions_us(text: bytes) -> bool:
    """Return whether a domain's XML can have a part for nvmelm; most have not, and need not be parsed."""
    return NAMESPACE.encode() in text


def read(text: bytes) -> DomainXml:
    """Read a domain's XML.

    Raises:
        MalformedError: it is too long, no XML, has a document type, or names a VF that is no PCI address.
    """
    from xml.parsers import expat  # here: a hook without work for us ends before this

    if len(text) > MAX_BYTES:
        raise _nonsense(f"it has more than {MAX_BYTES >> 20} MiB")
    reader = _Reader()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = _refuse_document_type
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise _nonsense(str(error)) from error
    return DomainXml(tuple(reader.functions), tuple(dict.fromkeys(reader.wanted)))


class _Device:
    """An element of ``devices`` while it is read."""

    def __init__(self, kind: str, attributes: Mapping[str, str]) -> None:
        self.kind = kind
        self.fits = attributes.get("type") == _KINDS.get(kind)
        self.managed = attributes.get("managed") == "yes"
        self.address: Bdf | None = None
        self.alias: str | None = None


class _Reader:
    """Collects while the parser walks through the document."""

    def __init__(self) -> None:
        self.functions: list[HostFunction] = []
        self.wanted: list[DomainWanted] = []
        self._path: list[str] = []
        self._device: _Device | None = None

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        if len(self._path) > _DEEPEST:
            raise _nonsense(f"its elements are more than {_DEEPEST} deep")
        path = tuple(self._path)
        if path == _VF:
            self.wanted.append(_wanted(attributes))
        elif path[:2] == _DEVICE and len(path) == 3:
            self._device = _Device(name, attributes)
        elif self._device is not None:
            _inside(self._device, path[3:], attributes)

    def end(self, name: str) -> None:
        self._path.pop()
        if len(self._path) == 2 and self._device is not None:
            device, self._device = self._device, None
            if device.fits and device.address is not None:
                self.functions.append(HostFunction(device.address, device.kind, device.managed, device.alias))


def _inside(device: _Device, path: tuple[str, ...], attributes: Mapping[str, str]) -> None:
    if path == ("source",):  # an NVMe disk says here who binds its function
        device.managed = device.managed or attributes.get("managed") == "yes"
    elif path == ("source", "address"):
        device.address = _address(attributes)
    elif path == ("alias",):
        device.alias = attributes.get("name")


def _address(attributes: Mapping[str, str]) -> Bdf | None:
    """Return the function an ``address`` element names, or None: libvirt has addresses of other kinds, too."""
    parts = {name: number(attributes.get(name, "0"), most=most) for name, most in _PARTS.items()}
    domain, bus, slot, function = (parts[name] for name in ("domain", "bus", "slot", "function"))
    if domain is None or bus is None or slot is None or function is None:
        return None
    return Bdf(domain, bus, slot, function)


def _wanted(attributes: Mapping[str, str]) -> DomainWanted:
    address = attributes.get("address", "")
    if not Bdf.looks_like(address):
        raise _nonsense(f"its nvmelm:vf has {address[:40]!r} for an address; write it like 0000:01:00.1")
    return DomainWanted(Bdf.parse(address), attributes.get("unmarked") == "yes")


def _refuse_document_type(*_about: object) -> None:
    raise _nonsense("it has a document type, which libvirt writes none of")


def _nonsense(why: str) -> MalformedError:
    fix = "virsh dumpxml DOMAIN shows what libvirt has"
    return MalformedError("the domain's XML cannot be used", cause=why, fix=fix, reason="domain-xml")
