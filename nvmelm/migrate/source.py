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
from collections.abc import Sequence
from contextlib import ExitStack, suppress

from nvmelm.errors import LinkLostError, NvmelmError, RemoteError, UncertainError, origin
from nvmelm.host import Progress
from nvmelm.inventory import state_reader
from nvmelm.inventory.picture import Picture, Secondary
from nvmelm.inventory.state_reader import StateReader
from nvmelm.migrate.agreement import Agreement, agree
from nvmelm.migrate.callouts.points import Point
from nvmelm.migrate.controllers import moving, notify, suspend, take_down, with_idle
from nvmelm.migrate.crossing import leaving
from nvmelm.migrate.end import End, Ledger
from nvmelm.migrate.gate import choose
from nvmelm.migrate.link import messages
from nvmelm.migrate.link.layout import DATA
from nvmelm.migrate.link.messages import expect, send
from nvmelm.migrate.link.streams import Rehearsal
from nvmelm.migrate.request import Measured, MigrationRequest
from nvmelm.migrate.rollback import Begun, roll_back
from nvmelm.migrate.rounds.tracks import Start, Tracks
from nvmelm.migrate.sending import Sending
from nvmelm.migrate.standstill import Standstill
from nvmelm.ownership.sessions import Moving, Side, State
from nvmelm.process.interrupts import interruptible, limited, undisturbed
from nvmelm.state import save as state_save
from nvmelm.state.image.digest import SHA256, available

#: From here on the digest is most of what a move takes: 40 ms at each end.
_LARGE_BYTES = 64 << 20


