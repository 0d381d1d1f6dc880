"""The configuration: which controlling functions a host should have prepared, and how.

::

    [[pf]]
    serial = "S4YPNX0R"        # or address = "0000:01:00.0", or nqn = "nqn.2014.08.…"
    vfs = 4
    role = "source"            # or "destination"; left out: "unmarked", VFs that stay on this host
    vq = 2                     # each VF's flexible resources; left out: an even share
    vi = 1
    expires = "8h"             # how long marks hold; left out: as long as the VF is there

Files are read in order: ``/etc/nvmelm.toml``, then ``/etc/nvmelm.d/*.toml`` by name. A PF stands in one place only.
Every error names file, line and key.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nvmelm.disk import toml
from nvmelm.disk.bounded import names_in, read_file, what_is
from nvmelm.errors import UsageError
from nvmelm.inventory.pci import Bdf
from nvmelm.numbers import span_seconds

#: Where the configuration is, below the root of the file system, and what names another directory for both.
FILE, DIRECTORY, VARIABLE = "nvmelm.toml", "nvmelm.d", "NVMELM_CONFIG"
_ETC = "/etc"
_MAX_BYTES = 1 << 20
_SELECTORS = ("serial", "address", "nqn")
_KEYS = (*_SELECTORS, "vfs", "role", "vq", "vi", "expires")
_MOST = 0xFFFF
_TABLE = re.compile(r"\s*\[\[\s*pf\s*\]\]")

Role = Literal["source", "destination", "unmarked"]


@dataclass(frozen=True, slots=True)
class DesiredPrimary:
    """What is wanted of one controlling function.

    Attributes:
        place: file and line, for messages.
        by: how it is named: serial, address or nqn.
        expires_s: seconds a mark holds; None: no expiry.
    """

    place: str
    by: str
    name: str
    vfs: int
    role: Role
    vq: int | None
    vi: int | None
    expires_s: int | None


def config_files(directory: Path | None = None) -> list[Path]:
    """Return the files of the configuration, in the order in which they are read; there is one at least.

    Args:
        directory: where they are; the one ``NVMELM_CONFIG`` names, or ``/etc``, when None.

    Raises:
        UsageError: there is none, or what bears such a name is no file.
        HostError: a directory cannot be read.
    """
    base = directory or Path(os.environ.get(VARIABLE) or _ETC)
    names = names_in(base)
    files = [base / FILE] if FILE in names else []
    if DIRECTORY in names:
        _require(base / DIRECTORY, "directory")
        files += [base / DIRECTORY / name for name in names_in(base / DIRECTORY) if _is_toml(name)]
    for path in files:
        _require(path, "file")
    if not files:
        is_directory = what_is(str(base)) == "directory"
        missing = f"neither {FILE} nor {DIRECTORY}/*.toml is in {base}"
        raise UsageError(
            "there is no configuration",
            cause=missing if is_directory else f"{base} is no directory",
            fix=f"write {base / FILE}: docs/apply.md" if is_directory else f"name the directory {FILE} is in",
            reason="config",
        )
    return files


def _is_toml(name: str) -> bool:
    """Return whether a file is of the configuration; names with a dot in front are those of editors."""
    return name.endswith(".toml") and not name.startswith(".")


def _require(path: Path, wanted: Literal["file", "directory"]) -> None:
    """Refuse what bears a name of the configuration and is something else; /dev/null is as good as an empty file."""
    kind: str = what_is(str(path))
    if kind == "file" and not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  # as what_is does
        kind = "pipe or a socket, which is not waited for"
    if kind == wanted or (wanted == "file" and os.path.realpath(path) == os.devnull):
        return
    what = f"a {kind}"
    if kind == "nothing":  # of os.path: what stands in the way is no error here
        is_link = os.path.islink(path)  # noqa: PTH114
        what = f"a link to {os.path.realpath(path)}, which cannot be read" if is_link else "not to be looked at"
    raise UsageError(
        f"{path} is no {wanted}", cause=f"it is {what}", fix=f"put a {wanted} there, or remove it", reason="config"
    )


def load(files: Iterable[Path]) -> list[DesiredPrimary]:
    """Read the configuration.

    Raises:
        UsageError: with file, line and key.
        HostError: a file cannot be read.
    """
    entries: list[DesiredPrimary] = []
    for path in files:
        entries += parse(str(path), _text(path, read_file(path, _MAX_BYTES)))
    seen: dict[tuple[str, str], DesiredPrimary] = {}
    for entry in entries:
        earlier = seen.setdefault((entry.by, entry.name), entry)
        if earlier is not entry:
            raise _twice(earlier, entry, entry.name)
    return entries


def _text(path: Path, content: bytes) -> str:
    """Return a file's text; TOML is UTF-8, and a name with another letter in it would be another name."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}:{line}: this is not UTF-8",
            cause=f"the byte {content[error.start]:#04x} stands where no character has it",
            fix="save the file as UTF-8, then nvmelm apply --dry-run",
            reason="config",
        ) from error


