"""The archive that ``nvmelm bug-report`` writes: texts without secrets, in one file for its owner alone."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nvmelm.disk.atomic import AtomicFile
from nvmelm.documents import Record, Report, about
from nvmelm.errors import host_error
from nvmelm.host.recording.redact import stand_in

#: A shorter text would be found everywhere by chance; fields that hold one are left out of the texts anyway.
_SHORTEST = 5
_NQN = re.compile(r"nqn\.[0-9]{4}-[0-9]{2}\.[^\s\"'\\,]+")
#: The serial number in a line of a journal, which a recording holds as a text in a text.
_SERIAL = re.compile(r'(\\?"serial\\?":\s*\\?")([^"\\]*)')
_FOLDER = "nvmelm-bug-report"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enclosed(Record):
    """One file of the archive."""

    name: str
    size_bytes: int
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing(Record):
    """What could not be had, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BugReport(Report):
    """An archive for a bug report."""

    schema_name = "nvmelm.bug_report"

    path: str
    size_bytes: int
    redacted: bool = field(
        metadata=about("serial numbers, NQNs and the names of other hosts were replaced; always true")
    )
    files: tuple[Enclosed, ...]
    missing: tuple[Missing, ...]


class Secrets:
    """What must not be in the archive, and what stands for it; the same stand-in everywhere."""

    def __init__(self) -> None:
        self._stand_ins: dict[str, str] = {}

    def add(self, *texts: str) -> None:
        """Take texts in; short ones and stand-ins are passed over."""
        for text in (text.strip() for text in texts):
            if len(text) >= _SHORTEST and not text.startswith("REDACTED") and "redacted:" not in text:
                instead = stand_in(text, len(self._stand_ins) + 1)
                self._stand_ins.setdefault(text, instead)
                self._stand_ins.setdefault(json.dumps(text)[1:-1], instead)  # as it stands in a file

    def without(self, text: str) -> str:
        """Return a text with stand-ins, also for NQNs that nobody named; data in hexadecimal is looked through too."""
        self.add(*_NQN.findall(text))
        for secret in sorted(self._stand_ins, key=len, reverse=True):
            instead = self._stand_ins[secret]
            text = text.replace(secret, instead).replace(secret.encode().hex(), instead.encode().hex())
        return _SERIAL.sub(lambda match: match[1] + (match[2] if len(match[2]) >= _SHORTEST else "REDACTED"), text)


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Make a directory for its owner alone, which is gone at the end.

    Raises:
        HostError: there is no room for it.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix="nvmelm-")
    except OSError as error:
        raise host_error("cannot make a directory in", tempfile.gettempdir(), error) from error
    with made as name:
        yield Path(name)


def enclosed(texts: Mapping[str, tuple[str, str]]) -> tuple[Enclosed, ...]:
    """Return what the files are; ``texts`` holds each file's text and what it is about by its name."""
    return tuple(
        Enclosed(name=name, size_bytes=len(text.encode()), about=about) for name, (text, about) in texts.items()
    )


def readme(files: Iterable[Enclosed], missing: Iterable[Missing]) -> str:
    """Return the text that tells a reader of the archive what is in it."""
    lines = ["A bug report of nvmelm.", "", "Serial numbers, NQNs and the names of other hosts were replaced; the same"]
    lines += ["stand-in means the same within a file. No state of a controller is in it.", ""]
    lines += [f"{file.name}: {file.about}" for file in files]
    lines += [f"missing, {gap.name}: {gap.why}" for gap in missing]
    return "\n".join([*lines, ""])


def write(path: Path, texts: Mapping[str, str], *, replace: bool = False) -> int:
    """Write the archive, whole or not at all, readable by its owner alone; return its size in bytes.

    Raises:
        UsageError: the name belongs to something that is no regular file.
        NotReadyError: a file has the name, and may not be replaced.
        HostError: it cannot be written.
    """
    packed = io.BytesIO()
    now = int(time.time())
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in texts.items():
            data = text.encode("utf-8", "backslashreplace")
            entry = tarfile.TarInfo(f"{_FOLDER}/{name}")
            entry.size, entry.mode, entry.mtime = len(data), 0o600, now
            archive.addfile(entry, io.BytesIO(data))
    with AtomicFile(path, replace=replace) as file:
        file.write(packed.getbuffer())
        file.commit()
    return packed.getbuffer().nbytes
