"""Texts of strangers, made harmless: what a device, a process, a peer or a VMM says is shown, and no terminal obeys it.

A model number may hold an escape sequence, the name of a process a line feed that starts a line of ours. Nothing is
left out, so that two texts that differ look different.
"""

from __future__ import annotations


def harmless(text: object, longest: int | None = None) -> str:
    r"""Return a stranger's text in one line, with what is not printable written as ``\xNN`` or ``\uNNNN``.

    >>> harmless("a\x1b[2Jb")
    'a\\x1b[2Jb'
    >>> harmless(b"caf\xc3\xa9\xff", 5)
    'café\\…'

    Args:
        text: bytes are read as UTF-8, those that are none as ``\xNN``.
        longest: characters that are kept; an ellipsis stands for the rest.
    """
    shown = text.decode("utf-8", "backslashreplace") if isinstance(text, bytes) else str(text)
    if longest is not None and len(shown) > longest:
        shown = shown[:longest] + "…"
    if shown.isprintable():
        return shown
    return "".join(character if character.isprintable() else _escaped(ord(character)) for character in shown)


def _escaped(code: int) -> str:
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