def parse(name: str, text: str) -> list[DesiredPrimary]:
    """Read one file's text; the errors are those of :func:`load`."""
    try:
        document = toml.loads(text)
    except (ValueError, RecursionError) as error:  # also of a number with more than 4300 digits
        raise UsageError(
            f"{name} is not TOML: {error}", fix="correct it; nvmelm apply --dry-run", reason="config"
        ) from error
    unknown = sorted(set(document) - {"pf"})
    if unknown:
        raise _bad(name, _line(text, 0, unknown[0]), unknown[0], "is unknown here; a PF is a table [[pf]]")
    rows = document.get("pf", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _bad(name, _line(text, 0, "pf"), "pf", "is no table; write [[pf]]")
    heads = [line for line, content in enumerate(text.splitlines(), 1) if _TABLE.match(content)]
    heads += [1] * (len(rows) - len(heads))  # written in a way that we do not look for: pf = [{…}]
    return [_row(name, text, number, row, heads[number - 1]) for number, row in enumerate(rows, 1)]


def _row(name: str, text: str, number: int, row: Mapping[str, Any], head: int) -> DesiredPrimary:
    reader = _Row(name, text, number, row)
    reader.require_known_keys()
    by, named = reader.selector()
    vfs = reader.count("vfs", least=1)
    if vfs is None:
        raise reader.wrong("pf", "vfs is missing: how many virtual functions")
    vq, vi = reader.count("vq"), reader.count("vi")
    return DesiredPrimary(f"{name}:{head}", by, named, vfs, reader.role(), vq, vi, reader.expires_s())


@dataclass(frozen=True, slots=True)
class _Row:
    """One ``[[pf]]``, the ``number``-th of its file, read key by key; every error names file, line and key."""

    name: str
    text: str
    number: int
    row: Mapping[str, Any]

    def wrong(self, key: str, why: str) -> UsageError:
        """Return the error of a key."""
        return _bad(self.name, _line(self.text, self.number, key), key, why)

    def require_known_keys(self) -> None:
        """Refuse a key that means nothing here; UsageError names the one that may be meant."""
        for key in self.row:
            if key not in _KEYS:
                near = difflib.get_close_matches(key, _KEYS, 1)
                hint = f"meant is {near[0]}?" if near else "known are " + ", ".join(_KEYS)
                raise self.wrong(key, f"is unknown; {hint}")

    def selector(self) -> tuple[str, str]:
        """Return how the PF is named and its name: an address in its canonical form."""
        named = [key for key in _SELECTORS if key in self.row]
        if len(named) != 1:
            raise self.wrong(named[1] if named else "pf", f"a PF is named by one of {', '.join(_SELECTORS)}")
        key = named[0]
        value = self.row[key]
        if not isinstance(value, str) or not 0 < len(value) <= 256 or not value.isprintable():
            raise self.wrong(key, "is not a short text")
        return key, self._address(value.strip()) if key == "address" else value.strip()

    def _address(self, text: str) -> str:
        try:
            return str(Bdf.parse(text))
        except UsageError as error:
            raise self.wrong("address", f"is no PCI address: {text!r}; write it like 0000:01:00.0") from error

    def role(self) -> Role:
        """Return what the VFs are for."""
        role: Role = self.row.get("role", "unmarked")
        if role not in ("source", "destination", "unmarked"):
            raise self.wrong("role", 'is not "source", "destination" or "unmarked"')
        return role

    def count(self, key: str, *, least: int = 0) -> int | None:
        """Return a count, ``least`` to 65535; None when it is left out."""
        value = self.row.get(key)
        if value is not None and not (type(value) is int and least <= value <= _MOST):
            raise self.wrong(key, f"is not a number from {least} to {_MOST}")
        return value

    def expires_s(self) -> int | None:
        """Return for how many seconds marks hold; None for no end."""
        if "expires" not in self.row:
            return None
        text = self.row["expires"]
        seconds = span_seconds(text) if isinstance(text, str) else None
        if seconds is None:
            raise self.wrong("expires", "is not a time span such as 90s, 15min, 8h or 2d")
        return seconds


def _line(text: str, number: int, key: str) -> int:
    """Return the line a key of the n-th ``[[pf]]`` stands in, from 1; that of the table when the key is not there."""
    table, head, name = 0, 1, re.escape(key)
    inside = re.compile(rf"\s*[\"']?{name}[\"']?\s*[=.]")
    outside = re.compile(rf"\s*\[*\s*[\"']?{name}\b")
    for line, content in enumerate(text.splitlines(), 1):
        if _TABLE.match(content):
            table += 1
            head = line if table == number else head
        elif (table == number or not number) and (inside if number else outside).match(content):
            return line
    return head


def _bad(name: str, line: int, key: str, why: str) -> UsageError:
    return UsageError(
        f"{name}:{line}: {key} {why}", fix="correct the file, then nvmelm apply --dry-run", reason="config"
    )


def _twice(entry: DesiredPrimary, other: DesiredPrimary, name: str) -> UsageError:
    return UsageError(
        f"{name} stands twice", cause=f"at {entry.place} and at {other.place}", fix="keep one of them", reason="config"
    )


def same_function(entry: DesiredPrimary, other: DesiredPrimary, address: str) -> UsageError:
    """Return the error of two entries that name one function in different ways."""
    return _twice(entry, other, address)
