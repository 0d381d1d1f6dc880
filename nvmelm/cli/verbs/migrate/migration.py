"""What ``nvmelm migrate`` does between the arguments and the answer."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO

from nvmelm.cli.frame import render
from nvmelm.cli.frame.aside import ASIDE
from nvmelm.cli.frame.run import Answer, Run
from nvmelm.compat.policy import MAX_BYTES
from nvmelm.disk.atomic import AtomicFile, is_stream, new_file, require_free, unnamed_file
from nvmelm.disk.bounded import read_file
from nvmelm.errors import HostError, MalformedError, NvmelmError, host_error
from nvmelm.host import Progress
from nvmelm.inventory.address import Address
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.read import resolve
from nvmelm.inventory.suspension import saved_at
from nvmelm.migrate.callouts.points import Points
from nvmelm.migrate.end import End
from nvmelm.migrate.gate import choose
from nvmelm.migrate.link.frames import Link
from nvmelm.migrate.link.remote import connected
from nvmelm.migrate.report import MigrateReport, nothing_done, report_of
from nvmelm.migrate.request import MigrationRequest
from nvmelm.migrate.rounds import memory, user_data
from nvmelm.migrate.rounds.tracks import Start
from nvmelm.migrate.source import Source
from nvmelm.ownership.sessions import Sessions
from nvmelm.process.interrupts import interruptible

#: Seconds between two lines of progress.
_SAID_EVERY_S = 0.25


class Logs(NamedTuple):
    """What is to be known of the controllers' writes before the suspend.

    Attributes:
        ranges: guest memory to track, ``BASE:LENGTH``.
        dirty: where each round of it is written, one JSON object a line.
        written: where each round of user data is; None: it is not logged.
    """

    ranges: Sequence[str] = ()
    dirty: Path | None = None
    written: Path | None = None


class Migration:
    """One run of the verb."""

    def __init__(
        self,
        run: Run,
        pf: OpenPrimary,
        address: Address,
        points: Points,
        *,
        rsh: str,
        program: str,
        silence_s: float,
    ) -> None:
        self._run = run
        self._pf = pf
        self._address = address
        self._points = points
        self._rsh = rsh
        self._program = program
        self._silence_s = silence_s

    def move(self, request: MigrationRequest, logs: Logs, page: Path | None = None) -> Answer:
        """Move, or look whether that could be done.

        Args:
            page: where a page about the move is written.
        """
        sources: list[Source] = []
        try:
            report = self._moved(request, logs, sources)
        except NvmelmError as error:
            if page is not None and not self._run.dry_run:
                written = self._write_page(page, self._report(sources, request, failed=True), error)
                if written:
                    error.add_note(written)
            raise
        written = self._write_page(page, report) if page is not None and not self._run.dry_run else ""
        return Answer(report, lambda: [*lines(report), *([render.plain(written)] if written else ())])

    def _moved(self, request: MigrationRequest, logs: Logs, sources: list[Source]) -> MigrateReport:
        dry_run, force = self._run.dry_run, self._run.settings.force
        with (
            interruptible(),
            RoundsFile(logs.dirty, replace=force, option="--dirty") as dirty,
            RoundsFile(logs.written, replace=force, option="--log-user-data") as written,
            Sessions(self._run.host()) as sessions,
        ):
            # What this host refuses by itself is refused before anybody is called.
            choose(self._pf, sessions, [cntlid for cntlid, _ in request.pairs])
            tracks = self._tracks(logs, dirty, written)
            with self._connect() as link:
                end = End(self._pf, sessions, link, self._points, os.uname().nodename, self._connect)
                source = Source(end, request)
                sources.append(source)
                self._open(source)
                if dry_run:
                    source.leave()
                else:
                    source.move(tracks=tracks, progress=self._progress())
        return self._report(sources, request)

    def _report(self, sources: Sequence[Source], request: MigrationRequest, *, failed: bool = False) -> MigrateReport:
        """Return what the move did; one that failed before it met the other host did nothing."""
        where, dry_run = str(self._address), self._run.dry_run
        if not sources:
            return nothing_done(self._pf.address, where, [cntlid for cntlid, _ in request.pairs])
        report = report_of(sources[0], where, dry_run=dry_run)
        return replace(report, changed=False) if failed else report

    def _open(self, source: Source) -> None:
        try:
            source.open(dry_run=self._run.dry_run)
            if not self._run.dry_run:
                self._confirm(source)
        except NvmelmError:
            source.leave()
            raise

    def _tracks(self, logs: Logs, dirty: RoundsFile, written: RoundsFile) -> list[Start]:
        """Return what is to be begun before the suspend; what host or device cannot is refused here."""
        extents = [memory.parse_range(text) for text in logs.ranges]
        if not extents and logs.written is None:
            return []
        primary = self._pf.picture(users=False).primary
        starts: list[Start] = []
        if logs.written is not None:
            starts.append(user_data.starter(self._run.host(), primary, lambda logged: written.write(blocks_of(logged))))
        if extents:
            starts.append(memory.starter(primary, extents, lambda tracked: dirty.write(memory_of(tracked))))
        return starts

    def _write_page(self, path: Path, report: MigrateReport, failure: NvmelmError | None = None) -> str:
        """Write the page, and return a sentence that names it, or nothing.

        What was moved is moved, so a disk that is full is said and does not make it a failure.
        """
        from nvmelm.migrate.report_page import Origin, page  # 3 ms, seldom wanted

        origin = Origin(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC", os.uname().nodename)
        try:
            with AtomicFile(path, replace=self._run.settings.force) as file:
                file.write(page(report, origin, failure).encode())
                file.commit()
        except NvmelmError as error:
            self._run.say(f"the page was not written: {error.message}")
            return ""
        return f"the page about it: {path}"

    def _progress(self) -> Progress:
        """Return what shows how far the states are: a bar for people, a line of JSON now and then for programs."""
        return JsonProgress() if self._run.settings.json else self._run.progress("moving")

    def _connect(self) -> AbstractContextManager[Link]:
        return connected(self._address, rsh=self._rsh, program=self._program, silence_s=self._silence_s)

    def _confirm(self, source: Source) -> None:
        """Ask about what a move can destroy that neither host can see.

        A saved state may have been restored, and run, elsewhere. A target that nobody holds is reset by the VM that
        opens it later, and the state is lost.
        """
        picture = self._pf.picture(users=False)
        for cntlid, _ in source.request.pairs:
            saved = saved_at(self._pf.host, picture.primary, resolve(picture, cntlid))
            if saved:
                self._run.confirm(
                    f"the state of {cntlid:#06x} was saved at {saved}; if it was resumed elsewhere, moving it makes "
                    "two running copies of one controller. Move it all the same?"
                )
        if source.agreed is None:
            return
        opened = source.agreed.opened
        alone = [address for address, held in zip(opened.addresses, opened.held, strict=True) if not held]
        if alone:
            names = ", ".join(alone)
            self._run.confirm(
                f"nobody holds {names} at {self._address.name}: a VM that opens it later resets it and loses the "
                "state. Move it there all the same?"
            )


class JsonProgress:
    """Says on stderr how far a transfer is, one JSON object a line, a few times a second."""

    def __init__(self) -> None:
        self._started = self._said = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Say it, unless it was said a moment ago; the end is always said."""
        now = time.monotonic()
        if now < self._said + _SAID_EVERY_S and done < total:
            return
        self._said = now
        rate = done / max(now - self._started, 1e-6)
        body = {
            "schema": "nvmelm.migrate_progress",
            "version": 1,
            "bytes": done,
            "total_bytes": total,
            "bytes_per_second": int(rate),
            "seconds_left": round((total - done) / rate, 3) if rate else None,
        }
        ASIDE.write(sys.stderr, json.dumps(body) + "\n", passing=True)


