"""The transcript: everything one session asked of a host and what it was told, as text a person can read and edit.

::

    {
      "format": 1,
      "about": "the header of a running controller's state",
      "source": {"recorded_on": "emulated", "kernel": "6.1.0", "nvmelm": "0.1.0", "edited": "no"},
      "events": [
        {"sysfs": "read", "path": "class/nvme/nvme0/cntlid", "value": "0"},
        {"host": "open_queue", "subject": "nvme0"},
        {"admin": "Migration Receive (Get Controller State)", "controller": "nvme0", "opcode": "0x42",
         "nsid": "0x00000000", "cdw10-15": "00010000 00000001 00000000 00000000 00000000 0000000b", "data_length": 48,
         "status": "0x0000", "result": "0x0000000000000000",
         "data_in": [
           "0000: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
           "0010: 0e 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00",
           "0020: zero * 16"
         ]}
      ]
    }

One event is one call of :class:`~nvmelm.host.Sysfs` (``sysfs``), :class:`~nvmelm.host.AdminQueue` (``admin``)
or :class:`~nvmelm.host.Host` (``host``), in the order of the calls. Process ids, pointers and host names never
stand in it. ``before`` holds the marks and journals the host kept when the session began, since verbs depend on them.
``docs/fixture-format.md`` describes every field.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from nvmelm.errors import MalformedError, host_error
from nvmelm.host.recording.events import Event, Model, clean
from nvmelm.host.recording.remembered import MAX_REMEMBERED, Remembered

MiB = 1 << 20

#: The format this program writes, and the only one it reads.
FORMAT = 1
#: A whole lab session is a few MiB; more than this is not a recording but an attack or an accident.
MAX_FILE_BYTES = 64 * MiB
MAX_EVENTS = 1_000_000
#: Lines of a rendered transcript are filled up to this column.
_COLUMNS = 118


class TranscriptSource(Model):
    """Where a transcript comes from.

    Attributes:
        recorded_on: the world it was recorded in, in words.
        kernel: ``uname -r`` there.
        nvmelm: the version that recorded it.
        edited: ``no``, or what a person changed afterwards.
    """

    recorded_on: str
    kernel: str
    nvmelm: str
    edited: str = "no"


class Transcript(Model):
    """A whole recording."""

    format: Literal[1] = 1
    about: str
    source: TranscriptSource
    before: dict[Remembered, list[str]] = Field(default_factory=dict, max_length=MAX_REMEMBERED)
    events: list[Event] = Field(max_length=MAX_EVENTS)

    def render(self) -> str:
        """Return the file's text: the same transcript always gives the same text."""
        return "".join(self._pieces())

    def _pieces(self) -> Iterator[str]:
        yield f'{{\n  "format": {self.format},\n  "about": {json.dumps(self.about)},\n'
        yield f'  "source": {json.dumps(self.source.model_dump())},\n'
        if self.before:
            yield f'  "before": {json.dumps(self.before, indent=1).replace(chr(10), chr(10) + "  ")},\n'
        yield '  "events": ['
        for number, event in enumerate(self.events):
            yield ",\n" if number else "\n"
            yield _render_event(event.model_dump(exclude_defaults=True, by_alias=True))
        yield "\n  ]\n}\n" if self.events else "]\n}\n"

    @classmethod
    def parse(cls, raw: bytes, name: str) -> Transcript:
        """Read a file's bytes; ``name`` is used in messages.

        Raises:
            MalformedError: not a transcript, of another format version, or beyond the limits of this module.
        """
        fix = "docs/fixture-format.md describes the format"
        if len(raw) > MAX_FILE_BYTES:
            raise MalformedError(f"{name}: longer than {MAX_FILE_BYTES // MiB} MiB", fix=fix)
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise MalformedError(f"{name}: not JSON", cause=str(error), fix=fix) from error
        written_as = document.get("format") if isinstance(document, dict) else None
        if type(written_as) is not int or written_as != FORMAT:
            cause = f"its format is {str(written_as)[:20]!r}; this program reads {FORMAT}"
            raise MalformedError(f"{name}: not a transcript this program reads", cause=cause, fix=fix)
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise MalformedError(f"{name}: {_first_problem(error)}", fix=fix) from error

    @classmethod
    def load(cls, path: Path) -> Transcript:
        """Read a file.

        Raises:
            HostError: it cannot be read.
            MalformedError: see :meth:`parse`.
        """
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise host_error("cannot read the recording", str(path), error, fix="check the file's name") from error
        return cls.parse(raw, str(path))


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part)[:40] for part in first["loc"])
    return clean(f"{where}: {first['msg']}"[:300])


def _render_event(values: Mapping[str, Any]) -> str:
    """Return one event, its fields filled into lines; long lists get one line an item."""
    lines, line = [], "    {"
    for number, (key, value) in enumerate(values.items()):
        text = f"{json.dumps(key)}: {json.dumps(value)}"
        comma = "," if number + 1 < len(values) else ""
        is_block = key in ("data_in", "data_out")
        if number and (is_block or len(line) + len(text) + 3 > _COLUMNS):
            lines.append(line.rstrip())
            line = "     "
        if is_block or (isinstance(value, list) and len(line) + len(text) > _COLUMNS):
            items = ",\n".join(f"       {json.dumps(item)}" for item in value)
            text = f"{json.dumps(key)}: [\n{items}\n     ]"
        line += text + comma + " "
    return "\n".join([*lines, line.rstrip() + "}"])
