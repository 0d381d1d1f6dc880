"""Numbers in texts that others wrote: the kernel, a device, a configuration, a peer.

``int()`` alone takes signs, spaces, underscores and the digits of every script, raises ``ValueError`` for the rest and
for more than 4300 digits, and ``str.isdigit()`` is true of superscripts that ``int()`` then refuses. So a number is
read here: plain ASCII digits, no more of them than the largest value has, or it is none.
"""

from __future__ import annotations

import re

from nvmelm.errors import UsageError

_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(us|ms|s|min|h|d)?")
_PER_SECOND = {"us": 1_000_000, "ms": 1000}
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_SIZE = re.compile(r"([0-9]{1,20})(KiB|MiB|GiB|TiB)")
_SHIFTS = {"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
_CNTLID = re.compile(r"0[xX][0-9a-fA-F]{1,4}|[0-9a-fA-F]{1,4}[hH]|[0-9]{1,5}")
_HEX = frozenset("0123456789abcdefABCDEF")


def decimal(text: str, *, most: int) -> int | None:
    """Return a whole number of ASCII digits, 0 to ``most``; None for any other text."""
    if not (text.isascii() and text.isdecimal()) or len(text.lstrip("0")) > len(str(most)):
        return None
    number = int(text.lstrip("0") or "0")
    return number if number <= most else None


def hexadecimal(text: str, *, most: int) -> int | None:
    """Return a number of hexadecimal digits, with or without ``0x`` before them; None for any other text."""
    digits = text[2:] if text[:2] in ("0x", "0X") else text
    if not digits or not _HEX.issuperset(digits) or len(digits.lstrip("0")) > len(f"{most:x}"):
        return None
    number = int(digits.lstrip("0") or "0", 16)
    return number if number <= most else None


def number(text: str, *, most: int) -> int | None:
    """Return a decimal number, or with ``0x`` before it a hexadecimal one; None for any other text."""
    return hexadecimal(text, most=most) if text[:2] in ("0x", "0X") else decimal(text, most=most)


def span(text: str, *, unit: str = "s") -> float | None:
    """Return a time span, ``500ms``, ``1.5s``, ``90s``, ``15min``, ``8h`` or ``2d``, in seconds; None for other texts.

    Args:
        unit: of a number without one.
    """
    match = _SPAN.fullmatch(text)
    if match is None:
        return None
    amount, kind = float(match[1]), match[2] or unit
    return amount / _PER_SECOND[kind] if kind in _PER_SECOND else amount * _SECONDS[kind]


def span_seconds(text: str) -> int | None:
    """Return a time span of whole seconds; None for 0, a part of a second, and any text that is no span."""
    seconds = span(text)
    return int(seconds) if seconds and seconds.is_integer() else None


def size(text: str, *, most: int) -> int | None:
    """Return a size, ``64KiB`` or ``1GiB``, or a number of bytes as :func:`number` reads it; None for other texts."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return number(text, most=most)
    amount = int(match[1]) << _SHIFTS[match[2]]
    return amount if amount <= most else None


def parse_cntlid(text: str) -> int:
    """Read a controller id: ``0x0041``, ``41h`` or ``65``.

    Raises:
        UsageError: not a controller id, 0 to 0xFFEF (the ids above are reserved).
    """
    if _CNTLID.fullmatch(text):
        value = int(text[:-1], 16) if text[-1] in "hH" else int(text, 0 if text[:2] in ("0x", "0X") else 10)
        if value <= 0xFFEF:
            return value
    raise UsageError(f"{text!r} is not a controller id", fix="write it like 0x0041; nvmelm secondary list shows them")