class RoundsFile:
    """Where rounds are written, one JSON object a line, for the owner alone; without a file, nowhere.

    It is opened with the first round: a migration that is refused before leaves what was there.

    Args:
        replace: a file that is there may be replaced.
        option: the one that names it.

    Raises:
        UsageError: the name is a link's or a directory's.
        NotReadyError: a file is there, and may not be replaced.
        HostError: it cannot be written.
    """

    def __init__(self, path: Path | None, *, replace: bool = False, option: str = "--dirty") -> None:
        self._path = path
        self._option = option
        self._replace = replace
        self._file: TextIO | None = None

    def write(self, body: Mapping[str, Any]) -> None:
        """Write one round, and do not return before it is out: the caller copies what is in it."""
        if self._path is None:
            return
        try:
            if self._file is None:
                self._file = os.fdopen(new_file(self._path, replace=self._replace), "w", encoding="ascii")
            self._file.write(json.dumps(body) + "\n")
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._option, self._path, error) from error

    def __enter__(self) -> Self:
        if self._path is not None:
            require_place(self._option, self._path, replace=self._replace)
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


def require_place(option: str, place: Path, *, replace: bool) -> None:
    """Refuse a file that could not be written, before anything moves; nothing is changed.

    Args:
        option: the one that names it, for the error.

    Raises:
        UsageError: the name is a link's or a directory's.
        NotReadyError: a file is there, and may not be replaced.
        HostError: its directory is none, is not there, or may not be written.
    """
    if place.exists() and is_stream(place):  # opening a pipe waits for its reader
        return
    try:
        require_free(place, replace=replace)
        os.close(unnamed_file(place.parent))  # what os.access does not tell: a read-only or full file system
    except HostError as error:
        raise _unwritable(option, place, OSError(error.errno, os.strerror(error.errno))) from error
    except NvmelmError as error:
        error.message = f"{option}: {error.message}"
        raise


