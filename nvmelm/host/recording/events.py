"""The events of a transcript: what was asked of a host, field by field, and what it said.

Each has three parts: what was asked, which a replay compares; the answer; or the error instead of one.
"""

from __future__ import annotations

import errno as errno_module
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PlainSerializer, PlainValidator, Tag, model_validator

from nvmelm import errors
from nvmelm.errors import HostError, NotSupportedError, NvmelmError
from nvmelm.host import ADMIN_TIMEOUT_MS, AdminCommand
from nvmelm.host.recording.block import MAX_BLOCK_BYTES, Block
from nvmelm.numbers import decimal

_MAX_ERRNO = 99_999
#: The class that declares each kind. One that inherits its kind is narrower, and one that takes other arguments than
#: these is of a migration: no host raises it instead of an answer.
_ERROR_KINDS: dict[str, type[NvmelmError]] = {
    value.kind: value
    for value in vars(errors).values()
    if isinstance(value, type) and issubclass(value, NvmelmError) and "kind" in vars(value)
    if value.__init__ in (NvmelmError.__init__, HostError.__init__)
}

Data = Annotated[
    Block, PlainValidator(Block.validate_json), PlainSerializer(lambda block: block.lines(), return_type=list[str])
]


def _parse_digits(text: str, digits: int) -> int:
    """Return a number of exactly so many hexadecimal digits; ``int()`` alone would take signs and underscores too."""
    if len(text) != digits or not set(text) <= set("0123456789abcdef"):
        raise ValueError(f"is {digits} hexadecimal digits")
    return int(text, 16)


def _hex(digits: int) -> Any:
    """Return the pydantic type of an integer written ``0x`` with a fixed number of digits."""

    def read(value: object) -> int:
        if isinstance(value, str) and value.startswith("0x"):
            return _parse_digits(value[2:], digits)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 4 * digits:
            return value
        raise ValueError(f"is 0x and {digits} hexadecimal digits")

    return Annotated[
        int,
        PlainValidator(read),
        PlainSerializer(lambda value: f"0x{value:0{digits}x}", return_type=str),
    ]


def _read_words(value: object) -> tuple[int, ...]:
    if isinstance(value, tuple):  # from a command, not from a file
        return value
    words = value.split(" ") if isinstance(value, str) else []
    if len(words) != 6:
        raise ValueError("is six words")
    return tuple(_parse_digits(word, 8) for word in words)


Words = Annotated[
    tuple[int, ...],
    PlainValidator(_read_words),
    PlainSerializer(lambda words: " ".join(f"{word:08x}" for word in words), return_type=str),
]


class Model(BaseModel):
    """A part of a transcript: nothing in it is unknown, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, arbitrary_types_allowed=True)


def clean(text: str) -> str:
    """Return text that JSON can hold: bytes that are no UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


class RecordedFault(Model):
    """An error the host raised instead of an answer; raised again, as the same type, by a replay."""

    kind: str
    errno: str = ""
    message: str
    cause: str = ""
    fix: str = ""
    path: str = ""
    reason: str = ""

    @model_validator(mode="after")
    def _known(self) -> RecordedFault:
        if self.kind not in _ERROR_KINDS:
            raise ValueError(f"{self.kind!r} is no kind of error")
        self.number()
        return self

    def number(self) -> int:
        """Return the errno as a number, 0 for none."""
        plain = decimal(self.errno, most=_MAX_ERRNO)
        if plain is not None:
            return plain
        number = getattr(errno_module, self.errno, None) if self.errno else 0
        if not isinstance(number, int):
            raise ValueError(f"{self.errno!r} is no errno")
        return number

    @classmethod
    def of(cls, error: NvmelmError) -> RecordedFault:
        """Write an error down."""
        texts = {name: clean(getattr(error, name)) for name in ("message", "cause", "fix", "reason")}
        if isinstance(error, HostError):
            texts |= {"path": clean(error.path), "errno": error.errno_name if error.errno else ""}
        return cls(kind=error.kind, **texts)

    def error(self) -> NvmelmError:
        """Return the error to raise."""
        kind = _ERROR_KINDS[self.kind]
        texts = {"cause": self.cause, "fix": self.fix, "reason": self.reason}
        if issubclass(kind, HostError):
            return kind(self.message, path=self.path, errno=self.number(), **texts)
        return kind(self.message, **texts)


