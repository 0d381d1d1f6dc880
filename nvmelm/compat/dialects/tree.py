"""The attribute-tree dialect: a manifest as directories with one value a file, as Y. Zhao proposed in August 2020.

::

    DIR/migration/self/software_version      2.1.0                 what this end is
    DIR/migration/self/device_api            vfio-pci
    DIR/migration/self/type                  its model
    DIR/migration/self/pci_id                1b36:0010
    DIR/migration/self/level, digest         nvmelm's own
    DIR/migration/self/limits.mdts_bytes     2097152               one file a fact, by its name
    DIR/migration/compatible/...             at-least 2097152      what the other end must be, by the same names

Values are ASCII, one line. A tree is data of unknown origin: links, other kinds of files, odd names and long values are
refused, and a tree whose digest does not fit its values is no manifest.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from nvmelm.compat.facts import FACTS
from nvmelm.compat.manifest import Level, Manifest, check_facts
from nvmelm.compat.rules import FactValue, Rule, decode, encode
from nvmelm.disk.atomic import new_file
from nvmelm.errors import MalformedError, NotReadyError, UsageError, host_error

_SELF, _COMPATIBLE = "migration/self", "migration/compatible"
DEVICE_API = "vfio-pci"
#: The fields every tree must have, and where their values come from; the rest of a tree is facts.
_MUST = ("software_version", "device_api", "type", "pci_id")
_OWN = ("level", "digest")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}(\.[a-z][a-z0-9_]{0,31}){0,3}")
_MAX_FILES = 600
_MAX_BYTES = 1 << 20


def fields(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield the fields of ``migration/self``: name and value."""
    facts = manifest.facts
    yield "software_version", str(facts.get("identity.nvme_version", ""))
    yield "device_api", DEVICE_API
    yield "type", encode(facts.get("identity.model", ""))
    yield "pci_id", f"{facts.get('identity.vendor_id', 0):04x}:{facts.get('identity.vf_device_id', 0):04x}"
    yield "level", manifest.level
    yield "digest", manifest.digest
    for name in sorted(facts):
        yield name, encode(facts[name])


def demands(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """Yield the fields of ``migration/compatible``: the rule and the value that a destination must satisfy."""
    for name in sorted(manifest.facts):
        fact = FACTS.get(name)
        rule = fact.rule if fact is not None else Rule.EQUAL
        yield name, f"{rule} {encode(manifest.facts[name])}"


def require_new(directory: Path, *, replace: bool) -> None:
    """Refuse a directory with something where the tree is to be, unless that is an earlier tree that may be replaced.

    Raises:
        UsageError: a link, or a file, bears the name.
        NotReadyError: it is there already.
    """
    for place in (_SELF, _COMPATIBLE):
        for path in (directory / place, (directory / place).parent):
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                fix = "name another directory"
                raise UsageError(f"{path} is not a directory of its own", cause="it is a link, or a file", fix=fix)
        if (directory / place).exists() and not replace:
            cause, fix = "nothing is overwritten without a word", "name another directory, or say --force to replace it"
            raise NotReadyError(f"{directory / place} is there already", cause=cause, fix=fix, reason="file-exists")


def write_tree(manifest: Manifest, directory: Path, *, replace: bool = False) -> None:
    """Write a manifest as a tree; files of an earlier one are replaced, none is left over.

    Raises:
        NotReadyError: see :func:`require_new`.
        HostError: it cannot be written.
    """
    require_new(directory, replace=replace)
    for place, rows in ((_SELF, fields(manifest)), (_COMPATIBLE, demands(manifest))):
        try:
            (directory / place).mkdir(parents=True, exist_ok=True)
            written = dict(rows)
            for name, value in written.items():
                with os.fdopen(new_file(directory / place / name, replace=replace), "w", encoding="ascii") as file:
                    file.write(f"{value}\n")
            for left in set(os.listdir(directory / place)) - set(written):  # noqa: PTH208
                (directory / place / left).unlink()
        except OSError as error:
            raise host_error("cannot write the tree", str(directory / place), error) from error


def read_tree(directory: Path) -> Manifest:
    """Read the manifest of a tree.

    Raises:
        MalformedError: it is none; its digest is not that of its values; the fields contradict each other.
        HostError: it cannot be read.
    """
    place = directory / _SELF
    texts = _read(place)
    missing = [name for name in (*_MUST, *_OWN) if name not in texts]
    if missing:
        raise _bad(place, f"it has no {', '.join(missing)}")
    facts: dict[str, FactValue] = {}
    for name in sorted(set(texts) - {*_MUST, *_OWN}):
        fact = FACTS.get(name)
        value = decode(fact, texts[name]) if fact is not None else texts[name]
        if value is None:
            raise _bad(place, f"{name} is no value of its kind")
        facts[name] = value
    if texts["level"] not in ("device", "prospective"):
        raise _bad(place, "its level is neither device nor prospective")
    manifest = Manifest(cast("Level", texts["level"]), check_facts(facts), {"tree": str(directory)[:256]}, {})
    expected = dict(fields(manifest))
    wrong = [name for name in (*_MUST, *_OWN) if texts[name] != expected[name]]
    if wrong:
        raise _bad(place, f"{', '.join(wrong)} does not fit its other values")
    return manifest


def _read(place: Path) -> dict[str, str]:
    """Return the files of a directory by name."""
    texts = {}
    try:
        names = os.listdir(place)  # noqa: PTH208
        if len(names) > _MAX_FILES:
            raise _bad(place, f"it has {len(names)} files")
        for name in names:
            if not _NAME.fullmatch(name):
                raise _bad(place, f"{name[:60]!r} is no field")
            texts[name] = _value(place, name)
    except OSError as error:
        raise host_error("cannot read the tree", str(place), error) from error
    return texts


def _value(place: Path, name: str) -> str:
    descriptor = os.open(place / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _bad(place, f"{name} is no file")
        raw = os.read(descriptor, _MAX_BYTES + 1)
    finally:
        os.close(descriptor)
    text = raw.decode("ascii", errors="replace").removesuffix("\n")
    if len(raw) > _MAX_BYTES or not text.isascii() or any(not 32 <= ord(char) < 127 for char in text):
        raise _bad(place, f"{name} is not one line of ASCII")
    return text


def _bad(place: Path, why: str) -> MalformedError:
    return MalformedError(
        f"{place} is no tree of a manifest", cause=why, fix="nvmelm compat export PF CNTLID --tree DIR", reason="tree"
    )
