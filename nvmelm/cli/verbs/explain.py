"""``nvmelm explain``: a code in words. An NVMe status, an exit code, an errno, a reason, or the word of an outcome."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from nvmelm.cli.frame import codes, render
from nvmelm.cli.frame.options import group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.compat.reasons import explanation
from nvmelm.documents import Record, Report
from nvmelm.errors import ExitCode, UsageError
from nvmelm.reasons import REASONS
from nvmelm.wire.status import Status, lookup

app = group("Codes in words.")

_TITLES = {"nvme_status": "NVMe status", "exit_code": "exit code", "errno": "errno", "reason": "reason"}
Code = Annotated[str, typer.Argument(metavar="CODE", help="1h/3Ah, 0x13a, a name, EBUSY, an exit code or a reason.")]


Kind = Literal["nvme_status", "exit_code", "errno", "reason"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning(Record):
    """One thing a code can mean, and what to do about it."""

    kind: Kind
    code: str
    name: str
    meaning: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(Report):
    """What a code means; a bare number can mean several things."""

    schema_name = "nvmelm.explanation"

    asked: str
    meanings: tuple[Meaning, ...]


@verb(app, "explain")
def explain(_: Run, code: Code) -> Answer:
    """Explain a code: an NVMe status, an exit code, an errno, or the reason in an error's JSON."""
    explanation = Explanation(asked=code, meanings=tuple(_meanings(code.strip())))
    if not explanation.meanings:
        raise UsageError(
            f"{code!r} is no code nvmelm knows",
            cause=f"it is no NVMe status, exit code ({exit_codes()}), errno or reason",
            fix="nvmelm explain 1h/3Ah, nvmelm explain EBUSY, nvmelm explain 9",
        )
    return Answer(explanation, lambda: _lines(explanation))


def exit_codes() -> str:
    """Return the exit codes there are, ``0 to 10, 130``: those in a row, and that of Ctrl-C."""
    in_a_row = max(code for code in ExitCode if code is not ExitCode.INTERRUPTED)
    return f"{min(ExitCode):d} to {in_a_row:d}, {ExitCode.INTERRUPTED:d}"


def _meanings(code: str) -> Iterator[Meaning]:
    """Return everything a code can mean; a bare number may be an exit code, an errno and a status at once."""
    number = int(code) if code.isascii() and code.isdecimal() and len(code) < 6 else None
    if number in list(ExitCode):
        exit_code = ExitCode(number)
        yield _of("exit_code", str(number), exit_code.name.lower(), codes.EXIT_CODES[exit_code])
    name = errno.errorcode.get(number or 0) or code.upper()
    if name in errno.errorcode.values():
        value = getattr(errno, name)
        row = codes.ERRNOS.get(name, codes.Row(os.strerror(value), "dmesg | tail"))
        yield _of("errno", str(value), name, row)
    if code in REASONS:
        yield _of("reason", code, code, codes.Row(*REASONS[code]))
    if code in codes.OUTCOMES:
        yield _of("reason", code, code, codes.OUTCOMES[code])
    judged = explanation(code)
    if judged is not None:
        yield _of("reason", code, code, codes.Row(*judged))
    status = _status(code)
    if status is not None and (number is None or status.known):
        yield _of("nvme_status", status.text, status.name, codes.Row(status.cause, status.fix))


def _status(code: str) -> Status | None:
    try:
        return lookup(code)
    except UsageError:
        return None


def _of(kind: Kind, code: str, name: str, row: codes.Row) -> Meaning:
    return Meaning(kind=kind, code=code, name=name, meaning=row.meaning, fix=row.fix)


def _lines(explanation: Explanation) -> Iterator[str]:
    for number, meaning in enumerate(explanation.meanings):
        if number:
            yield ""
        name = "" if meaning.name == meaning.code else f", {meaning.name}"
        yield f"{_TITLES[meaning.kind]} {meaning.code}{name}"
        yield from render.wrapped("  means: ", render.plain(meaning.meaning), sys.stdout)
        yield from render.wrapped("  do:    ", render.plain(meaning.fix), sys.stdout)
