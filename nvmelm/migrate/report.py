"""What a migration did, as one document: who went where, how long the guest stood still, and what that is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nvmelm.documents import Record, Report, about
from nvmelm.migrate.request import Measured

if TYPE_CHECKING:
    from nvmelm.migrate.rounds.memory import MemoryRound
    from nvmelm.migrate.rounds.user_data import Written
    from nvmelm.migrate.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved(Record):
    """One controlled function that moved, or would."""

    source_cntlid: int
    destination_cntlid: int
    destination_address: str = field(metadata=about("PCI address of the VF at the destination"))
    held_by: str = field(
        metadata=about("who holds that VF there; empty: nobody, so a VM that opens it loses the state")
    )
    source_digest: str = field(metadata=about("of the source's manifest"))
    destination_digest: str = field(metadata=about("of the destination's manifest"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Downtime(Record):
    """From the suspend being sent to the answer to the resume, and its parts, microseconds."""

    total_us: int
    drain_us: int = field(metadata=about("until the suspends were answered"))
    get_us: int = field(metadata=about("reading the states at the source"))
    transfer_us: int = field(metadata=about("what sending added to that"))
    set_us: int = field(metadata=about("what setting them at the destination added"))
    resume_us: int = field(metadata=about("the resumes at the destination"))
    other_us: int = field(metadata=about("what is left: records, callouts, messages"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Round(Record):
    """One round of dirty tracking before the suspend; the last one after it."""

    cntlid: int
    number: int = field(metadata=about("from 1"))
    seconds: float = field(metadata=about("since the round before"))
    bytes: int = field(metadata=about("memory that was written in it"))
    extents: int = field(metadata=about("in so many ranges"))
    after_suspend: bool = field(metadata=about("the last one: nothing is added to it"))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRound(Record):
    """One round of logged user data before the suspend; the last one after it."""

    cntlid: int
    number: int = field(metadata=about("from 1"))
    seconds: float = field(metadata=about("since the round before"))
    blocks: int = field(metadata=about("logical blocks that were written in it, whole namespaces left out"))
    restart: bool = field(metadata=about("changes were lost, and everything had to be copied again"))
    after_suspend: bool = field(metadata=about("the last one: nothing is added to it"))


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateReport(Report):
    """The outcome of a migration, or its plan."""

    schema_name = "nvmelm.migrate"

    session: str = field(metadata=about("32 hexadecimal digits, the same on both hosts"))
    changed: bool
    dry_run: bool
    source_primary: str
    destination: str = field(metadata=about("where it was reached"))
    destination_primary: str
    controllers: tuple[Moved, ...]
    downtime: Downtime | None = field(metadata=about("null for a dry run"))
    state_bytes: int
    rehearsal_us: int = field(metadata=about("the dry transfer of the same size, before the suspend"))
    bytes_per_second: int = field(metadata=about("of the states, from the first command to the destination's word"))
    commands: int = field(metadata=about("admin commands on both hosts that carried state"))
    rounds: tuple[Round, ...]
    logged_rounds: tuple[LoggedRound, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateProgress(Report):
    """How far a state is; one line of a stream on stderr."""

    schema_name = "nvmelm.migrate_progress"

    bytes: int
    total_bytes: int
    bytes_per_second: int
    seconds_left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DirtyRound(Report):
    """What one controller wrote to guest memory in one round; one line of a stream."""

    schema_name = "nvmelm.dirty"

    cntlid: int
    round: int
    after_suspend: bool
    bytes: int
    extents: tuple[tuple[int, int], ...] = field(metadata=about("half-open ranges of bytes, sorted and disjoint"))


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenNamespace(Record):
    """What was written to one namespace."""

    nsid: int = field(metadata=about("4294967295: every namespace"))
    all: bool = field(metadata=about("any of its blocks may have changed"))
    blocks: tuple[tuple[int, int], ...] = field(
        metadata=about("half-open ranges of logical blocks, sorted and disjoint")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRound(Report):
    """What one controller wrote to its namespaces in one round; one line of a stream."""

    schema_name = "nvmelm.written"

    cntlid: int
    round: int
    after_suspend: bool
    restart: bool = field(metadata=about("changes were lost: everything has to be copied again"))
    namespaces: tuple[WrittenNamespace, ...]


def nothing_done(primary: str, destination: str, cntlids: Sequence[int], notes: tuple[str, ...] = ()) -> MigrateReport:
    """Return the report of a migration that did not begin."""
    moved = [_moved(cntlid) for cntlid in cntlids]
    nothing = Measured(notes=list(notes))
    return _report("", nothing, moved, changed=False, source_primary=primary, destination=destination)


def report_of(source: Source, destination: str, *, dry_run: bool) -> MigrateReport:
    """Return the report of a migration that succeeded, or that was looked at only."""
    agreed = source.agreed
    opened = agreed.opened if agreed else None
    verdicts = agreed.verdicts if agreed else ()
    pairs = list(zip(opened.pairs, opened.addresses, opened.held, verdicts, strict=True)) if opened else []
    moved = [
        _moved(pair.source, pair.destination or 0, address, held, (verdict.source_digest, verdict.destination_digest))
        for pair, address, held, verdict in pairs
    ]
    return _report(
        source.id,
        source.measured,
        moved,
        changed=not dry_run,
        dry_run=dry_run,
        source_primary=source.end.pf.address,
        destination=destination,
        destination_primary=opened.primary if opened else "",
    )


def _moved(
    source: int, destination: int = 0, address: str = "", held_by: str = "", digests: tuple[str, str] = ("", "")
) -> Moved:
    return Moved(
        source_cntlid=source,
        destination_cntlid=destination,
        destination_address=address,
        held_by=held_by,
        source_digest=digests[0],
        destination_digest=digests[1],
    )


def _report(
    session: str,
    measured: Measured,
    moved: Sequence[Moved],
    *,
    changed: bool,
    source_primary: str,
    destination: str,
    destination_primary: str = "",
    dry_run: bool = False,
) -> MigrateReport:
    return MigrateReport(
        session=session,
        changed=changed,
        dry_run=dry_run,
        source_primary=source_primary,
        destination=destination,
        destination_primary=destination_primary,
        controllers=tuple(moved),
        downtime=_downtime(measured) if measured.downtime_s is not None else None,
        state_bytes=measured.state_bytes,
        rehearsal_us=_us(measured.rehearsal_s),
        bytes_per_second=int(measured.state_bytes / measured.send_s) if measured.send_s else 0,
        commands=measured.commands,
        rounds=tuple(_round(tracked) for tracked in measured.rounds),
        logged_rounds=tuple(_logged_round(logged) for logged in measured.logged_rounds),
        notes=tuple(measured.notes),
    )


def _round(tracked: MemoryRound) -> Round:
    return Round(
        cntlid=tracked.cntlid,
        number=tracked.number,
        seconds=round(tracked.seconds, 6),
        bytes=tracked.bytes,
        extents=len(tracked.extents),
        after_suspend=tracked.after_suspend,
    )


def _logged_round(logged: Written) -> LoggedRound:
    return LoggedRound(
        cntlid=logged.cntlid,
        number=logged.number,
        seconds=round(logged.seconds, 6),
        blocks=logged.count,
        restart=logged.restart,
        after_suspend=logged.after_suspend,
    )


def _downtime(measured: Measured) -> Downtime:
    parts = (measured.drain_s, measured.get_s, measured.transfer_s, measured.set_s, measured.resume_s)
    total = measured.downtime_s or 0.0
    names = ("drain_us", "get_us", "transfer_us", "set_us", "resume_us")
    values = {name: _us(value) for name, value in zip(names, parts, strict=True)}
    return Downtime(total_us=_us(total), other_us=_us(max(0.0, total - sum(parts))), **values)


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
