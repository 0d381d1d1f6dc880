"""Text for people: tables, sentences and colours; and JSON for programs.

Whatever comes from a device, a file or a peer passes :func:`plain` on its way to a terminal, so that no name can move
the cursor or change a colour. Colours are used on a terminal only, and never with ``NO_COLOR``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TextIO

from nvmelm.errors import HostError, host_error
from nvmelm.harmless import harmless

KIB = 1024
_GAP = "  "
_NARROWEST = 8  # a column that gives way keeps this many characters


def plain(text: object) -> str:
    r"""Return text with everything that is not printable written as ``\xNN`` or ``\uNNNN``.

    >>> plain("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return harmless(text)


def quote(word: str) -> str:
    """Return a word as it can be typed at a shell."""
    import shlex  # 0.4 ms of each start, for errors and commands alone

    return plain(shlex.quote(word))


class Paint:
    """The colours of one stream; none when it is not a terminal."""

    def __init__(self, stream: TextIO | None) -> None:
        self._on = is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def _wrap(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._on and text else text

    def bad(self, text: str) -> str:
        """Paint what went wrong."""
        return self._wrap("1;31", text)

    def warn(self, text: str) -> str:
        """Paint what needs a second look."""
        return self._wrap("33", text)

    def good(self, text: str) -> str:
        """Paint what is as it should be, and what to type next."""
        return self._wrap("32", text)

    def dim(self, text: str) -> str:
        """Paint what is there for completeness."""
        return self._wrap("2", text)

    def bold(self, text: str) -> str:
        """Paint a heading."""
        return self._wrap("1", text)


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal; a closed or absent one is not."""
    return stream is not None and not stream.closed and stream.isatty()


class Column(NamedTuple):
    """One column of a table: its title, its side, and whether it gives way when a terminal is too narrow."""

    title: str
    right: bool = False
    gives_way: bool = False


def table(columns: Sequence[Column], rows: Iterable[Sequence[object]], *, stream: TextIO | None = None) -> list[str]:
    """Return the lines of an aligned table.

    A column that says so is shortened on a terminal that is too narrow; piped output is never shortened. ``None`` and
    the empty text print as ``-``.
    """
    stream = stream or sys.stdout
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max([len(column.title), *(len(row[at]) for row in cells)]) for at, column in enumerate(columns)]
    if is_terminal(stream):
        _fit(widths, columns, terminal_width())
    heading = Paint(stream).bold(_line([column.title for column in columns], widths, columns))
    return [heading, *(_line(row, widths, columns) for row in cells)]


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else plain(value)


def _fit(widths: list[int], columns: Sequence[Column], available: int) -> None:
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - available
    for at, column in reversed(list(enumerate(columns))):
        if column.gives_way and over > 0:
            given = min(over, max(0, widths[at] - max(_NARROWEST, len(column.title))))
            widths[at] -= given
            over -= given


def _line(cells: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> str:
    parts = []
    for text, width, column in zip(cells, widths, columns, strict=True):
        short = text if len(text) <= width else text[: width - 1] + "…"
        parts.append(short.rjust(width) if column.right else short.ljust(width))
    return _GAP.join(parts).rstrip()


def terminal_width() -> int:
    """Return the columns of the terminal, 80 when it does not say."""
    return shutil.get_terminal_size((80, 24)).columns


def wrapped(prefix: str, text: str, stream: TextIO | None, *, painted: str = "") -> list[str]:
    """Return a sentence behind a prefix, broken between words on a terminal; piped output is one line.

    Args:
        painted: the prefix with its colours, when it has any.
    """
    if not is_terminal(stream) or len(prefix) + len(text) <= terminal_width():
        return [(painted or prefix) + text]
    room = max(terminal_width() - len(prefix), 2 * _NARROWEST)
    first, *rest = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    return [(painted or prefix) + first, *(" " * len(prefix) + line for line in rest)]


def facts(pairs: Iterable[tuple[str, object]], *, indent: str = "") -> list[str]:
    """Return lines of ``name  value``, the values below each other."""
    known = [(name, _cell(value)) for name, value in pairs]
    width = max((len(name) for name, _ in known), default=0)
    return [line for name, value in known for line in wrapped(f"{indent}{name.ljust(width)}  ", value, sys.stdout)]


def cntlid(number: int) -> str:
    """Return a controller identifier as people write it, ``0x0041``."""
    return f"0x{number:04x}"


def size(number: int) -> str:
    """Return a byte count with a binary unit: ``512 B``, ``4 KiB``, ``1.5 MiB``."""
    if number < KIB:
        return f"{number} B"
    units = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = min((number.bit_length() - 1) // 10, len(units) - 1)
    value, unit = number / KIB**power, units[power]
    return f"{value:.0f} {unit}" if value == int(value) else f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a time span as people say it: ``12 ms``, ``4.4 s``, ``2 min 05 s``, ``1 h 02 min``."""
    if seconds < 1:
        return f"{max(1, round(seconds * 1000))} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def count(number: int, single: str, many: str = "") -> str:
    """Return a count with its noun: ``1 VF``, ``2 VFs``."""
    return f"{number} {single if number == 1 else many or single + 's'}"


def print_json(document: dict[str, Any], stream: TextIO | None = None) -> None:
    """Print one JSON document; characters outside ASCII are escaped, so nothing in it reaches a terminal raw."""
    import json  # 1.5 ms, for --json alone

    print_lines([json.dumps(document, indent=2)], stream or sys.stdout)


def print_lines(lines: Iterable[str], stream: TextIO | None = None) -> bool:
    """Print lines and flush them; return whether they were all taken.

    Raises:
        HostError: the disk behind the output is full, say. A reader that has left is no error: the rest is dropped.
    """
    stream = stream or sys.stdout
    if stream is None:  # it was closed before we began, as a daemon's is
        return False
    try:
        for line in lines:
            stream.write(line + "\n")
        stream.flush()
    except BrokenPipeError:
        _drop(stream)
        return False
    except KeyboardInterrupt:  # the reader does not read; the interpreter's last flush would wait for it again
        _drop(stream)
        raise
    except OSError as error:
        # The terminal behind it is gone: tty_write() answers EIO then, where a pipe would EPIPE.
        hung_up = error.errno == errno.EIO and stat.S_ISCHR(os.fstat(stream.fileno()).st_mode)
        _drop(stream)
        if hung_up:
            return False
        raise host_error("cannot write the answer", stream.name, error) from error
    return True


def tell(lines: Iterable[str]) -> None:
    """Print lines on stderr, beside the answer; what cannot be written is dropped.

    A disk that is full, or a reader that has left, must not decide what becomes of a verb, nor how it ends.
    """
    if sys.stderr is None:  # not stdout: what reads the answer expects nothing else there
        return
    with contextlib.suppress(HostError):
        print_lines(lines, sys.stderr)


def _drop(stream: TextIO) -> None:
    """Point a stream that nobody reads at nothing, so that the interpreter's last flush is quiet too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
