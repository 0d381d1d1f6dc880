"""A recording in sentences: what was asked of the host and its controllers, and what they said."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nvmelm.commands.describe import describe as describe_command
from nvmelm.documents import Record, Report, about
from nvmelm.host import AdminCommand
from nvmelm.host.recording.events import AdminEvent, Event, HostEvent, RecordedFault, SysfsEvent
from nvmelm.host.recording.transcript import Transcript
from nvmelm.wire.status import Status

_QUESTIONS = {
    "openers": "who has open",
    "exclusively_held": "which disks the kernel has claimed",
    "mounts": "what is mounted",
    "claims": "what driverctl and libvirt bind themselves",
    "node_exists": "is there /dev/",
    "load_module": "load module ",
    "facts": "which kernel, which boot, privileged?",
    "open_queue": "open the admin queue of ",
    "max_transfer": "most bytes one command of this controller carries: ",
}


Kind = Literal["admin", "sysfs", "host"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptEvent(Record):
    """One event of a recording."""

    number: int = field(metadata=about("1-based"))
    kind: Kind
    sentence: str
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscriptView(Report):
    """A recording in sentences."""

    schema_name = "nvmelm.transcript"

    path: str
    about: str
    recorded_on: str
    kernel: str
    nvmelm: str
    edited: str
    events: tuple[TranscriptEvent, ...]


def describe(file: Path) -> TranscriptView:
    """Return a recording's events as sentences.

    Raises:
        HostError, MalformedError: see :meth:`Transcript.load`.
    """
    transcript = Transcript.load(file)
    events = tuple(_event(number, event) for number, event in enumerate(transcript.events, 1))
    source = transcript.source
    return TranscriptView(
        path=str(file),
        about=transcript.about,
        recorded_on=source.recorded_on,
        kernel=source.kernel,
        nvmelm=source.nvmelm,
        edited=source.edited,
        events=events,
    )


def _event(number: int, event: Event) -> TranscriptEvent:
    kind: Kind
    if isinstance(event, AdminEvent):
        kind, sentence, outcome = "admin", f"{event.controller}: {describe_command(_command(event))}", _status(event)
    elif isinstance(event, SysfsEvent):
        kind, sentence, outcome = "sysfs", *_sysfs(event)
    else:
        kind, sentence, outcome = "host", *_host(event)
    outcome = _fault(event.error) if event.error else outcome
    return TranscriptEvent(number=number, kind=kind, sentence=sentence, outcome=outcome)


def _command(event: AdminEvent) -> AdminCommand:
    cdw10, cdw11, cdw12, cdw13, cdw14, cdw15 = event.words
    return AdminCommand(
        name=event.admin,
        opcode=event.opcode,
        nsid=event.nsid,
        cdw2=event.cdw2,
        cdw3=event.cdw3,
        data_in_length=event.data_length,
        cdw10=cdw10,
        cdw11=cdw11,
        cdw12=cdw12,
        cdw13=cdw13,
        cdw14=cdw14,
        cdw15=cdw15,
    )


def _status(event: AdminEvent) -> str:
    if not event.status:
        return f"success, result {event.result:#x}" if event.result else "success"
    return str(Status(event.status))


def _sysfs(event: SysfsEvent) -> tuple[str, str]:
    if event.sysfs == "write":
        return f"write {event.text.strip() or 'a newline'} to {event.path}", ""
    if isinstance(event.value, list) and event.sysfs != "read":
        return f"{event.sysfs} {event.path}", ", ".join(event.value) or "empty"
    if event.value is None:
        return f"{event.sysfs} {event.path}", "there is none"
    value = event.text.replace("\n", " | ") if event.sysfs == "read" else str(event.value)
    return f"{event.sysfs} {event.path}", value


def _host(event: HostEvent) -> tuple[str, str]:
    question = _QUESTIONS[event.host] + event.subject
    if event.nodes is not None:
        question += " " + ", ".join(f"/dev/{node}" for node in event.nodes)
    value = event.value
    if isinstance(value, list):
        return question, "; ".join(str(item) for item in value) or "none"
    return question, "" if value is None else str(value)


def _fault(fault: RecordedFault) -> str:
    return f"refused: {fault.message}"