class Source:
    """One migration, from *Hello* to *Bye*.

    Args:
        end: the PF here, locked, and a link to a destination that was just started.

    Attributes:
        id: of the session, on both hosts.
        agreed: with the destination; None: nothing yet.
        ledger: what is written here.
        measured: what it took.
    """

    def __init__(self, end: End, request: MigrationRequest) -> None:
        self.end = end
        self.request = request
        self.id = uuid.uuid4().hex
        self.agreed: Agreement | None = None
        self.ledger = Ledger(end)
        self.measured = Measured()
        self._standstill = Standstill(request.max_downtime_s, self.measured)
        self._sending: Sending | None = None
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
        self.agreed = agreed = agree(self.end, self.request, self.id, picture, chosen)
        agreed.require_guests_moved(self.end, self.request, chosen)
        self.end.points.describe(self.id, self.request.to, agreed.described(self.end, chosen))
        if not dry_run:
            self.end.points.call(Point.COMPATIBLE)

    def leave(self) -> None:
        """End after :meth:`open`, as a dry run does."""
        with suppress(LinkLostError):
            send(self.end.link, messages.Bye())

    def move(self, *, tracks: Sequence[Start] = (), progress: Progress | None = None) -> None:
        """Move the controllers; :attr:`measured` and :attr:`ledger` tell the rest.

        Raises:
            NvmelmError: it failed, and the controllers run here as before; ``rolled_back`` says so.
            UncertainError: contact was lost after the give-away; both copies stand still.
        """
        with leaving(self.end.pf.host, self.end.pf.address, self.id), undisturbed():
            try:
                with interruptible():  # only here: no request to end falls between the failure and what undoes it
                    agreed = self._prepare()
                    with ExitStack() as still:
                        self._suspend_and_send(agreed, tracks, progress, still)
                    self._standstill.require_short()
                self.ledger.move(State.GIVEN_AWAY)
            except (Exception, KeyboardInterrupt) as error:  # whatever it is: the guest stands still, or its targets do
                failure = roll_back(self._begun(), error)
                raise failure from origin(failure, error)
            self._give()
            self._take_down()

    def _begun(self) -> Begun:
        held_there = self._sending is not None and self._sending.complete
        return Begun(self.end, self.ledger, self._standstill, self.measured, held_there)

    def _choose(self) -> tuple[Picture, list[Secondary]]:
        sessions = self.end.sessions if self.ledger.record is None else None
        return choose(self.end.pf, sessions, [source for source, _ in self.request.pairs])

    def _prepare(self) -> Agreement:
        """Let the destination do all it can do beforehand, and measure the way there."""
        if self.agreed is None:
            raise UncertainError("nothing was agreed upon")
        picture, chosen = self._choose()
        formats = state_reader.formats_of(picture.primary)
        pairs = zip(chosen, self.agreed.targets, strict=True)
        controllers = tuple(moving(self.end.pf, formats, secondary, target) for secondary, target in pairs)
        self.ledger.begin(self.id, Side.SOURCE, self.request.to, controllers)
        self.ledger.keep([secondary.cntlid for secondary in chosen])
        send(self.end.link, messages.Prepare(digests=self.agreed.destination_digests))
        self._rehearse(picture, controllers, self.agreed.digest)
        messages.warm_up()
        expect(self.end.link, messages.Prepared)
        self.end.points.call(Point.PREPARED)
        self._standstill.require_likely(sum(self._sizes.values()))
        return self.agreed

    def _rehearse(self, picture: Picture, controllers: Sequence[Moving], digest: str) -> None:
        """Read the running controllers' states as they will be read, and send them to be thrown away."""
        queue, link = self.end.pf.queue, self.end.link
        started = time.monotonic()
        passed = Rehearsal(digest)
        limit = state_reader.transfer_limit(queue, picture.primary.max_transfer_bytes)
        formats = state_reader.formats_of(picture.primary)
        for controller in controllers:
            reader = StateReader(queue, controller.cntlid, min(1, len(formats.versions)), min(1, len(formats.uuids)))
            total = state_save.bounded_size(reader.header(), controller.cntlid)
            self._sizes[controller.cntlid] = total
            for offset in range(0, total, limit):
                piece = reader.receive(offset, min(limit, total - offset))
                passed.write(piece)
                link.send(DATA, piece)
        send(link, messages.Rehearsed(bytes=passed.bytes, digest=passed.digest))
        self.measured.rehearsal_s = time.monotonic() - started
        if passed.bytes >= _LARGE_BYTES and digest == SHA256:
            where = "here" if available() == (SHA256,) else f"at {link.peer}"
            self.measured.notes.append(f"hashing {passed.bytes} bytes takes long: the extra fast is missing {where}")

    def _suspend_and_send(
        self, agreed: Agreement, starts: Sequence[Start], progress: Progress | None, still: ExitStack
    ) -> None:
        """Do what ends with every state at the destination.

        Args:
            still: bounds the time from the suspend on, and is left before the give-away.
        """
        controllers = self.ledger.known.controllers
        if self.request.notify:
            self.measured.notes += notify(self.end.pf, controllers)
        tracks = Tracks(self.end.pf, controllers, starts)
        try:
            tracks.converge()
            self.end.points.call(Point.BEFORE_SUSPEND)  # after the rounds: they are while the guest runs
            picture, chosen = self._look_again(agreed)
            still.enter_context(limited(self._standstill.longest_s))
            self._suspend(picture)
            tracks.final()
        finally:
            tracks.close()
            self.measured.rounds, self.measured.logged_rounds = tracks.rounds, tracks.written
            self.measured.notes += tracks.notes
        self._send_states(picture, chosen, progress, agreed.digest)

    def _send_states(
        self, picture: Picture, chosen: Sequence[Secondary], progress: Progress | None, digest: str
    ) -> None:
        end, controllers = self.end, self.ledger.known.controllers
        end.points.call(Point.SOURCE_SUSPENDED)
        send(end.link, messages.Suspended())
        self._sending = sending = Sending(end.pf, picture, chosen, end.link, controllers, digest=digest)
        loaded = sending.run(progress, self._sizes)
        self._account(sending, loaded)
        end.points.call(Point.BEFORE_GIVE_AWAY)
        self.ledger.require_kept()

    def _look_again(self, agreed: Agreement) -> tuple[Picture, list[Secondary]]:
        """Compare the source once more with what was judged: the last moment before it stands still."""
        picture, chosen = self._choose()
        agreed.require_unchanged(self.end, picture, chosen)
        agreed.require_guests_moved(self.end, self.request, chosen)
        self.ledger.require_kept()
        return picture, chosen

    def _suspend(self, picture: Picture) -> None:
        formats = state_reader.formats_of(picture.primary)
        controllers = with_idle(self.end.pf, formats, self.ledger.known.controllers)
        self.ledger.move(State.SUSPENDING, controllers=controllers)
        self._standstill.begin()
        suspend(self.end.pf, controllers)
        self.measured.drain_s = self._standstill.seconds() or 0.0

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
        self.end.points.report(Point.GIVEN_AWAY)
        try:
            send(self.end.link, messages.Give())
            running = expect(self.end.link, messages.Running)
        except NvmelmError as error:
            self.end.points.report(Point.UNCERTAIN)
            raise self._uncertain(error) from error
        self.measured.downtime_s = self._standstill.seconds()
        self.measured.resume_s = running.resume_s
        self.measured.notes += running.notes

    def _uncertain(self, error: NvmelmError) -> UncertainError:
        record = self.ledger.known
        our_part = f"here: {record.state}, {record.names} stay suspended"
        answered = isinstance(error, RemoteError)
        their_part = error.cause if answered else "there: last known to hold every state, suspended"
        uncertain = UncertainError(
            f"the controllers were given away, and {self.end.link.peer} does not say that they run",
            cause="; ".join(part for part in (error.message, their_part, our_part) if part),
            fix=error.fix if answered and error.fix else "nvmelm recover, on either host, as soon as the two can speak",
            reason="session-uncertain",
        )
        uncertain.add_note(f"session {self.id}")
        return uncertain

    def _take_down(self) -> None:
        """Take the controllers down here: they run there, and would be a second copy if anybody resumed them."""
        record = self.ledger.known
        try:
            take_down(self.end.pf, record.controllers)
            self.ledger.move(State.DONE)
        except NvmelmError as error:
            raise UncertainError(
                f"{record.names} run at {self.end.link.peer}, and were not ended here: {error.message}",
                cause=error.cause or f"session {self.id} is {record.state} here",
                fix="nvmelm recover here, once what is named is repaired; it takes them down",
                reason="source-unfinished",
            ) from error
        finally:
            with suppress(LinkLostError):
                send(self.end.link, messages.Bye())
            self.measured.notes += self.end.points.report(Point.DESTINATION_RUNNING)