class _Event(Model):
    error: RecordedFault | None = None

    def request(self) -> dict[str, object]:
        """Return what was asked, field by field, in the order in which a replay compares it."""
        raise NvmelmError("an event without a kind")


class SysfsEvent(_Event):
    """One access to a file below ``/sys``; ``path`` of ``devices`` is the subsystem."""

    sysfs: Literal["read", "write", "readlink", "listdir", "exists", "inode", "devices"]
    path: str
    value: str | bool | int | list[str] | None = None

    @model_validator(mode="after")
    def _fits(self) -> SysfsEvent:
        wanted: dict[str, tuple[type, ...]] = {
            "read": (str, list),
            "write": (str, list),
            "readlink": (str, type(None)),
            "listdir": (list,),
            "devices": (list,),
            "exists": (bool,),
            "inode": (int,),
        }
        if self.error is not None and self.sysfs != "write":
            wanted[self.sysfs] = (type(None),)
        if not isinstance(self.value, wanted[self.sysfs]) or (self.sysfs == "inode" and isinstance(self.value, bool)):
            raise ValueError(f"value of {self.sysfs} cannot be {type(self.value).__name__}")
        return self

    @property
    def text(self) -> str:
        """Return the value of ``read`` or ``write`` as it was; a text of several lines is stored line by line."""
        return "\n".join(self.value) if isinstance(self.value, list) else str(self.value)

    def request(self) -> dict[str, object]:
        asked: dict[str, object] = {"sysfs": self.sysfs, "path": self.path}
        return asked | {"value": self.text} if self.sysfs == "write" else asked


class OpenerFact(Model):
    """A process that has a node open; ``pid`` is an ordinal, 1 for the first process met in the session."""

    node: str
    pid: int
    name: str
    vm: str = ""


class MountFact(Model):
    """A mounted file system."""

    device: str
    where: str


class ClaimFact(Model):
    """A function that another manager binds."""

    address: str
    manager: Literal["driverctl", "libvirt"]
    domain: str


class FactsFact(Model):
    """The kernel, and which boot of it this is."""

    kernel_release: str
    boot: str
    privileged: bool


class HostEvent(_Event):
    """One question to the host; ``subject`` is the node, module or controller it is about, ``nodes`` of several."""

    host: Literal[
        "openers",
        "exclusively_held",
        "mounts",
        "claims",
        "node_exists",
        "load_module",
        "facts",
        "open_queue",
        "max_transfer",
    ]
    subject: str = ""
    nodes: list[str] | None = None
    value: bool | int | list[OpenerFact] | list[MountFact] | list[ClaimFact] | list[str] | FactsFact | None = None

    @model_validator(mode="after")
    def _fits(self) -> HostEvent:
        wanted: dict[str, type] = {
            "openers": list,
            "exclusively_held": list,
            "mounts": list,
            "claims": list,
            "node_exists": bool,
            "facts": FactsFact,
            "max_transfer": int,
        }
        kind = type(None) if self.error is not None else wanted.get(self.host, type(None))
        items = {"openers": OpenerFact, "exclusively_held": str, "mounts": MountFact, "claims": ClaimFact}
        item = items.get(self.host, object)
        parts = self.value if isinstance(self.value, list) else []
        fits = isinstance(self.value, kind) and all(isinstance(part, item) for part in parts)
        if not fits or (self.host == "max_transfer" and isinstance(self.value, bool)):
            raise ValueError(f"value does not fit {self.host}")
        if (self.nodes is None) == (self.host in ("openers", "exclusively_held")):
            raise ValueError("nodes belong to questions about several, and to nothing else")
        return self

    def request(self) -> dict[str, object]:
        asked: dict[str, object] = {"host": self.host}
        return asked | ({"nodes": self.nodes} if self.nodes is not None else {"subject": self.subject})


