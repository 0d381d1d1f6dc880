"""Take serial numbers and names that identify a machine out of a recording.

A secret is replaced by a stand-in of the same length, everywhere in the recording: in the attribute or structure it was
found in, in other texts and paths, and in command data. The same secret always gets the same stand-in, so that the
recording still fits together. Model and firmware are kept: they say which device this was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from nvmelm.host.recording.block import Block
from nvmelm.host.recording.events import AdminEvent, Event, SysfsEvent
from nvmelm.wire.namespace_id import descriptor_places
from nvmelm.wire.opcodes import Cns, Opcode

#: Attributes below /sys whose whole value identifies one device or host.
_ATTRIBUTES = ("serial", "subsysnqn", "hostnqn", "hostid", "wwid", "uuid", "nguid", "eui", "vpd_pg80", "unique_id")
#: Identify Controller: Serial Number and NVM Subsystem NVMe Qualified Name, NVM Express Base Specification 2.1.
_SERIAL = slice(4, 24)
_SUBNQN = slice(768, 1024)
#: Identify Namespace: NGUID and EUI64.
_NAMESPACE_IDS = (slice(104, 120), slice(120, 128))
#: Shorter secrets would be found everywhere by chance; they are replaced only where they stand.
_SHORTEST = 5


class Redactor:
    """The stand-ins of one recording, made from all of its events."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._stand_ins: dict[str, str] = {}
        secrets = {secret for event in events for secret in _secrets(event)}
        # In order of appearance the numbers would depend on the order of events; sorted by length the longest, which
        # may contain a shorter one, is replaced first.
        for number, secret in enumerate(sorted(secrets, key=lambda text: (-len(text), text)), 1):
            self._stand_ins[secret] = stand_in(secret, number)

    def event(self, event: Event) -> Event:
        """Return an event without the secrets."""
        changes: dict[str, Any] = {}
        for name in type(event).model_fields:
            value = getattr(event, name)
            changed = self._value(value)
            if changed != value:
                changes[name] = changed
        if isinstance(event, AdminEvent) and event.data_in is not None:
            changes["data_in"] = self._places(event, changes.get("data_in", event.data_in))
        if isinstance(event, SysfsEvent) and isinstance(event.value, str) and _is_secret_path(event.path):
            secret = event.value.strip()
            changes["value"] = (
                event.value.replace(secret, self._stand_ins.get(secret, secret)) if secret else event.value
            )
        return event.model_copy(update=changes)

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if isinstance(value, Block):
            for secret, stand_in_text in self._long():
                value = value.replace(secret.encode(), stand_in_text.encode())
            return value
        if hasattr(type(value), "model_fields"):
            return value.model_copy(
                update={name: self._value(getattr(value, name)) for name in type(value).model_fields}
            )
        return value

    def text(self, text: str) -> str:
        """Return a text without the secrets."""
        for secret, stand_in_text in self._long():
            text = text.replace(secret, stand_in_text)
            # The kernel's wwid of a namespace without an identifier is made of the serial number in hexadecimal.
            text = text.replace(secret.encode().hex(), stand_in_text.encode().hex())
        return text

    def _long(self) -> Iterator[tuple[str, str]]:
        return ((secret, text) for secret, text in self._stand_ins.items() if len(secret) >= _SHORTEST)

    def _places(self, event: AdminEvent, block: Block) -> Block:
        """Return Identify data with the secrets replaced where the structure has them, however short they are."""
        places = _identify_places(event)
        if not places or len(block.segments) != 1 or not isinstance(block.segments[0], bytes):
            return block
        data = bytearray(block.segments[0])
        for place in places:
            data[place] = self._field(bytes(data[place]))
        return Block([bytes(data)])

    def _field(self, raw: bytes) -> bytes:
        text = _printable(raw)
        if text is None:  # a binary identifier: no text to find it by
            return bytes(len(raw)) if not any(raw) else b"\xee" * len(raw)
        replaced = self._stand_ins.get(text, text).encode()
        return raw.replace(text.encode(), replaced) if text else raw


def stand_in(secret: str, number: int) -> str:
    """Return a text of the same length that says what it is: ``REDACTED0001``, or an NQN of that sort."""
    digits = str(number)
    prefix = "nqn.2014-08.redacted:" if secret.startswith("nqn.") else "REDACTED"
    room = len(secret) - len(digits)
    return (prefix[: max(room, 0)] + digits.zfill(max(len(secret) - len(prefix), len(digits))))[-len(secret) :]


def _secrets(event: Event) -> Iterator[str]:
    if isinstance(event, SysfsEvent) and event.sysfs == "read" and event.error is None and _is_secret_path(event.path):
        yield from filter(None, [event.text.strip()])
    if isinstance(event, AdminEvent) and event.data_in is not None and not event.data_in.withheld:
        places = _identify_places(event)
        data = event.data_in.data() if places else b""
        yield from filter(None, (_printable(data[place]) for place in places))


def _is_secret_path(path: str) -> bool:
    return path.rpartition("/")[2] in _ATTRIBUTES


def _identify_places(event: AdminEvent) -> tuple[slice, ...]:
    if event.opcode != Opcode.IDENTIFY or event.data_length < 4096:
        return ()
    cns = event.words[0] & 0xFF
    if cns == Cns.IDENTIFY_CTRL:
        return (_SERIAL, _SUBNQN)
    if cns == Cns.NS_ID_DESCRIPTORS and event.data_in is not None and not event.data_in.withheld:
        return tuple(place for _, place in descriptor_places(event.data_in.data()))
    return _NAMESPACE_IDS if cns in (Cns.IDENTIFY_NS, Cns.ALLOCATED_NS) else ()


def _printable(raw: bytes) -> str | None:
    text = raw.rstrip(b" \0").lstrip(b" ")
    return text.decode() if all(0x20 <= byte < 0x7F for byte in text) else None
