"""``nvmelm fixture``: what a device answered, kept in a file: recorded, replayed, and shown as sentences.

Recordings are read by pydantic, 92 ms: the verbs import what reads them, so that help and a mistyped word need not.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from nvmelm.cli.frame import render
from nvmelm.cli.frame.app import run as command_line
from nvmelm.cli.frame.options import Pf, group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.documents import Report, about
from nvmelm.errors import UsageError
from nvmelm.inventory.pci import Bdf

app = group("What a device answered, kept in a file. --record FILE records any other verb.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="The recording.")]
Words = Annotated[list[str] | None, typer.Argument(metavar="[-- VERB...]", help="What to run on it; show as recorded.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded(Report):
    """A recording that was made."""

    schema_name = "nvmelm.recorded"

    path: str
    events: int
    redacted: bool = field(metadata=about("serial numbers and NQNs were replaced"))
    replay_with: str = field(metadata=about("the command line that replays it"))


@verb(app, "record")
def record(run: Run, file: File, pf: Pf) -> Answer:
    """Record a survey of a controlling function: what `show PF` asks of the host and the controller."""
    from nvmelm.host.recording.transcript import Transcript  # 87 ms with pydantic: help does without

    name = pf if _is_nobodys(pf) or not run.settings.redact else "PF"
    with run.recording(file, f"show {name}"), run.primary(pf) as primary:
        primary.picture(states=True)
    written = Transcript.load(file)
    again = f"nvmelm fixture replay {render.quote(str(file))} -- show {render.quote(name)}"
    document = Recorded(path=str(file), events=len(written.events), redacted=run.settings.redact, replay_with=again)
    return Answer(document, lambda: [f"{file}: {render.count(document.events, 'event')}", f"replay it with: {again}"])


def _is_nobodys(name: str) -> bool:
    """Return whether a PF's name says nothing of the very device, as its serial number would."""
    return Bdf.looks_like(name) or name.removeprefix("/dev/").removeprefix("nvme").isdecimal()


@verb(app, "replay")
def replay(run: Run, file: File, words: Words = None) -> int:
    """Run a verb on a recording, strictly: every question in its order, every field, nothing left over."""
    json = ["--json"] if run.settings.json else []
    return command_line([*json, "--host", f"replay:{file}", *(words or _recorded_words(file))])


def _recorded_words(file: Path) -> list[str]:
    """Return the verb that a recording says it is of.

    Raises:
        UsageError: it does not say.
    """
    from nvmelm.host.recording.transcript import Transcript  # as above: a verb that is named needs none

    about = Transcript.load(file).about
    words = shlex.split(about) if about.startswith("nvmelm ") and about.isprintable() else []
    if not words or words[1].startswith("-"):
        fix = f"nvmelm fixture replay {render.quote(str(file))} -- show PF"
        raise UsageError(f"{file} does not say what was run", cause="it was recorded or named by hand", fix=fix)
    return words[1:]


@verb(app, "show")
def show(_: Run, file: File) -> Answer:
    """Show a recording's events as sentences."""
    from nvmelm.cli.views.transcripts import describe  # 90 ms: it reads recordings

    recording = describe(file)
    width = len(str(len(recording.events)))

    def lines() -> Iterator[str]:
        yield f"{file}: {render.plain(recording.about) or 'a recording'}"
        yield render.plain(f"recorded on {recording.recorded_on}, Linux {recording.kernel}, edited: {recording.edited}")
        for event in recording.events:
            outcome = f" = {event.outcome}" if event.outcome else ""
            yield render.plain(f"{event.number:{width}}. {event.sentence}{outcome}")

    return Answer(recording, lines)