class AdminEvent(_Event):
    """One admin command and its completion."""

    model_config = ConfigDict(populate_by_name=True)

    admin: str
    controller: str
    opcode: _hex(2)  # type: ignore[valid-type]
    nsid: _hex(8)  # type: ignore[valid-type]
    cdw2: _hex(8) = 0  # type: ignore[valid-type]
    cdw3: _hex(8) = 0  # type: ignore[valid-type]
    words: Words = Field(alias="cdw10-15")
    data_length: int = Field(default=0, ge=0, le=MAX_BLOCK_BYTES)
    timeout_ms: int = Field(default=ADMIN_TIMEOUT_MS, ge=0)
    data_out: Data | None = None
    status: _hex(4) | None = None  # type: ignore[valid-type]
    result: _hex(16) = 0  # type: ignore[valid-type]
    data_in: Data | None = None

    @model_validator(mode="after")
    def _whole(self) -> AdminEvent:
        if (self.status is None) == (self.error is None):
            raise ValueError("has either a status or an error")
        if self.data_out is not None and self.data_in is not None:
            raise ValueError("has data in both directions")
        for name, block in (("data_out", self.data_out), ("data_in", self.data_in)):
            if block is not None and block.length != self.data_length:
                raise ValueError(f"{name} is {block.length} bytes, data_length says {self.data_length}")
        return self

    def request(self) -> dict[str, object]:
        return _command_fields(
            self.admin,
            self.controller,
            (self.opcode, self.nsid, self.cdw2, self.cdw3, *self.words),
            (self.data_length, self.data_out is not None, self.timeout_ms),
        )


def _command_fields(
    name: str, controller: str, words: tuple[int, ...], lengths: tuple[int, bool, int]
) -> dict[str, object]:
    """Return the fields of a command as a replay compares them; words as a transcript writes them."""
    opcode, nsid, cdw2, cdw3, *others = words
    fields: dict[str, object] = {"admin": name, "controller": controller, "opcode": f"0x{opcode:02x}"}
    numbers = {"nsid": nsid, "cdw2": cdw2, "cdw3": cdw3}
    numbers |= {f"cdw{number}": word for number, word in enumerate(others, 10)}
    fields |= {key: f"0x{word:08x}" for key, word in numbers.items()}
    length, outward, timeout_ms = lengths
    return fields | {"data_length": length, "data goes out": outward, "timeout_ms": timeout_ms}


def command_request(controller: str, command: AdminCommand) -> dict[str, object]:
    """Return an admin command in the shape of :meth:`AdminEvent.request`."""
    return _command_fields(
        command.name,
        controller,
        (command.opcode, command.nsid, command.cdw2, command.cdw3, *command.words),
        (command.data_length, bool(command.data_out), command.timeout_ms),
    )


def _kind_of(value: object) -> str | None:
    if isinstance(value, _Event):
        return {SysfsEvent: "sysfs", HostEvent: "host", AdminEvent: "admin"}[type(value)]
    if isinstance(value, dict):
        return next((kind for kind in ("sysfs", "host", "admin") if kind in value), None)
    return None


Event = Annotated[
    Annotated[SysfsEvent, Tag("sysfs")] | Annotated[HostEvent, Tag("host")] | Annotated[AdminEvent, Tag("admin")],
    Discriminator(_kind_of),
]


def no_uevents() -> NotSupportedError:
    """Return the error of listening to a host that is recorded or replayed."""
    return NotSupportedError(
        "a recording has no uevents",
        cause="it holds what was asked and answered, not when devices came and went",
        fix="watch the host itself, or an emulated one, without --record",
        reason="recording-has-no-uevents",
    )


def no_queue_memory() -> NotSupportedError:
    """Return the error of having a controller write by itself on a host that is recorded or replayed."""
    return NotSupportedError(
        "a recording has no Controller Data Queue",
        cause="it holds commands and their answers, not what a controller writes between two of them",
        fix="use the host itself, or an emulated one, without --record",
        reason="recording-has-no-queue",
    )
