"""The JSON documents of the command line alone; those of the operations are in :mod:`nvmelm.documents`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from nvmelm.documents import ChangeReport, Document, Part
from nvmelm.errors import HostError, NvmelmError, RolledBackError, causes


class StatusView(Part):
    """An NVMe status as a completion carries it."""

    value: int = Field(description="status field without the phase bit, 15 bits")
    sct: int = Field(description="status code type")
    sc: int = Field(description="status code")
    name: str
    dnr: bool = Field(description="do not retry")


class ErrorDocument(Document):
    """Why a verb did not do what it was asked."""

    schema_name = "nvmelm.error"

    command: str = Field(description="the verb, such as: sriov enable")
    kind: str
    reason: str = Field(description="a stable word; nvmelm explain knows it")
    message: str
    cause: str
    fix: str
    exit_code: int
    errno: int | None
    errno_name: str | None
    path: str | None
    nvme_status: StatusView | None
    rolled_back: bool = Field(description="every change that had been made was undone")
    notes: tuple[str, ...] = Field(description="what went wrong besides, while undoing for instance")


def error_document(error: NvmelmError, command: str) -> ErrorDocument:
    """Return the document of an error."""
    host = error if isinstance(error, HostError) else None
    return ErrorDocument(
        command=command,
        kind=error.kind,
        reason=error.word,
        message=error.message,
        cause=error.cause,
        fix=error.fix,
        exit_code=int(error.exit_code),
        errno=host.errno if host and host.errno else None,
        errno_name=host.errno_name if host and host.errno else None,
        path=host.path if host and host.path else None,
        nvme_status=_status(error),
        rolled_back=error.rolled_back or isinstance(error, RolledBackError),
        notes=tuple(getattr(error, "__notes__", ())),
    )


def _status(error: BaseException | None) -> StatusView | None:
    """Return the NVMe status an error stands for, its own or that of the error it was raised from."""
    from nvmelm.commands import AdminCommandError  # here: most errors end a verb before it has sent a command

    refused = next((cause for cause in causes(error) if isinstance(cause, AdminCommandError)), None)
    if refused is None:
        return None
    status = refused.status
    return StatusView(value=status.value, sct=status.sct, sc=status.sc, name=status.name, dnr=bool(status.dnr))


class Meaning(Part):
    """One thing a code can mean, and what to do about it."""

    kind: Literal["nvme_status", "exit_code", "errno", "reason"]
    code: str
    name: str
    meaning: str
    fix: str


class Explanation(Document):
    """What a code means; a bare number can mean several things."""

    schema_name = "nvmelm.explanation"

    asked: str
    meanings: tuple[Meaning, ...]


class Changes(Document):
    """What a verb did to several controlling functions, one after another."""

    schema_name = "nvmelm.changes"

    changed: bool
    reports: tuple[ChangeReport, ...]


class Recorded(Document):
    """A recording that was made."""

    schema_name = "nvmelm.recorded"

    path: str
    events: int
    redacted: bool = Field(description="serial numbers and NQNs were replaced")
    replay_with: str = Field(description="the command line that replays it")


class TranscriptEvent(Part):
    """One event of a recording."""

    number: int = Field(description="1-based")
    kind: Literal["admin", "sysfs", "host"]
    sentence: str
    outcome: str


class TranscriptView(Document):
    """A recording in sentences."""

    schema_name = "nvmelm.transcript"

    path: str
    about: str
    recorded_on: str
    kernel: str
    nvmelm: str
    edited: str
    events: tuple[TranscriptEvent, ...]


class EmulatedHostMade(Document):
    """An emulated host that was made."""

    schema_name = "nvmelm.emulated_host"

    directory: str
    devices: tuple[str, ...] = Field(description="the generation of each physical function, in order")
    use_with: str = Field(description="a command line that looks at it")


class ArmedFault(Part):
    """Something that is to go wrong."""

    fault: str = Field(description="as it is typed")
    skip: int = Field(description="matching events that still go well")
    times: int = Field(description="how often it then strikes")


class ArmedFaults(Document):
    """The faults of an emulated host that have not struck yet."""

    schema_name = "nvmelm.faults"

    faults: tuple[ArmedFault, ...]


class Generation(Part):
    """A kind of device that can be emulated."""

    name: str
    about: str


class Generations(Document):
    """The kinds of device that can be emulated."""

    schema_name = "nvmelm.generations"

    generations: tuple[Generation, ...]


class GuestReport(Document):
    """What the guest of an emulated virtual machine has seen of its function."""

    schema_name = "nvmelm.guest"

    clean: bool = Field(description="nothing was lost, doubled, misdirected or wrong")
    submitted: int
    completed: int
    verified: int = Field(description="reads whose data was the newest written")
    outstanding: int
    lost: int
    doubled: int = Field(description="completions of commands that were complete already, or never sent")
    misdirected: int = Field(description="completions that came through the wrong queue")
    errors: tuple[str, ...]
