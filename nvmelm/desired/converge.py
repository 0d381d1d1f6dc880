"""Bring a host to its configuration: a plan for each controlling function; one that fails does not stop the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from nvmelm.desired.config import DesiredPrimary, same_function
from nvmelm.documents import Record, Report, about
from nvmelm.errors import ExitCode, InterruptedByUserError, NvmelmError
from nvmelm.host import Claim, Host
from nvmelm.inventory.find import PrimaryRef, find_primary, known_text, primaries
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.pci import sriov
from nvmelm.inventory.picture import ChangeReport
from nvmelm.inventory.picture import Role as MarkRole
from nvmelm.prepare import sequence
from nvmelm.prepare.apply import Confirm
from nvmelm.process.waiting import wait_until

#: A controller has 128 s at most to become ready (NVMe Base 2.1, CAP.TO), and the driver may have to reset it once.
_READY_DEADLINE_S = 300.0
_NOT_YET = ("new", "resetting", "connecting")

Outcome = Literal["done", "unchanged", "planned", "absent", "left-alone", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied(Record):
    """What became of one entry of the configuration."""

    place: str = field(metadata=about("file and line"))
    name: str = field(metadata=about("as the configuration names the PF"))
    address: str | None
    outcome: Outcome
    message: str = field(default="", metadata=about("what went wrong, or why nothing was done"))
    cause: str = ""
    fix: str = field(default="", metadata=about("what to type or do next"))
    reason: str = field(default="", metadata=about("a stable word, as that of an error"))
    notes: tuple[str, ...] = field(default=(), metadata=about("of an error: what went wrong besides"))
    exit_code: int = 0
    report: ChangeReport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyReport(Report):
    """How a host was brought to its configuration."""

    schema_name: ClassVar[str] = "nvmelm.apply"

    changed: bool
    dry_run: bool
    entries: tuple[Applied, ...]

    @property
    def code(self) -> ExitCode:
        """Return the exit code: that of the first entry that failed or is absent."""
        bad = [applied.exit_code for applied in self.entries if applied.exit_code]
        return ExitCode(bad[0]) if bad else ExitCode.DONE


def reach(host: Host, wanted: Sequence[DesiredPrimary], *, confirm: Confirm, dry_run: bool = False) -> ApplyReport:
    """Bring every listed function to what is wanted of it; others are not touched.

    Raises:
        UsageError: two entries name one function.
        HostError: what driverctl and libvirt keep in ``/etc`` cannot be read.
    """
    called = [(ref, names(host, ref)) for ref in primaries(host)]
    named = [(entry, [ref for ref, known in called if known[entry.by] == entry.name]) for entry in wanted]
    seen: dict[str, DesiredPrimary] = {}
    for entry, refs in named:
        if len(refs) == 1 and seen.setdefault(str(refs[0].address), entry) is not entry:
            raise same_function(seen[str(refs[0].address)], entry, str(refs[0].address))
    claims = host.claims()
    entries = tuple(
        _ambiguous(entry, refs)
        if len(refs) > 1
        else _one(host, entry, next(iter(refs), None), claims, confirm, dry_run)
        for entry, refs in named
    )
    return ApplyReport(changed=any(applied.outcome == "done" for applied in entries), dry_run=dry_run, entries=entries)


def find_ready(host: Host, text: str) -> PrimaryRef:
    """Find a function that may have appeared just now, when the kernel's driver has set its controller up.

    The kernel announces a controller before it has asked who it is: serial number and NQN cannot be read until then,
    and whoever looks for them takes the function for another one.

    Raises:
        UsageError: there is no such function.
        TimedOutError: the driver is still at it after five minutes.
    """
    ref = find_primary(host, text)
    state = f"class/nvme/{ref.node}/state"
    if host.sysfs.read(state).strip() not in _NOT_YET:
        return ref
    wait_until(
        lambda: host.sysfs.read(state).strip() not in _NOT_YET,
        f"the driver to set {ref.node} up",
        deadline_s=_READY_DEADLINE_S,
        fix=f"cat /sys/{state}, and dmesg, show how far it is; then nvmelm apply",
    )
    return find_primary(host, text)


def names(host: Host, ref: PrimaryRef) -> dict[str, str]:
    """Return the names a configuration can give a function."""
    nqn = known_text(host, f"class/nvme/{ref.node}/subsysnqn")
    return {"serial": ref.serial, "address": str(ref.address), "nqn": nqn}


def _ambiguous(wanted: DesiredPrimary, refs: Sequence[PrimaryRef]) -> Applied:
    """Refuse a name that several functions bear, as the ports of one device do: which is meant is not known."""
    addresses = " and ".join(str(ref.address) for ref in refs)
    return Applied(
        place=wanted.place,
        name=wanted.name,
        address=None,
        outcome="failed",
        message=f"{wanted.by} {wanted.name} names {len(refs)} functions, and none of them was touched",
        cause=f"{addresses} have it",
        fix=f'in {wanted.place}, say which: address = "{refs[0].address}"',
        reason="config",
        exit_code=int(ExitCode.USAGE),
    )


def _one(
    host: Host, wanted: DesiredPrimary, ref: PrimaryRef | None, claims: Sequence[Claim], confirm: Confirm, dry_run: bool
) -> Applied:
    def ended(outcome: Outcome, **values: Any) -> Applied:
        address = str(ref.address) if ref is not None else None
        return Applied(place=wanted.place, name=wanted.name, address=address, outcome=outcome, **values)

    if ref is None:
        message = f"no controlling function has the {wanted.by} {wanted.name}"
        cause = f"{wanted.place} names it, and it is not on this host, or its driver is not nvme"
        fix = "nvmelm list shows what is here; correct the file, or plug it in"
        return ended("absent", message=message, cause=cause, fix=fix, exit_code=int(ExitCode.FAILED))
    other = _other_manager(host, ref, wanted.vfs, claims)
    if other:
        return ended("left-alone", message=other)
    try:
        report = _prepare(host, wanted, ref, confirm, dry_run=dry_run)
    except NvmelmError as error:
        if isinstance(error, InterruptedByUserError) and error.reason != "declined":
            raise  # Ctrl-C is meant for all of them, a "no" for one
        said = {"message": error.message, "cause": error.cause, "fix": error.fix, "reason": error.word}
        notes = tuple(getattr(error, "__notes__", ()))
        return ended("failed", **said, notes=notes, exit_code=int(error.exit_code))
    return ended("done" if report.changed else "planned" if report.actions else "unchanged", report=report)


def _prepare(host: Host, wanted: DesiredPrimary, ref: PrimaryRef, confirm: Confirm, *, dry_run: bool) -> ChangeReport:
    role = MarkRole.RESUMABLE if wanted.role == "destination" else MarkRole.MIGRATABLE
    with open_primary(host, ref, change=not dry_run) as pf:
        return sequence.prepare(
            pf,
            role,
            wanted.vfs,
            vq=wanted.vq,
            vi=wanted.vi,
            unmarked=wanted.role == "unmarked",
            valid_s=wanted.expires_s,
            confirm=confirm,
            dry_run=dry_run,
        )


def _other_manager(host: Host, ref: PrimaryRef, vfs: int, claims: Sequence[Claim]) -> str:
    """Return who else binds this function or its VFs, as a sentence; empty: nobody does."""
    facts = sriov(host.sysfs, ref.address)
    if facts is None:
        return ""
    addresses = {str(ref.address), *(str(facts.address(ref.address, index)) for index in range(min(vfs, facts.total)))}
    for claim in claims:
        if claim.address in addresses:
            what = "an override for" if claim.manager == "driverctl" else f"the domain {claim.domain}, which manages"
            return f"{claim.manager} has {what} {claim.address}; it is left to {claim.manager}"
    return ""
