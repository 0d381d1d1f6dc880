"""Step 6 on one host: the gates in front of suspend, save, restore and resume, and what each left to be remembered.

Marks are asked here, never in :mod:`nvmelm.state.running`, which only talks to the device::

    state suspend   migratable or resumable    stops the controller: asks first
    state save      migratable                 the controller must be suspended
    state restore   resumable                  nobody's kernel driver may own the VF; leaves it suspended
    state resume    migratable or resumable    asks when the state was saved: it may run elsewhere by now
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from nvmelm.commands import migration
from nvmelm.disk import store
from nvmelm.documents import Report, about
from nvmelm.errors import BusyError, ImageError, NvmelmError
from nvmelm.host import AdminCommand, Progress
from nvmelm.inventory import marks, state_reader, suspension
from nvmelm.inventory.drivers import require_no_other_manager
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import Picture, Role, Secondary
from nvmelm.inventory.read import resolve
from nvmelm.inventory.state_reader import StateReader
from nvmelm.ownership import sessions
from nvmelm.prepare import guards
from nvmelm.prepare.actions import Action, Phase, operation_text
from nvmelm.prepare.apply import Confirm
from nvmelm.prepare.journal import Journal
from nvmelm.state import restore as state_restore
from nvmelm.state import running
from nvmelm.state import save as state_save
from nvmelm.state.image.format import ImageHeader, ImageSource, check_sink, open_sink
from nvmelm.state.image.reader import Image, open_image
from nvmelm.wire.migration import ControllerStateHeader
from nvmelm.wire.opcodes import SuspendType

#: States up to this size are any controller's; what is larger must be of the order of the target's own.
_ANY_CONTROLLERS_BYTES, _TIMES_ITS_OWN = 16 << 30, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class StateReport(Report):
    """What a step-6 verb did to one controlled function."""

    schema_name = "nvmelm.state"

    verb: str
    primary: str
    cntlid: int
    dry_run: bool
    changed: bool
    state_bytes: int | None = None
    image_id: str | None = None
    sha256: str | None = None
    commands: int = 0
    parts: int | None = None
    attempts: int | None = None
    seconds: float = 0.0
    operations: tuple[str, ...] = field(default=(), metadata=about("of a dry run: the exact commands, in order"))
    notes: tuple[str, ...] = ()


#: Commands that carry a state are alike but for their offsets; a plan shows so many of them, and counts the others.
_SHOWN_PARTS = 3


def suspend(
    pf: OpenPrimary, which: Bdf | int, *, notify: bool = False, confirm: Confirm, dry_run: bool = False
) -> StateReport:
    """Suspend a marked controller, or with ``notify`` announce that it will be.

    Raises:
        NotReadyError: it bears no mark that holds.
        BusyError: it is in a session that is not over: suspended, a lost copy would look like the one it was.
        AdminCommandError: the device refused.
    """
    picture, secondary = _gate(pf, which, Role.MIGRATABLE, Role.RESUMABLE)
    verb = "state suspend --notify" if notify else "state suspend"
    if not notify:
        guards.require_decided(pf.host, picture, [secondary.cntlid])
    question = f"controller {secondary.cntlid:#06x} stops all I/O until it is resumed"
    if dry_run:
        kind = SuspendType.SUSPEND_NOTIFICATION if notify else SuspendType.SUSPEND
        if not notify and state_reader.is_suspended(
            pf.queue, secondary.cntlid, state_reader.formats_of(picture.primary)
        ):
            return _report(pf, secondary, verb, dry_run=True, notes=("it is suspended already",))
        plan = (operation_text(migration.suspend(secondary.cntlid, kind)),)
        return _report(
            pf,
            secondary,
            verb,
            dry_run=True,
            operations=plan,
            notes=() if notify else _asks(question),
        )
    if not notify:
        confirm(f"{question}. Go on?")
    done = running.suspend(pf.queue, secondary.cntlid, notify=notify, formats=state_reader.formats_of(picture.primary))
    return _report(pf, secondary, verb, changed=done.changed, commands=done.commands, seconds=done.seconds)


def resume(pf: OpenPrimary, which: Bdf | int, *, confirm: Confirm, dry_run: bool = False) -> StateReport:
    """Resume a suspended controller.

    Raises:
        NotReadyError: it bears no mark that holds.
        UncertainError: a migration gave it away, or holds it: another copy may run.
        AdminCommandError: the device refused, after an unfinished restore for example.
    """
    picture, secondary = _gate(pf, which, Role.MIGRATABLE, Role.RESUMABLE)
    sessions.require_ours(pf.host, pf.address, secondary.cntlid, secondary.incarnation)
    risk = _risk_of_resume(pf, picture, secondary)
    if dry_run:
        if not state_reader.is_suspended(pf.queue, secondary.cntlid, state_reader.formats_of(picture.primary)):
            return _report(pf, secondary, "state resume", dry_run=True, notes=("it is not suspended",))
        plan = (operation_text(migration.resume(secondary.cntlid)),)
        return _report(
            pf,
            secondary,
            "state resume",
            dry_run=True,
            operations=plan,
            notes=_asks(risk),
        )
    if risk:
        confirm(f"{risk}. Resume it here?")
    done = running.resume(pf.queue, secondary.cntlid)
    store.remove(suspension.saved_path(pf.host, picture.primary, secondary))
    return _report(pf, secondary, "state resume", changed=done.changed, commands=done.commands, seconds=done.seconds)


def save(
    pf: OpenPrimary,
    which: Bdf | int,
    file: Path,
    *,
    replace: bool = False,
    progress: Progress | None = None,
    dry_run: bool = False,
) -> StateReport:
    """Save the state of a suspended, migratable controller to a file, or to standard output for ``-``.

    Args:
        replace: a file of that name may be replaced.

    Raises:
        ImageError: it was not suspended throughout; nothing was kept.
        NotReadyError: it bears no such mark, is not suspended, or the file is there; UsageError: it is a terminal.
        BusyError: it is in a session that is not over: an image of it could run beside the other host's copy.
        HostError: the file cannot be written, or the disk is full; nothing was kept.
    """
    picture, secondary = _gate(pf, which, Role.MIGRATABLE)
    guards.require_decided(pf.host, picture, [secondary.cntlid])
    if dry_run:
        return _planned_save(pf, picture, secondary, file, replace=replace)
    # Before the image can exist: a save cut off must not leave one that `state resume` knows nothing of.
    noted = suspension.saved_path(pf.host, picture.primary, secondary)
    earlier = store.read(noted)
    remembered = {
        "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
        **suspension.identity_of(pf.host, picture.primary, secondary),
    }
    store.write(noted, json.dumps(remembered) + "\n")
    try:
        with open_sink(file, replace=replace) as sink:
            done = state_save.save(
                pf.queue,
                secondary.cntlid,
                sink,
                source=ImageSource.of(picture.primary, secondary),
                formats=state_reader.formats_of(picture.primary),
                device_bytes=picture.primary.max_transfer_bytes,
                progress=progress,
            )
    except NvmelmError:
        if earlier is None and str(file) != "-":  # what went into a pipe cannot be taken back
            store.remove(noted)
        raise
    return _report(
        pf,
        secondary,
        "state save",
        changed=True,
        state_bytes=done.header.state_bytes,
        image_id=str(done.header.image_id),
        sha256=done.digest,
        commands=done.commands,
        seconds=done.seconds,
    )


def restore(
    pf: OpenPrimary,
    which: Bdf | int,
    file: Path,
    *,
    progress: Progress | None = None,
    confirm: Confirm,
    dry_run: bool = False,
) -> StateReport:
    """Put a saved state into a resumable controller, and leave that suspended.

    Raises:
        ImageError: the image is not whole, not unaltered, or not ours; the device has not seen a byte of it.
        IncompatibleError: it does not fit this device; the same.
        BusyError, NotSupportedError: a driver that must not owns the VF, or a session that is not over holds it.
        AdminCommandError: the device refused the state; it holds none of it, and stays suspended.
    """
    picture, secondary = _gate(pf, which, Role.RESUMABLE)
    guards.require_decided(pf.host, picture, [secondary.cntlid])
    require_free(secondary)
    target = state_restore.Target.of(picture.primary)
    fits = partial(_check_fits, pf, secondary, target)
    question = f"the state of controller {secondary.cntlid:#06x} will be replaced; what it does now is lost"
    with open_image(file, spool_directory=_spool(pf), fits=fits) as image:
        if dry_run:
            plan = _restore_commands(pf, picture, secondary, image, target)
            size = image.header.state_bytes
            return _report(
                pf,
                secondary,
                "state restore",
                dry_run=True,
                state_bytes=size,
                operations=plan,
                notes=_asks(question),
            )
        confirm(f"{question}. Go on?")
        with _journaled(pf, secondary, f"image {image.header.image_id}"):
            done = state_restore.restore(
                pf.queue,
                secondary.cntlid,
                image,
                target=target,
                device_bytes=picture.primary.max_transfer_bytes,
                progress=progress,
            )
    held = (
        ()
        if secondary.used_by
        else (f"nobody holds {secondary.address}: a VM that opens it later resets it and loses the state",)
    )
    return _report(
        pf,
        secondary,
        "state restore",
        changed=True,
        state_bytes=done.header.state_bytes,
        image_id=str(done.header.image_id),
        commands=done.commands,
        parts=done.parts,
        attempts=done.attempts,
        seconds=done.seconds,
        notes=(*done.warnings, *held),
    )


def _check_fits(pf: OpenPrimary, secondary: Secondary, target: state_restore.Target, header: ImageHeader) -> None:
    """Refuse a state that this controller cannot take; a device's own states are of one order of size.

    Raises:
        ImageError, IncompatibleError: the device has not seen a byte of it.
    """
    state_restore.check_fits(header, target)
    if header.state_bytes <= _ANY_CONTROLLERS_BYTES:
        return
    formats = target.formats
    reader = StateReader(pf.queue, secondary.cntlid, min(1, len(formats.versions)), min(1, len(formats.uuids)))
    its_own = reader.header().total_bytes
    if header.state_bytes > max(_ANY_CONTROLLERS_BYTES, _TIMES_ITS_OWN * its_own):
        raise ImageError(
            f"a state of {header.state_bytes} bytes is none of this controller",
            cause=f"its own has {its_own} bytes now",
            fix="save the state again, or use another copy of the image",
            reason="image-sizes-disagree",
        )


def _asks(question: str) -> tuple[str, ...]:
    """Return the note of a dry run that tells what the run would ask."""
    return (f"would ask: {question}. Go on?",) if question else ()


def _risk_of_resume(pf: OpenPrimary, picture: Picture, secondary: Secondary) -> str:
    saved = suspension.saved_at(pf.host, picture.primary, secondary)
    if not saved or secondary.mark is None or secondary.mark.role is not Role.MIGRATABLE:
        return ""
    return (
        f"the state of {secondary.cntlid:#06x} was saved at {saved}; if it was resumed elsewhere, resuming it here "
        "makes two running copies of one controller"
    )


def _planned_save(pf: OpenPrimary, picture: Picture, secondary: Secondary, file: Path, *, replace: bool) -> StateReport:
    """Check all that the save would check, and show the commands it would send."""
    check_sink(file, replace=replace)
    formats = state_reader.formats_of(picture.primary)
    examined = state_save.examine(pf.queue, secondary.cntlid, formats)
    limit = state_reader.transfer_limit(pf.queue, picture.primary.max_transfer_bytes)
    size = examined.header.total_bytes
    places = [(0, ControllerStateHeader.size), *_places(size, limit)]
    if size > limit:  # the beginning once more: it must not have changed meanwhile
        places.append((0, min(ControllerStateHeader.size + examined.header.nvme_bytes, limit)))
    indexes = {"version_index": examined.version_index, "uuid_index": examined.uuid_index}
    commands = (migration.get_state(secondary.cntlid, offset=at, length=count, **indexes) for at, count in places)
    plan = _texts(commands, len(places))
    return _report(pf, secondary, "state save", dry_run=True, state_bytes=size, operations=plan)


def _restore_commands(
    pf: OpenPrimary, picture: Picture, secondary: Secondary, image: Image, target: state_restore.Target
) -> tuple[str, ...]:
    limit = state_reader.transfer_limit(pf.queue, picture.primary.max_transfer_bytes)
    parts = -(-image.header.state_bytes // limit)
    sent = state_restore.commands(secondary.cntlid, image, target, limit)
    return (operation_text(migration.suspend(secondary.cntlid)), *_texts(sent, parts))


def _places(size: int, limit: int) -> list[tuple[int, int]]:
    return [(offset, min(limit, size - offset)) for offset in range(0, size, limit)]


def _texts(commands: Iterable[AdminCommand], total: int) -> tuple[str, ...]:
    shown = tuple(operation_text(command) for command in islice(commands, _SHOWN_PARTS))
    more = total - len(shown)
    return (*shown, f"and {more} more like it, up to the last byte") if more > 0 else shown


class _journaled:  # noqa: N801  # used as a verb: with _journaled(...)
    """Write down that a controller's state is being replaced, so that ``recover`` can name a restore cut off."""

    def __init__(self, pf: OpenPrimary, secondary: Secondary, what: str) -> None:
        self.journal = Journal(pf.host, pf.address, pf.ref.serial)
        self.session = pf
        meaning = (
            f"{secondary.cntlid:#06x} is suspended and may hold a part of {what}: restore it again or take it offline"
        )
        self.action = Action(Phase.STATE, meaning, (), (), secondary.cntlid)

    def __enter__(self) -> None:
        self.journal.begin("state restore", self.session.ref.serial, {})
        self.journal.intend([self.action])

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.journal.end("done")
        elif isinstance(error, NvmelmError):
            error.add_note(f"controller {self.action.cntlid:#06x} was left suspended")
            self.journal.try_end("failed")


