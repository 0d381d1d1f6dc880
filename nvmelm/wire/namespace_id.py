"""The Namespace Identification Descriptor list (CNS 03h): the names a namespace has wherever it is attached.

Source: NVM Express Base Specification 2.1, "Namespace Identification Descriptor list". Each descriptor is a type
(NIDT), a length (NIDL), two reserved bytes and the identifier; a length of 0 ends the list.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum

from nvmelm.errors import MalformedError
from nvmelm.wire.opcodes import IDENTIFY_BYTES

_HEADER_BYTES = 4


class IdType(IntEnum):
    """Namespace Identifier Type (NIDT) of the identifiers that name a medium."""

    EUI64 = 1
    NGUID = 2
    UUID = 3


#: NIDL of each type, bytes.
LENGTHS: Mapping[IdType, int] = {IdType.EUI64: 8, IdType.NGUID: 16, IdType.UUID: 16}


def descriptor_places(page: bytes) -> Iterator[tuple[int, slice]]:
    """Yield the type of each descriptor and where its identifier stands, as far as the list goes."""
    offset = 0
    while offset + _HEADER_BYTES <= len(page) and (length := page[offset + 1]):
        start = offset + _HEADER_BYTES
        yield page[offset], slice(start, start + length)
        offset = start + length


def parse_descriptors(page: bytes) -> dict[IdType, bytes]:
    """Return the identifiers by type; types that name no medium (CSI) are left out.

    Raises:
        MalformedError: a length that its type cannot have, or a descriptor that goes past the end.
    """
    listed: dict[IdType, bytes] = {}
    for kind, place in descriptor_places(page):
        if kind not in LENGTHS:
            continue
        value = page[place]
        if place.stop - place.start != LENGTHS[IdType(kind)] or place.stop > len(page):
            raise MalformedError(f"a namespace identifier of type {kind} has {len(value)} bytes")
        listed[IdType(kind)] = value
    return listed


def build_descriptors(identifiers: Mapping[IdType, bytes]) -> bytes:
    """Return the list of some identifiers, 4096 bytes."""
    descriptors = (bytes([kind, len(value), 0, 0]) + value for kind, value in sorted(identifiers.items()))
    return b"".join(descriptors).ljust(IDENTIFY_BYTES, b"\0")
