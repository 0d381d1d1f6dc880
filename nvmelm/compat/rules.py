"""What a fact can be, and the rules by which a source's value and a destination's compare; and facts as text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeGuard

#: What a fact can be in JSON. A list is homogeneous: numbers, or words.
FactValue = bool | int | str | list[int] | list[str]

#: Every number is a field of 64 bits at most, or a byte count that fits one.
LARGEST = 2**64 - 1
MAX_TEXT = 1024
MAX_ITEMS = 65536
_VERSION_PARTS = 3


class Kind(StrEnum):
    """What values a fact has."""

    INT = "int"
    TEXT = "text"
    BOOL = "bool"
    VERSION = "version"
    INTS = "ints"
    TEXTS = "texts"


class Rule(StrEnum):
    """How a destination must stand to a source."""

    EQUAL = "equal"
    AT_LEAST = "at-least"
    LIMIT = "limit"
    SUPERSET = "superset"
    SAME_MAJOR = "same-major"
    KEEPS = "keeps"
    REQUIRED = "required"
    FORBIDDEN = "forbidden"
    ALLOWED = "allowed"


#: Each rule as the second half of a sentence.
RULES: Mapping[Rule, str] = {
    Rule.EQUAL: "both must be the same",
    Rule.AT_LEAST: "the destination must have at least as much",
    Rule.LIMIT: "the destination must have at least as much; 0 is no limit",
    Rule.SUPERSET: "the destination must have all that the source has",
    Rule.SAME_MAJOR: "the major numbers must be the same, and the destination's minor number not the smaller one",
    Rule.KEEPS: "the destination must have it when the source has",
    Rule.REQUIRED: "both must have it",
    Rule.FORBIDDEN: "neither may have it",
    Rule.ALLOWED: "both must be one of the values that are allowed",
}


class Severity(StrEnum):
    """What a difference means for the verdict."""

    BLOCKS = "blocks"
    WARNS = "warns"
    INFORMS = "informs"


@dataclass(frozen=True, slots=True)
class Fact:
    """One row of the table in :mod:`nvmelm.compat.facts`.

    Attributes:
        name: dotted, section first.
        code: stable word for a pair that does not satisfy the rule.
        meaning: what the value is and where it comes from.
        unit: of a number, empty for a plain count.
        fix: what an operator does about a difference.
        settable: nvmelm can give a destination the source's value, once, before it takes the state.
        runtime: the value can change while the function is in use.
        fixed: no site policy can relax it.
        allowed: for :attr:`Rule.ALLOWED`, the values.
    """

    name: str
    kind: Kind
    rule: Rule
    severity: Severity
    code: str
    meaning: str
    fix: str
    unit: str = ""
    settable: bool = False
    runtime: bool = False
    fixed: bool = False
    allowed: tuple[str, ...] = ()

    @property
    def section(self) -> str:
        """Return the first part of the name."""
        return self.name.partition(".")[0]


def is_number(value: object) -> TypeGuard[int]:
    """Return whether a value is a number of 64 bits; true and false are none."""
    return type(value) is int and 0 <= value <= LARGEST


def _is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _is_word(value: object) -> TypeGuard[str]:
    return _is_text(value) and value != ""


def version(text: str) -> tuple[int, int, int] | None:
    """Read ``2.1.0``, or ``2.1`` for ``2.1.0``; None when it is no version."""
    parts = text.split(".")
    if not 2 <= len(parts) <= _VERSION_PARTS:
        return None
    if not all(part.isascii() and part.isdecimal() and len(part) <= 5 for part in parts):
        return None
    major, minor, *rest = (int(part) for part in parts)
    return major, minor, rest[0] if rest else 0


def _is_list(value: object, check: Callable[[object], bool]) -> bool:
    return isinstance(value, list) and len(value) <= MAX_ITEMS and all(map(check, value))


_VALID: Mapping[Kind, Callable[[object], bool]] = {
    Kind.INT: is_number,
    Kind.TEXT: _is_text,
    Kind.BOOL: lambda value: isinstance(value, bool),
    Kind.VERSION: lambda value: isinstance(value, str) and version(value) is not None,
    Kind.INTS: lambda value: _is_list(value, is_number),
    Kind.TEXTS: lambda value: _is_list(value, _is_word),
}


def valid(fact: Fact, value: object) -> bool:
    """Return whether a value is one the fact can have."""
    return _VALID[fact.kind](value)


def _same_major(source: str, destination: str) -> bool:
    ours, other = version(source), version(destination)
    return ours is not None and other is not None and ours[0] == other[0] and other[1] >= ours[1]


_COMPARE: Mapping[Rule, Callable[..., bool]] = {
    Rule.EQUAL: lambda source, destination: source == destination,
    Rule.AT_LEAST: lambda source, destination: destination >= source,
    Rule.LIMIT: lambda source, destination: destination == 0 or 0 < source <= destination,
    Rule.SUPERSET: lambda source, destination: set(source) <= set(destination),
    Rule.SAME_MAJOR: _same_major,
    Rule.KEEPS: lambda source, destination: destination or not source,
    Rule.REQUIRED: lambda source, destination: source and destination,
    Rule.FORBIDDEN: lambda source, destination: not (source or destination),
}


def satisfied(fact: Fact, source: FactValue, destination: FactValue, *, rule: Rule | None = None) -> bool:
    """Return whether a pair of values satisfies a rule; a value the fact cannot have satisfies none.

    Args:
        rule: instead of the fact's own, as a policy has it.
    """
    if not (valid(fact, source) and valid(fact, destination)):
        return False
    rule = rule or fact.rule
    if rule is Rule.ALLOWED:
        return source in fact.allowed and destination in fact.allowed
    return bool(_COMPARE[rule](source, destination))


def encode(value: FactValue) -> str:
    """Write a value as one line of printable ASCII without blanks at its ends, as the textual dialects carry it.

    A list's items are joined by commas; what is not plain in a text is percent-encoded.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(map(encode, value))
    return str(value) if isinstance(value, int) else "".join(map(_escape, value.encode("utf-8", "surrogatepass")))


def decode(fact: Fact, text: str) -> FactValue | None:
    """Read what :func:`encode` wrote; None when the text is not exactly that of a value the fact can have."""
    value = _decode(fact.kind, text)
    return value if value is not None and valid(fact, value) and encode(value) == text else None


#: Stands for itself; a blank inside a model's name too, for people read these lines.
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 -._~:+/()#@")


def _escape(byte: int) -> str:
    return chr(byte) if byte in _PLAIN else f"%{byte:02X}"


def _decode(kind: Kind, text: str) -> FactValue | None:
    match kind:
        case Kind.BOOL:
            return {"true": True, "false": False}.get(text)
        case Kind.INT:
            return _number(text)
        case Kind.INTS:
            numbers = [_number(item) for item in text.split(",")] if text else []
            known = [number for number in numbers if number is not None]
            return known if len(known) == len(numbers) else None
        case Kind.TEXTS:
            words = [_text(item) for item in text.split(",")] if text else []
            readable = [word for word in words if word is not None]
            return readable if len(readable) == len(words) else None
        case _:
            return _text(text)


def _number(text: str) -> int | None:
    plain = text.isascii() and text.isdecimal() and len(text) <= len(str(LARGEST))
    return int(text) if plain else None


def _text(text: str) -> str | None:
    from urllib.parse import unquote_to_bytes  # seldom needed

    try:
        return unquote_to_bytes(text.encode("ascii")).decode("utf-8", "surrogatepass")
    except UnicodeError:
        return None
