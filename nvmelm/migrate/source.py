"""The source's part of a migration: it leads, and it decides.

::

    open      who goes where; both ends compared; nothing is touched before they fit
    prepare   the destination suspends its targets; a dry transfer of the right size warms the path and measures it
    track     memory and user data that change are reported in rounds, where the device can and the caller wants it
    suspend   from here to the answer to the resume the guest stands still
    send      each state, proven, into its target
    give      written here first; from then on the source does not run them again
    take down the controllers here, once they run there
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import replace
from typing import Any

from nvmelm.compat.manifest import Manifest
from nvmelm.compat.verdict import Verdict
from nvmelm.errors import (
    BusyError,
    IncompatibleError,
    LinkLostError,
    MalformedError,
    NvmelmError,
    RemoteError,
    UncertainError,
    origin,
)
from nvmelm.host import Progress
from nvmelm.inventory import state_reader
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import Picture, Secondary
from nvmelm.inventory.state_reader import StateReader
from nvmelm.migrate import controllers as target
from nvmelm.migrate.callouts.points import Point, Points
from nvmelm.migrate.crossing import leaving
from nvmelm.migrate.gate import choose, manifest_of, require_compatible
from nvmelm.migrate.link import messages
from nvmelm.migrate.link.frames import DATA, Link
from nvmelm.migrate.link.messages import expect, greet, send
from nvmelm.migrate.link.streams import Rehearsal
from nvmelm.migrate.request import Measured, MigrationRequest
from nvmelm.migrate.rollback import roll_back
from nvmelm.migrate.rounds.memory import MemoryRound
from nvmelm.migrate.rounds.tracks import Start, Tracks
from nvmelm.migrate.rounds.user_data import Written
from nvmelm.migrate.sending import Sending
from nvmelm.ownership.sessions import Moving, SessionRecord, Sessions, Side, State, new_record
from nvmelm.prepare.kept import Kept
from nvmelm.process.interrupts import interruptible, limited, undisturbed
from nvmelm.state import save as state_save
from nvmelm.state.image.digest import SHA256, available

Reconnect = Callable[[], AbstractContextManager[Link]]

#: From here on the digest is most of what a move takes: 40 ms at each end.
_LARGE_BYTES = 64 << 20
#: How long a guest may stand still before the give-away when nobody said, s: a disk or a peer may hang for ever.
STANDSTILL_S = 60.0
#: And so many times as long as the dry transfer took: a large state on a slow link takes its time.
_OF_THE_REHEARSAL = 4


class Source:
    """One migration, from *Hello* to *Bye*.

    Args:
        opened: the PF here, locked.
        link: to a destination that was just started.
        name: what this host calls itself.
        reconnect: starts the destination again; for a roll-back whose link was cut.
    """

    def __init__(
        self,
        pf: OpenPrimary,
        sessions: Sessions,
        link: Link,
        request: MigrationRequest,
        points: Points,
        *,
        name: str,
        reconnect: Reconnect | None = None,
    ) -> None:
        self.session = pf
        self.sessions = sessions
        self.link = link
        self.request = request
        self.points = points
        self.name = name
        self.reconnect = reconnect
        self.id = uuid.uuid4().hex
        self.measured = Measured()
        self.verdicts: list[Verdict] = []
        self.opened: messages.Opened | None = None
        self.record: SessionRecord | None = None
        self.suspended_at: float | None = None
        self.rounds: list[MemoryRound] = []
        self.written: list[Written] = []
        self.digest = ""
        self.sending: Sending | None = None
        self.kept: Kept | None = None
        self._sizes: dict[int, int] = {}

    # The three parts of a run; the first changes nothing anywhere.

    def open(self, *, dry_run: bool = False) -> None:
        """Agree with the destination on who goes where, and compare both ends.

        Args:
            dry_run: no callout is run: it could do what a dry run must not.

        Raises:
            IncompatibleError: they do not fit, with every reason.
            RemoteError: the destination cannot take them.
        """
        picture, chosen = self._choose()
        self.digest = greet(self.link, self.name)
        pairs = [messages.Pair(source=source, destination=destination) for source, destination in self.request.pairs]
        opening = messages.Open(session=self.id, pf=self.request.pf, pairs=pairs, peer=self.request.reached_at)
        send(self.link, opening)
        self.opened = expect(self.link, messages.Opened)
        self._check_answer(self.opened)
        theirs = [Manifest.parse(text) for text in self.opened.manifests]
        for secondary, offered in zip(chosen, theirs, strict=True):
            ours = manifest_of(self.session, picture, secondary)
            self._check_agreed(ours, offered)
            self.verdicts.append(require_compatible(ours, offered, self.request.policy, f"{secondary.cntlid:#06x}"))
        self._require_guests_moved(chosen)
        self.points.describe(self.id, self.request.to, self._described(chosen))
        if not dry_run:
            self.points.call(Point.COMPATIBLE)

    def leave(self) -> None:
        """End after :meth:`open`, as a dry run does."""
        with suppress(LinkLostError):
            send(self.link, messages.Bye())

    def move(self, *, tracks: Sequence[Start] = (), progress: Progress | None = None) -> None:
        """Move the controllers; :attr:`measured` and :attr:`record` tell the rest.

        Raises:
            NvmelmError: it failed, and the controllers run here as before; ``rolled_back`` says so.
            UncertainError: contact was lost after the give-away; both copies stand still.
        """
        with leaving(self.session.host, self.session.address), undisturbed():
            try:
                with interruptible():  # only here: no request to end falls between the failure and what undoes it
                    self._prepare()
                    with ExitStack() as still:
                        self._suspend_and_send(tracks, progress, still)
                    self._check_stood_still()
                self.record = self.sessions.move(self.known, State.GIVEN_AWAY)
            except (Exception, KeyboardInterrupt) as error:  # whatever it is: the guest stands still, or its targets do
                failure = roll_back(self, error)
                raise failure from origin(failure, error)
            self._give()
            self._take_down()

    @property
    def known(self) -> SessionRecord:
        """Return the session's record."""
        if self.record is None:
            raise UncertainError("the session has no record")
        return self.record

    @property
    def held_there(self) -> bool:
        """Return whether the destination may hold every state."""
        return self.sending is not None and self.sending.complete

    def _choose(self) -> tuple[Picture, list[Secondary]]:
        return choose(
            self.session, self.sessions if self.record is None else None, [source for source, _ in self.request.pairs]
        )

    def _check_answer(self, opened: messages.Opened) -> None:
        """Do not believe an answer to something else than what was asked."""
        asked = list(self.request.pairs)
        fits = len(opened.pairs) == len(asked) == len(opened.manifests) == len(opened.addresses) == len(opened.held)
        for pair, (source, destination) in zip(opened.pairs, asked, strict=False):
            fits = (
                fits
                and pair.source == source
                and pair.destination is not None
                and destination in (None, pair.destination)
            )
        if not fits or len({pair.destination for pair in opened.pairs}) != len(asked):
            raise MalformedError(f"{self.link.peer} offers other controllers than were asked for", reason="protocol")

    def _check_agreed(self, ours: Manifest, offered: Manifest) -> None:
        """Refuse what a verdict given before did not speak of."""
        agreed = self.request.agreed
        if agreed is None or agreed == (ours.digest, offered.digest):
            return
        changed = "the source" if agreed[0] != ours.digest else "the destination"
        raise IncompatibleError(
            f"{changed} is not what the verdict was given for",
            cause=f"the verdict speaks of {agreed[0]} and {agreed[1]}; now they are {ours.digest} and {offered.digest}",
            fix="nvmelm compat check again",
            reason="verdict-outdated",
        )

    def _prepare(self) -> None:
        """Let the destination do all it can do beforehand, and measure the way there."""
        picture, chosen = self._choose()
        formats = state_reader.formats_of(picture.primary)
        targets = [pair.destination or 0 for pair in (self.opened.pairs if self.opened else [])]
        pairs = zip(chosen, targets, strict=True)
        controllers = tuple(target.moving(self.session, formats, secondary, peer) for secondary, peer in pairs)
        self.record = self.sessions.open(
            new_record(
                self.session.host,
                self.id,
                Side.SOURCE,
                peer=self.request.to,
                primary=self.session.address,
                serial=self.session.ref.serial,
                controllers=controllers,
            )
        )
        self.kept = Kept(self.session.host, self.session.address, [secondary.cntlid for secondary in chosen])
        digests = [verdict.destination_digest for verdict in self.verdicts]
        send(self.link, messages.Prepare(digests=digests))
        self._rehearse(picture, controllers)
        messages.warm_up()
        expect(self.link, messages.Prepared)
        self.points.call(Point.PREPARED)
        self._check_downtime()

    def _rehearse(self, picture: Picture, controllers: Sequence[Moving]) -> None:
        """Read the running controllers' states as they will be read, and send them to be thrown away."""
        started = time.monotonic()
        passed = Rehearsal(self.digest)
        limit = state_reader.transfer_limit(self.session.queue, picture.primary.max_transfer_bytes)
        formats = state_reader.formats_of(picture.primary)
        for controller in controllers:
            reader = StateReader(
                self.session.queue, controller.cntlid, min(1, len(formats.versions)), min(1, len(formats.uuids))
            )
            total = state_save.bounded_size(reader.header(), controller.cntlid)
            self._sizes[controller.cntlid] = total
            for offset in range(0, total, limit):
                piece = reader.receive(offset, min(limit, total - offset))
                passed.write(piece)
                self.link.send(DATA, piece)
        send(self.link, messages.Rehearsed(bytes=passed.bytes, digest=passed.digest))
        self.measured.rehearsal_s = time.monotonic() - started
        if passed.bytes >= _LARGE_BYTES and self.digest == SHA256:
            where = "here" if available() == (SHA256,) else f"at {self.link.peer}"
            self.measured.notes.append(f"hashing {passed.bytes} bytes takes long: the extra fast is missing {where}")

    def _check_downtime(self) -> None:
        limit = self.request.max_downtime_s
        if limit is not None and self.measured.rehearsal_s > limit:
            raise NvmelmError(
                f"the guest would stand still for more than {limit:g} s",
                cause=f"the dry transfer of {sum(self._sizes.values())} bytes took {self.measured.rehearsal_s:.3f} s",
                fix="allow a longer --max-downtime, or use a faster link",
                reason="downtime",
            )

    def _suspend_and_send(self, starts: Sequence[Start], progress: Progress | None, still: ExitStack) -> None:
        """Do what ends with every state at the destination.

        Args:
            still: bounds the time from the suspend on, and is left before the give-away.
        """
        controllers = self.known.controllers
        if self.request.notify:
            self.measured.notes += target.notify(self.session, controllers)
        tracks = Tracks(self.session, controllers, starts)
        try:
            tracks.converge()
            self.points.call(Point.BEFORE_SUSPEND)  # after the rounds: they are while the guest runs
            picture, chosen = self._look_again()
            still.enter_context(limited(self._longest_s))
            self._suspend(picture)
            tracks.final()
        finally:
            tracks.close()
            self.rounds, self.written = tracks.rounds, tracks.written
            self.measured.notes += tracks.notes
        self._send_states(picture, chosen, progress)

    def _send_states(self, picture: Picture, chosen: Sequence[Secondary], progress: Progress | None) -> None:
        controllers = self.known.controllers
        self.points.call(Point.SOURCE_SUSPENDED)
        send(self.link, messages.Suspended())
        self.sending = sending = Sending(self.session, picture, chosen, self.link, controllers, digest=self.digest)
        loaded = sending.run(progress, self._sizes)
        self._account(sending, loaded)
        self.points.call(Point.BEFORE_GIVE_AWAY)
        self._require_kept()

    @property
    def _longest_s(self) -> float:
        """Return how long the guest may stand still before the give-away, s."""
        limit = self.request.max_downtime_s
        return STANDSTILL_S + _OF_THE_REHEARSAL * self.measured.rehearsal_s if limit is None else limit

    def _check_stood_still(self) -> None:
        """Do not give away what stood still for too long: a wait for a disk is nothing that can be interrupted."""
        if self.suspended_at is not None and time.monotonic() - self.suspended_at > self._longest_s:
            raise self.out_of_time()

    def out_of_time(self) -> NvmelmError:
        """Return the error of a guest that stood still for as long as it may."""
        waited = "took the states" if not self.held_there else "took them in or decided"
        return NvmelmError(
            f"the guest stood still for {self._longest_s:.3g} s, which is as long as it may",
            cause=f"nobody {waited} in that time: a disk, a callout, a reader of a pipe or the other host hangs",
            fix="look at what is slow, or allow a longer --max-downtime",
            reason="downtime",
        )

    def _look_again(self) -> tuple[Picture, list[Secondary]]:
        """Compare the source once more with what was judged: the last moment before it stands still."""
        picture, chosen = self._choose()
        for secondary, verdict in zip(chosen, self.verdicts, strict=True):
            digest = manifest_of(self.session, picture, secondary).digest
            if digest != verdict.source_digest:
                cause = f"{secondary.cntlid:#06x} was {verdict.source_digest}, and is {digest} now"
                raise IncompatibleError("the source changed after it was judged", cause=cause, fix="migrate again")
        self._require_guests_moved(chosen)
        self._require_kept()
        return picture, chosen

    def _require_kept(self) -> None:
        """Refuse to go on with a lock, marks or a journal that are not those of the beginning; HostError."""
        if self.kept is not None:
            self.kept.require_same()

    def _require_guests_moved(self, chosen: Sequence[Secondary]) -> None:
        """Refuse to take a controller away from under whoever holds it, unless somebody moves the guest along.

        The device cannot tell whether a guest runs. Its queues would go on at the destination with addresses of memory
        that is here, so this takes callouts on both sides that move it, or the operator's word that it is meant.

        Raises:
            BusyError: who holds it is named.
        """
        holders = [f"{secondary.cntlid:#06x}: {user}" for secondary in chosen for user in secondary.used_by]
        lacking = [] if self.points.runs_at(Point.BEFORE_SUSPEND) else ["none at before-suspend here, to stop it"]
        if self.opened is None or not self.opened.continues:
            lacking.append(f"none at before-resume on {self.link.peer}, to have it go on")
        if not holders or not lacking or self.request.guest_loses_controller:
            return
        raise BusyError(
            f"the guest would lose its controller: {'; '.join(holders)}",
            cause=f"nothing moves the guest along with it; of the callouts there is {' and '.join(lacking)}",
            fix="callouts that do (docs/callouts.md); or --guest-loses-controller, when just that is meant",
            reason="guest-loses-controller",
        )

    def _suspend(self, picture: Picture) -> None:
        controllers = target.with_idle(self.session, state_reader.formats_of(picture.primary), self.known.controllers)
        self.record = self.sessions.move(replace(self.known, controllers=controllers), State.SUSPENDING)
        self.suspended_at = time.monotonic()
        target.suspend(self.session, self.known.controllers)
        self.measured.drain_s = time.monotonic() - self.suspended_at

    def _account(self, sending: Sending, loaded: messages.Loaded) -> None:
        measured = self.measured
        measured.state_bytes = sum(saved.header.state_bytes for saved in sending.saved.values())
        measured.commands += sum(saved.commands for saved in sending.saved.values()) + sum(
            saved.commands for saved in loaded.states
        )
        # Reading, sending and setting overlap; the parts are what each one added to the time that passed.
        measured.send_s = sending.seconds
        measured.get_s = min(max((saved.seconds for saved in sending.saved.values()), default=0.0), sending.seconds)
        measured.set_s = min(
            max((state.set_s for state in loaded.states), default=0.0), sending.seconds - measured.get_s
        )
        measured.transfer_s = sending.seconds - measured.get_s - measured.set_s

    def _give(self) -> None:
        """Tell the destination that the controllers are its own, and wait until it runs them."""
        self.points.report(Point.GIVEN_AWAY)
        try:
            send(self.link, messages.Give())
            running = expect(self.link, messages.Running)
        except NvmelmError as error:
            self.points.report(Point.UNCERTAIN)
            raise self._uncertain(error) from error
        if self.suspended_at is not None:
            self.measured.downtime_s = time.monotonic() - self.suspended_at
        self.measured.resume_s = running.resume_s
        self.measured.notes += running.notes

    def _uncertain(self, error: NvmelmError) -> UncertainError:
        our_part = f"here: {self.known.state}, {self.known.names} stay suspended"
        answered = isinstance(error, RemoteError)
        their_part = error.cause if answered else "there: last known to hold every state, suspended"
        uncertain = UncertainError(
            f"the controllers were given away, and {self.link.peer} does not say that they run",
            cause="; ".join(part for part in (error.message, their_part, our_part) if part),
            fix=error.fix if answered and error.fix else "nvmelm recover, on either host, as soon as the two can speak",
            reason="session-uncertain",
        )
        uncertain.add_note(f"session {self.id}")
        return uncertain

    def _take_down(self) -> None:
        """Take the controllers down here: they run there, and would be a second copy if anybody resumed them."""
        try:
            target.take_down(self.session, self.known.controllers)
            self.record = self.sessions.move(self.known, State.DONE)
        except NvmelmError as error:
            raise UncertainError(
                f"{self.known.names} run at {self.link.peer}, and were not ended here: {error.message}",
                cause=error.cause or f"session {self.id} is {self.known.state} here",
                fix="nvmelm recover here, once what is named is repaired; it takes them down",
                reason="source-unfinished",
            ) from error
        finally:
            with suppress(LinkLostError):
                send(self.link, messages.Bye())
            self.measured.notes += self.points.report(Point.DESTINATION_RUNNING)

    def _described(self, chosen: Sequence[Secondary]) -> list[Mapping[str, Any]]:
        pairs = self.opened.pairs if self.opened else []
        return [
            {
                "primary": self.session.address,
                "cntlid": secondary.cntlid,
                "address": secondary.address,
                "vfio_node": secondary.vfio_node,
                "peer_cntlid": pair.destination,
            }
            for secondary, pair in zip(chosen, pairs, strict=True)
        ]
