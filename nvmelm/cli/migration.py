"""What ``nvmelm migrate`` does between the arguments and the answer."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from nvmelm.cli import render
from nvmelm.cli.run import Answer, Run
from nvmelm.compat.policy import MAX_BYTES, Policy
from nvmelm.errors import MalformedError, NvmelmError
from nvmelm.migrate.address import Address
from nvmelm.migrate.interrupts import interruptible
from nvmelm.migrate.link import Link
from nvmelm.migrate.outcome import MigrateReport, report_of
from nvmelm.migrate.points import Points
from nvmelm.migrate.remote import connected
from nvmelm.migrate.source import Source, Wishes
from nvmelm.operations.ownership import Sessions
from nvmelm.operations.session import Session
from nvmelm.transport.bounded import read_file


class Migration:
    """One run of the verb."""

    def __init__(self, run: Run, session: Session, address: Address, points: Points, *, rsh: str, program: str) -> None:
        self._run = run
        self._session = session
        self._address = address
        self._points = points
        self._rsh = rsh
        self._program = program

    def move(self, wishes: Wishes) -> Answer:
        """Move, or look whether that could be done."""
        with interruptible(), Sessions(self._run.host()) as sessions, self._connect() as link:
            source = Source(
                self._session,
                sessions,
                link,
                wishes,
                self._points,
                name=os.uname().nodename,
                reconnect=self._connect,
            )
            source.open()
            dry_run = self._run.dry_run
            if dry_run:
                source.leave()
            else:
                try:
                    self._confirm(source)
                except NvmelmError:
                    source.leave()
                    raise
                source.move(progress=self._run.progress("moving"))
        report = report_of(source, str(self._address), dry_run=dry_run)
        return Answer(report, lambda: lines(report))

    def _connect(self) -> AbstractContextManager[Link]:
        return connected(self._address, rsh=self._rsh, program=self._program)

    def _confirm(self, source: Source) -> None:
        """Ask about targets that nobody holds: a VM that opens one later resets it, and the state is lost."""
        opened = source.opened
        if opened is None:
            return
        alone = [address for address, held in zip(opened.addresses, opened.held, strict=True) if not held]
        if alone:
            names = ", ".join(alone)
            self._run.confirm(
                f"nobody holds {names} at {self._address.name}: a VM that opens it later resets it and loses the "
                "state. Move it there all the same?"
            )


def policy_of(file: Path | None) -> Policy | None:
    """Read the site's rules.

    Raises:
        HostError, MalformedError: the file cannot be read, or is none.
    """
    return Policy.parse(read_file(file, MAX_BYTES)) if file is not None else None


def agreed_of(file: Path | None) -> tuple[str, str] | None:
    """Read which manifests a verdict was given for.

    Raises:
        HostError, MalformedError: the file cannot be read, or is no verdict.
    """
    if file is None:
        return None
    try:
        verdict: Any = json.loads(read_file(file, MAX_BYTES))
        if verdict["schema"] == "nvmelm.verdict" and verdict["compatible"] is True:
            return str(verdict["source_digest"]), str(verdict["destination_digest"])
        cause = "it says that they are not compatible"
    except (ValueError, KeyError, TypeError):
        cause = "it is not what nvmelm compat check --json prints"
    raise MalformedError(
        f"{file} is no verdict to rest on",
        cause=cause,
        fix="nvmelm compat check SOURCE DESTINATION --json > FILE",
        reason="verdict-unusable",
    )


def lines(report: MigrateReport) -> Iterator[str]:
    """Show what was moved, and what it took."""
    paint = render.Paint(sys.stdout)
    which = ", ".join(f"{render.cntlid(one.source_cntlid)}" for one in report.controllers)
    verb = "can move" if report.dry_run else "moved"
    where = f"{render.plain(report.destination)} ({render.plain(report.destination_primary)})"
    yield paint.good(f"{which} {verb} from {report.source_primary} to {where}")
    for one in report.controllers:
        there = f"{render.cntlid(one.destination_cntlid)}, {render.plain(one.destination_address)}"
        holder = f", held by {render.plain(one.held_by)}" if one.held_by else ", held by nobody"
        yield f"  {render.cntlid(one.source_cntlid)} -> {there}{holder}"
    if report.dry_run:
        yield "source and destination fit; nothing was changed"
    yield from _downtime(report)
    for note in report.notes:
        yield from render.wrapped("note: ", render.plain(note), sys.stdout)


def _downtime(report: MigrateReport) -> Iterator[str]:
    down = report.downtime
    if down is None:
        return
    parts: Sequence[tuple[str, int]] = (
        ("drain", down.drain_us),
        ("get", down.get_us),
        ("transfer", down.transfer_us),
        ("set", down.set_us),
        ("resume", down.resume_us),
        ("other", down.other_us),
    )
    yield f"the guest stood still for {_ms(down.total_us)}: " + ", ".join(f"{name} {_ms(us)}" for name, us in parts)
    rate = f" at {render.size(report.bytes_per_second)}/s" if report.bytes_per_second else ""
    yield f"{render.size(report.state_bytes)} of state{rate}, {report.commands} commands; session {report.session}"


def _ms(microseconds: int) -> str:
    return f"{microseconds / 1000:.1f} ms"
