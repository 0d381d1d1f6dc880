"""The JSON documents of the command line alone; those of the operations are in :mod:`nvmelm.documents`."""

from __future__ import annotations

from dataclasses import dataclass, field

from nvmelm.documents import Record, Report, about
from nvmelm.errors import HostError, NvmelmError, RolledBackError, causes


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusView(Record):
    """An NVMe status as a completion carries it."""

    value: int = field(metadata=about("status field without the phase bit, 15 bits"))
    sct: int = field(metadata=about("status code type"))
    sc: int = field(metadata=about("status code"))
    name: str
    dnr: bool = field(metadata=about("do not retry"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDocument(Report):
    """Why a verb did not do what it was asked."""

    schema_name = "nvmelm.error"

    command: str = field(metadata=about("the verb, such as: sriov enable"))
    kind: str
    reason: str = field(metadata=about("a stable word; nvmelm explain knows it"))
    message: str
    cause: str
    fix: str
    exit_code: int
    errno: int | None
    errno_name: str | None
    path: str | None
    nvme_status: StatusView | None
    rolled_back: bool = field(metadata=about("every change that had been made was undone"))
    notes: tuple[str, ...] = field(metadata=about("what went wrong besides, while undoing for instance"))


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