def _unwritable(option: str, path: Path, error: OSError) -> HostError:
    fix = f"{option} FILE, in a directory that is there and may be written"
    return host_error(f"cannot write the file of {option}", str(path), error, fix=fix)


def memory_of(tracked: memory.MemoryRound) -> dict[str, Any]:
    """Return a round of tracked memory as a line has it."""
    return {
        "schema": "nvmelm.dirty",
        "version": 1,
        "cntlid": tracked.cntlid,
        "round": tracked.number,
        "after_suspend": tracked.after_suspend,
        "bytes": tracked.bytes,
        "extents": [[extent.start, extent.end] for extent in tracked.extents],
    }


def blocks_of(logged: user_data.Written) -> dict[str, Any]:
    """Return a round of logged user data as a line has it."""
    ranges = [
        {"nsid": nsid, "all": False, "blocks": [[extent.start, extent.end] for extent in extents]}
        for nsid, extents in logged.blocks.items()
    ]
    return {
        "schema": "nvmelm.written",
        "version": 1,
        "cntlid": logged.cntlid,
        "round": logged.number,
        "after_suspend": logged.after_suspend,
        "restart": logged.restart,
        "namespaces": [*ranges, *({"nsid": nsid, "all": True, "blocks": []} for nsid in logged.whole)],
    }


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
    except (ValueError, KeyError, TypeError, RecursionError):
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
    which = ", ".join(f"{render.cntlid(controller.source_cntlid)}" for controller in report.controllers)
    verb = "can move" if report.dry_run else "moved"
    where = f"{render.plain(report.destination)} ({render.plain(report.destination_primary)})"
    yield paint.good(f"{which} {verb} from {report.source_primary} to {where}")
    for controller in report.controllers:
        target = f"{render.cntlid(controller.destination_cntlid)}, {render.plain(controller.destination_address)}"
        holder = f", held by {render.plain(controller.held_by)}" if controller.held_by else ", held by nobody"
        yield f"  {render.cntlid(controller.source_cntlid)} -> {target}{holder}"
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
    commands = render.count(report.commands, "command")
    yield f"{render.size(report.state_bytes)} of state{rate}, {commands}; session {report.session}"


def _ms(microseconds: int) -> str:
    return f"{microseconds / 1000:.1f} ms"