def _gate(pf: OpenPrimary, which: Bdf | int, *roles: Role) -> tuple[Picture, Secondary]:
    """Return the picture and the function, if its mark holds."""
    picture = pf.picture()
    secondary = resolve(picture, which)
    marks.require_live_migration(picture)
    marks.require(picture, secondary, *roles)
    guards.require_apart_from_vms(pf.host, picture, [secondary.cntlid])
    return picture, secondary


def require_free(secondary: Secondary) -> None:
    """Refuse a function that a driver owns which would change its state, or migrate it by itself.

    Raises:
        BusyError: the kernel's NVMe driver owns it.
        NotSupportedError: another VFIO driver than vfio-pci does.
    """
    if secondary.driver == "nvme":
        cause = (
            f"the kernel's nvme driver owns it as {secondary.controller_node}, and state would change under its feet"
        )
        fix = f"nvmelm vfio bind {secondary.address}"
        raise BusyError(f"state never goes into {secondary.address} now", cause=cause, fix=fix, reason="kernel-owned")
    require_no_other_manager(secondary, f"state never goes into {secondary.address} now")


def _report(pf: OpenPrimary, secondary: Secondary, verb: str, *, dry_run: bool = False, **values: Any) -> StateReport:
    body = {"changed": False, **values}
    return StateReport(verb=verb, primary=pf.address, cntlid=secondary.cntlid, dry_run=dry_run, **body)


def _spool(pf: OpenPrimary) -> Path:
    """Return the directory a piped image is kept in while it is verified; it is as private as the image."""
    return pf.host.state_dir
