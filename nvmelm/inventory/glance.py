"""A host at a glance: controlling functions, what is in use below them, VMs, and moves, now and before.

Each part is read by itself: a controller that does not answer, a right that is missing or a file that is damaged takes
nothing away from the others. What could not be read is said, and why. Nothing is changed, and no lock is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, TypeVar

from nvmelm import __version__
from nvmelm.documents import Record, Report, about
from nvmelm.errors import ExitCode, NvmelmError, OwnFileError, PermissionDeniedError
from nvmelm.host import Host
from nvmelm.inventory import pci
from nvmelm.inventory.find import PrimaryRef, known_text, primaries
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Mark, MovedAway, Picture, Secondary

T = TypeVar("T")

_ONLY_ROOT = "only root may ask the controllers"
_NOT_RECORDED = "a recording holds the device and the marks, and nothing of this"


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionGlance(Record):
    """A controlled function that is in use in some way: enabled, online, with resources, marked, or moved away."""

    cntlid: int | None = field(metadata=about("null: the controller could not be asked"))
    vf_number: int = field(metadata=about("1-based; 0: not a virtual function"))
    address: str | None
    state: str | None = field(metadata=about("online, offline, suspended; null: the controller could not be asked"))
    driver: str | None
    used_by: tuple[str, ...]
    mark: Mark | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryGlance(Record):
    """A controlling function, with those below it that are in use."""

    node: str
    address: str
    serial: str
    model: str
    vfs_enabled: int
    vfs_total: int
    live_migration: bool | None = field(metadata=about("null: it could not be asked"))
    functions: tuple[FunctionGlance, ...]
    moved: tuple[MovedAway, ...] = field(metadata=about("controllers that were moved to another host, and are offline"))
    unused: int = field(metadata=about("controlled functions that are not in use"))
    suspension_unknown: str | None = field(metadata=about("why it is not known which are suspended"))
    problem: str = field(metadata=about("why it could not be asked; empty: it was, or only root may"))
    exit_code: int = field(metadata=about("what asking it alone would end with"))


@dataclass(frozen=True, slots=True, kw_only=True)
class VmGlance(Record):
    """A function that a VM has open which moves with it."""

    vm: str
    pid: int
    running: bool = field(metadata=about("the VMM's process is still there"))
    address: str
    primary: str
    cntlid: int
    state: str = field(metadata=about("of VFIO's migration protocol, in its words"))
    suspended: bool
    since: str
    refusal: str = field(metadata=about("the last reason that something was refused, or empty"))


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionGlance(Record):
    """A move of controllers between two hosts, as this host has written it down."""

    session: str = field(metadata=about("32 hexadecimal digits, the same on both hosts"))
    side: str = field(metadata=about("source or destination"))
    state: str = field(metadata=about("docs/ownership.md"))
    over: bool = field(metadata=about("nothing is left to be decided here"))
    given_up: bool = field(metadata=about("an operator let the copy here go"))
    peer: str = field(metadata=about("where the other host is reached, or empty"))
    primary: str
    cntlids: tuple[int, ...]
    peer_cntlids: tuple[int, ...] = field(metadata=about("what they are at the other host, in the same order"))
    opened_at: str
    changed_at: str
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGlance(Record):
    """A run of a verb that was begun on a controlling function and has not ended."""

    verb: str
    primary: str
    started_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VmMoveGlance(Record):
    """A function that left, stayed, arrived or was refused with its VM."""

    event: str
    at: str
    vm: str
    pid: int
    address: str
    primary: str
    cntlid: int
    why: str = field(metadata=about("the reason word of a refusal, or empty"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown(Record):
    """A part that could not be read."""

    what: str = field(metadata=about("own_files, vms, runs, sessions or vm_moves"))
    why: str
    exit_code: int = field(metadata=about("0: it cannot be known here, or only root may"))


@dataclass(frozen=True, slots=True, kw_only=True)
class HostGlance(Report):
    """A host at a glance."""

    schema_name: ClassVar[str] = "nvmelm.status"

    host: str
    at: str = field(metadata=about("UTC"))
    nvmelm: str
    kernel: str
    privileged: bool = field(metadata=about("false: controllers were not asked, and files of root's not read"))
    primaries: tuple[PrimaryGlance, ...]
    vms: tuple[VmGlance, ...]
    runs_now: tuple[RunGlance, ...] = field(metadata=about("of verbs, that have not ended"))
    sessions_now: tuple[SessionGlance, ...] = field(metadata=about("that are not over, the oldest first"))
    sessions_last: tuple[SessionGlance, ...] = field(metadata=about("that ended last, the newest first"))
    vm_moves_last: tuple[VmMoveGlance, ...] = field(metadata=about("the newest first"))
    unknown: tuple[Unknown, ...]

    @property
    def exit_code(self) -> ExitCode:
        """Return what the verb ends with: the first part that failed says it."""
        codes = [*(primary.exit_code for primary in self.primaries), *(part.exit_code for part in self.unknown)]
        return ExitCode(next((code for code in codes if code), ExitCode.DONE))


def look(host: Host, *, last: int, runs: Callable[[], tuple[RunGlance, ...]] = tuple) -> HostGlance:
    """Look at everything once.

    Args:
        last: how many moves of each kind that are over.
        runs: returns the runs of verbs that have not ended.
    """
    facts = host.facts()
    unknown: list[Unknown] = []

    def read(what: str, ask: Callable[[], tuple[T, ...]]) -> tuple[T, ...]:
        if host.recorded:  # the questions of a recording must not hang on what it cannot hold
            unknown.append(Unknown(what=what, why=_NOT_RECORDED, exit_code=0))
            return ()
        try:
            return ask()
        except NvmelmError as error:
            code = 0 if isinstance(error, PermissionDeniedError) else int(error.exit_code)
            why = f"{error.message}; {error.fix}" if error.fix and code else error.message
            unknown.append(Unknown(what=what, why=why, exit_code=code))
            return ()

    refs = primaries(host)
    try:
        functions = tuple(_primary(host, ref, ask=facts.privileged) for ref in refs)
    except OwnFileError as error:  # the controllers could answer
        unknown.append(Unknown(what="own_files", why=f"{error.message}; {error.fix}", exit_code=int(error.exit_code)))
        functions = tuple(_primary(host, ref, ask=False) for ref in refs)
    vms = read("vms", lambda: _vms(host))
    runs_now = read("runs", runs)
    sessions = read("sessions", lambda: _sessions(host))
    moves = read("vm_moves", lambda: _vm_moves(host))
    return HostGlance(
        host=host.name,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        nvmelm=__version__,
        kernel=facts.kernel_release,
        privileged=facts.privileged,
        primaries=functions,
        vms=vms,
        runs_now=runs_now,
        sessions_now=tuple(session for session in sessions if not session.over),
        sessions_last=_newest((session for session in sessions if session.over), lambda s: s.changed_at, last),
        vm_moves_last=_newest(moves, lambda move: move.at, last),
        unknown=tuple(unknown),
    )


def _newest(parts: Any, when: Callable[[Any], str], most: int) -> tuple[Any, ...]:
    return tuple(sorted(parts, key=when, reverse=True)[:most])


def _primary(host: Host, ref: PrimaryRef, *, ask: bool) -> PrimaryGlance:
    """Return what the controller says of itself, or where it does not, what the kernel says of it."""
    problem, code = "", ExitCode.DONE
    if ask:
        try:
            with open_primary(host, ref) as pf:
                return _asked(pf.picture(states=True))
        except OwnFileError:
            raise
        except NvmelmError as error:
            problem, code = error.message, error.exit_code
    try:
        sriov = pci.sriov(host.sysfs, ref.address)
        functions = _by_sysfs(host, ref) if sriov else ()
    except NvmelmError as error:
        sriov, functions = None, ()
        problem, code = problem or error.message, code or error.exit_code
    return PrimaryGlance(
        node=ref.node,
        address=str(ref.address),
        serial=ref.serial,
        model=known_text(host, f"class/nvme/{ref.node}/model"),
        vfs_enabled=sriov.enabled if sriov else 0,
        vfs_total=sriov.total if sriov else 0,
        live_migration=None,
        functions=functions,
        moved=(),
        unused=0,
        suspension_unknown=None,
        problem=problem,
        exit_code=code,
    )


def _asked(picture: Picture) -> PrimaryGlance:
    primary = picture.primary
    used = [secondary for secondary in picture.secondaries if not secondary.idle]
    return PrimaryGlance(
        node=primary.node,
        address=primary.address,
        serial=primary.serial,
        model=primary.model,
        vfs_enabled=primary.vfs_enabled,
        vfs_total=primary.vfs_total,
        live_migration=primary.live_migration,
        functions=tuple(map(_function, used)),
        moved=picture.moved,
        unused=len(picture.secondaries) - len(used),
        suspension_unknown=picture.suspension_unknown,
        problem="",
        exit_code=0,
    )


def _function(secondary: Secondary) -> FunctionGlance:
    return FunctionGlance(
        cntlid=secondary.cntlid,
        vf_number=secondary.vf_number,
        address=secondary.address,
        state=secondary.standing,
        driver=secondary.driver,
        used_by=secondary.used_by,
        mark=secondary.mark,
    )


def _by_sysfs(host: Host, ref: PrimaryRef) -> tuple[FunctionGlance, ...]:
    """Return the VFs that are enabled, with what the kernel alone knows of them."""
    return tuple(
        FunctionGlance(
            cntlid=None,
            vf_number=index + 1,
            address=str(address),
            state=None,
            driver=pci.driver(host.sysfs, address),
            used_by=(),
            mark=None,
        )
        for index, address in sorted(pci.virtual_functions(host.sysfs, ref.address).items())
    )


def _vms(host: Host) -> tuple[VmGlance, ...]:
    from nvmelm.inventory.vm_moves import Moves  # few hosts have any

    return tuple(
        VmGlance(
            vm=held.vm,
            pid=held.pid,
            running=held.lives,
            address=held.address,
            primary=held.primary,
            cntlid=held.cntlid,
            state=held.state,
            suspended=held.suspended,
            since=held.since,
            refusal=held.refusal,
        )
        for held in Moves(host).all_held()
    )


def _sessions(host: Host) -> tuple[SessionGlance, ...]:
    from nvmelm.ownership.sessions import Sessions

    with Sessions(host) as sessions:
        records = sessions.seen()
    return tuple(
        SessionGlance(
            session=record.id,
            side=record.side.value,
            state=record.state.value,
            over=record.over,
            given_up=record.given_up,
            peer=record.peer,
            primary=record.primary,
            cntlids=tuple(moving.cntlid for moving in record.controllers),
            peer_cntlids=tuple(moving.peer_cntlid for moving in record.controllers),
            opened_at=record.opened_at,
            changed_at=record.changed_at,
            note=record.note,
        )
        for record in records
    )


def _vm_moves(host: Host) -> tuple[VmMoveGlance, ...]:
    from nvmelm.inventory.vm_moves import Event, Moves

    ends = (Event.LEFT, Event.STAYED, Event.ARRIVED, Event.REFUSED)
    return tuple(
        VmMoveGlance(
            event=str(entry["event"]),
            at=str(entry.get("at", "")),
            vm=str(entry.get("vm", "")),
            pid=int(entry.get("pid", 0)),
            address=str(entry.get("address", "")),
            primary=str(entry.get("primary", "")),
            cntlid=int(entry.get("cntlid", 0)),
            why=str(entry.get("reason", "")),
        )
        for entry in Moves(host).journal()
        if entry.get("event") in ends
    )
