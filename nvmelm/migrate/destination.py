"""The destination's part of a migration: started by the source through ssh, it serves one session and ends.

Everything that can be done before the source is suspended is done in :meth:`Destination._prepare`; what remains for the
time in which the guest stands still is to take the states, to write down that they are in, and to resume.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from nvmelm.errors import (
    BusyError,
    CopyLostError,
    InterruptedByUserError,
    LinkLostError,
    MalformedError,
    NvmelmError,
    SourceGaveUpError,
    UncertainError,
    UsageError,
    WrongDigestError,
    origin,
    unexpected,
)
from nvmelm.host import Host
from nvmelm.inventory import marks, state_reader
from nvmelm.inventory.address import Address
from nvmelm.inventory.opened import open_primary, require_privilege
from nvmelm.inventory.picture import Picture, Role, Secondary
from nvmelm.inventory.read import resolve
from nvmelm.migrate.agreement import described
from nvmelm.migrate.callouts.points import Point, Points
from nvmelm.migrate.controllers import Resumed, discard, moving, suspend, try_resume, use_up
from nvmelm.migrate.crossing import locked_for_arrival
from nvmelm.migrate.end import End, Ledger
from nvmelm.migrate.gate import manifest_of
from nvmelm.migrate.link import messages
from nvmelm.migrate.link.frames import Link
from nvmelm.migrate.link.layout import DATA
from nvmelm.migrate.link.messages import greet, send
from nvmelm.migrate.link.streams import Rehearsal
from nvmelm.migrate.loading import Loading
from nvmelm.migrate.naming import by_cntlid, primary_of
from nvmelm.migrate.queues import require_none
from nvmelm.migrate.recovery.asking import answer_other_host
from nvmelm.migrate.recovery.standing import without_copy
from nvmelm.ownership.sessions import Sessions, Side, State
from nvmelm.prepare import guards
from nvmelm.process.interrupts import interruptible, let_go, undisturbed
from nvmelm.state.verbs import require_free


def serve(host: Host, link: Link, *, points: Points, name: str) -> None:
    """Serve one session on a link.

    Args:
        points: the callouts of this host.
        name: what this host calls itself.

    Raises:
        NvmelmError: it failed; the source was told as far as it could be.
        UncertainError: contact was lost when the states were in; this host's copy stays suspended.
    """
    begun = False
    try:
        digest = greet(link, name, answering=True)
        first = link.receive()
        opening = messages.parse(first, link.peer) if first is not None else None
        begun = True
        if isinstance(opening, messages.Open):
            require_privilege(host)
            # locked once all is agreed
            with open_primary(host, primary_of(host, opening.pf)) as pf, Sessions(host) as sessions:
                Destination(End(pf, sessions, link, points), by_cntlid(pf, opening), digest=digest).run()
        elif isinstance(opening, messages.Settle):
            answer_other_host(host, link, opening, points)
        elif opening is not None and not isinstance(opening, messages.Bye):
            raise messages.unexpected(opening, link.peer)
    except NvmelmError as error:
        if isinstance(error, LinkLostError) and not begun:
            return  # the source has refused for itself, and says why
        if not error.rolled_back:  # then it was told already
            with suppress(LinkLostError):
                send(link, messages.failed(error))
        raise


class Destination:
    """One session, from *Open* to *Running*.

    Args:
        end: the PF here, not locked yet.
        digest: of a state, as both hosts can make it.
    """

    def __init__(self, end: End, opening: messages.Open, *, digest: str) -> None:
        self.end = end
        self.opening = opening
        self.ledger = Ledger(end)
        self._digest = digest
        self._touched = False
        self._command_s = 0.0
        self._notes: list[str] = []

    def run(self) -> None:
        """Serve the session; see :func:`serve`."""
        named = [pair.destination for pair in self.opening.pairs]
        picture, chosen = self._choose(named)
        self._send_opened(picture, chosen)
        message = self._next()
        if not isinstance(message, messages.Prepare):
            if isinstance(message, messages.Abort | messages.Bye):
                return
            raise messages.unexpected(message, self.end.link.peer)
        with locked_for_arrival(self.end.pf, self.opening.session):
            # Others may have had the PF meanwhile.
            picture, chosen = self._choose([secondary.cntlid for secondary in chosen])
            self._check_unchanged(picture, chosen, message)
            with undisturbed():
                try:
                    with interruptible():
                        self._prepare(picture, chosen)
                        self._load(picture)
                except (Exception, KeyboardInterrupt) as error:  # the source must know, and targets be free
                    failure = self._put_back(error)
                    raise failure from origin(failure, error)
                self._await_decision()

    def _choose(self, named: Sequence[int | None]) -> tuple[Picture, list[Secondary]]:
        """Return the targets: those that were named, or the first ones that are ready and free."""
        picture = self.end.pf.picture()
        marks.require_live_migration(picture)
        taken = {cntlid for cntlid in named if cntlid is not None}
        chosen = []
        for which in named:
            secondary = resolve(picture, which) if which is not None else self._free_one(picture, taken)
            taken.add(secondary.cntlid)
            marks.require(picture, secondary, Role.RESUMABLE)
            require_free(secondary)
            chosen.append(secondary)
        self.end.sessions.require_free(self.end.pf.address, [secondary.cntlid for secondary in chosen])
        guards.require_apart_from_vms(self.end.pf.host, picture, [secondary.cntlid for secondary in chosen])
        if len({secondary.cntlid for secondary in chosen}) != len(chosen):
            raise UsageError("two controllers cannot move into one", fix="name each destination once")
        return picture, chosen

    def _no_target(self, picture: Picture) -> BusyError:
        """Return the error of a host without a free target; it names those that only lack a mark."""
        bare = [
            f"{secondary.cntlid:#06x}"
            for secondary in picture.secondaries
            if secondary.present and secondary.online and secondary.mark is None
        ]
        node = picture.primary.node
        fix = f"nvmelm destination prepare {node} --vfs N, with more than {picture.primary.vfs_enabled}"
        wanted = len(self.opening.pairs)
        cause = f"{wanted} {'is' if wanted == 1 else 'are'} to be moved there"
        if bare:
            cause += f"; {', '.join(bare)} bear no mark: they run a guest, or nobody said that they may be overwritten"
            fix = f"nvmelm secondary allow-resume {node} {bare[0]}, once nobody uses it; or {fix}"
        return BusyError(
            f"{picture.primary.address} has no resumable controller left", cause=cause, fix=fix, reason="no-target"
        )

    def _free_one(self, picture: Picture, taken: set[int]) -> Secondary:
        busy = {
            controller.cntlid
            for record in self.end.sessions.unfinished()
            if record.primary == picture.primary.address
            for controller in record.controllers
        }
        for secondary in picture.secondaries:
            usable = secondary.mark is not None and secondary.mark.holds and secondary.mark.role is Role.RESUMABLE
            if usable and secondary.cntlid not in taken | busy:
                return secondary
        raise self._no_target(picture)

    def _send_opened(self, picture: Picture, chosen: list[Secondary]) -> None:
        pairs = [
            messages.Pair(source=pair.source, destination=secondary.cntlid)
            for pair, secondary in zip(self.opening.pairs, chosen, strict=True)
        ]
        send(
            self.end.link,
            messages.Opened(
                primary=picture.primary.address,
                pairs=pairs,
                addresses=[str(secondary.address) for secondary in chosen],
                manifests=[manifest_of(self.end.pf, picture, secondary).dumps(indent=None) for secondary in chosen],
                held=["; ".join(secondary.used_by)[:1024] for secondary in chosen],
                continues=self.end.points.runs_at(Point.BEFORE_RESUME),
            ),
        )

    def _check_unchanged(self, picture: Picture, chosen: list[Secondary], prepare: messages.Prepare) -> None:
        digests = [manifest_of(self.end.pf, picture, secondary).digest for secondary in chosen]
        if digests != prepare.digests:
            cause = "what it says of itself is not what the two hosts compared"
            raise NvmelmError("the destination changed meanwhile", cause=cause, fix="migrate again")

    def _prepare(self, picture: Picture, chosen: list[Secondary]) -> None:
        """Suspend the targets, and let a transfer of the right size pass through once."""
        self.ledger.keep([secondary.cntlid for secondary in chosen])
        require_none(self.end.pf, picture.primary, chosen)
        formats = state_reader.formats_of(picture.primary)
        pairs = zip(self.opening.pairs, chosen, strict=True)
        started = time.monotonic()
        controllers = tuple(moving(self.end.pf, formats, secondary, pair.source) for pair, secondary in pairs)
        self._command_s = (time.monotonic() - started) / len(controllers)  # a short command each
        peer = _peer(self.opening.peer)
        self.ledger.begin(self.opening.session, Side.DESTINATION, peer, controllers)
        self.end.points.describe(self.opening.session, peer, self._described(chosen))
        suspend(self.end.pf, controllers)
        messages.warm_up()
        self._rehearse()
        self.end.points.call(Point.PREPARED)
        send(self.end.link, messages.Prepared())

    def _rehearse(self) -> None:
        passed = Rehearsal(self._digest)
        while True:
            frame = self.end.link.receive()
            if frame is None:
                continue
            if frame.kind == DATA:
                passed.write(frame.payload)
                continue
            message = messages.parse(frame, self.end.link.peer)
            if isinstance(message, messages.Abort):
                raise SourceGaveUpError(message.why)
            if not isinstance(message, messages.Rehearsed):
                raise messages.unexpected(message, self.end.link.peer)
            if (passed.bytes, passed.digest) != (message.bytes, message.digest):
                cause = f"{passed.bytes} of {message.bytes} bytes arrived, or others than were sent"
                raise WrongDigestError("the dry transfer did not arrive as it was sent", cause=cause)
            return

    def _load(self, picture: Picture) -> None:
        """Take the states, and write down that they are in."""
        message = self._next()
        if isinstance(message, messages.Abort):
            raise SourceGaveUpError(message.why)
        if not isinstance(message, messages.Suspended):
            raise messages.unexpected(message, self.end.link.peer)
        self.end.points.call(Point.SOURCE_SUSPENDED)
        self._touched = True
        controllers = self.ledger.known.controllers
        with Loading(
            self.end.pf, picture, self.end.link, controllers, digest=self._digest, command_s=self._command_s
        ) as loading:
            loaded = loading.run()
            self.ledger.require_kept()
            filled = loading.loaded()
        self.ledger.move(State.LOADED, controllers=filled)
        self._tell(messages.Loaded(states=loaded))  # from here on only the source, or an operator, decides

    def _await_decision(self) -> None:
        """Wait for the source's word; without it both copies stand still."""
        try:
            with interruptible():
                message = self._next()
        except (LinkLostError, MalformedError, KeyboardInterrupt) as error:
            let_go(error)
            raise self._uncertain(error) from error
        if isinstance(message, messages.Abort):
            self._abandon(message.why)
            self._tell(messages.Aborted())
        elif isinstance(message, messages.Give):
            self._take()
            with suppress(LinkLostError, MalformedError, KeyboardInterrupt), interruptible():
                self._next()  # Bye
        else:
            raise self._uncertain(messages.unexpected(message, self.end.link.peer))

    def _take(self) -> None:
        """The controllers are ours: write it down, resume them, say so."""
        self.ledger.move(State.ACCEPTED)
        self._notes += self.end.points.report(Point.BEFORE_RESUME)
        started = time.monotonic()
        resumed = try_resume(self.end.pf, self.ledger.known.controllers, strict=True)
        if resumed.failures:
            raise self._not_all_run(resumed) from resumed.worst
        taken_s = time.monotonic() - started
        # What runs must not wait for the disk: that it was about to run is written already.
        self._tell(messages.Running(resume_s=taken_s, notes=[note[:4096] for note in self._notes[:64]]))
        try:
            with ExitStack() as whatever_comes:
                whatever_comes.callback(self.end.points.report, Point.DESTINATION_RUNNING)
                whatever_comes.callback(use_up, self.end.pf, self.ledger.known.controllers)
                self.ledger.move(State.RUNNING)
        except NvmelmError as error:
            raise UncertainError(
                f"the controllers {self.ledger.known.names} run here, but that was not written down: {error.message}",
                cause=error.cause,
                fix="repair what is named; then nvmelm recover here",
                reason=error.reason,
            ) from error

    def _not_all_run(self, resumed: Resumed) -> UncertainError:
        """Stop those again that run already, and return the error to end with.

        Only what runs is suspended: one that lost its state must not look as if it held it.
        """
        try:
            suspend(self.end.pf, resumed.run)
        except Exception as error:  # whatever it is, an operator must know what runs
            names = ", ".join(f"{controller.cntlid:#06x}" for controller in resumed.run)
            all_of_them = self.ledger.known.names
            stand = f"of the controllers {all_of_them} these may run: {names}, since they were not stopped again"
            return self._uncertain(resumed.worst, f"{stand} ({unexpected(error).message})")
        return self._uncertain(resumed.worst)

    def _put_back(self, error: Exception | KeyboardInterrupt) -> NvmelmError:
        """Undo what was done here, and return the error to end with.

        The source is told first: it can run its controllers again while this side still tidies up.
        """
        let_go(error)
        failure = _as_ours(error)
        if self.ledger.record is None:
            return failure
        if self.ledger.record.state is not State.PREPARING:
            return self._uncertain(failure)
        if not isinstance(failure, SourceGaveUpError):
            self._tell(messages.failed(failure))
        try:
            self._abandon(failure.message)
        except (Exception, KeyboardInterrupt) as second:  # whatever it is, an operator must know
            reason = _as_ours(second).message
            failure.add_note(f"the destination could not be put back: {reason}; nvmelm recover there")
            return failure
        self._tell(messages.Aborted())
        failure.rolled_back = True
        return failure

    def _abandon(self, why: str) -> None:
        discard(self.end.pf, self.ledger.known.controllers, touched=self._touched)
        self.ledger.move(State.ABANDONED, why[:500])
        self.end.points.report(Point.ROLLED_BACK)

    def _uncertain(self, error: Exception | KeyboardInterrupt, stand: str = "") -> UncertainError:
        """Return the error of a session that only the source, or an operator, can decide.

        Args:
            stand: how the controllers stand, when they are not all suspended.
        """
        failure = _as_ours(error)
        self.end.points.report(Point.UNCERTAIN)
        record = self.ledger.known
        what = f"session {record.id} is {record.state} here; "
        if isinstance(failure, CopyLostError):
            return CopyLostError(
                what + (stand or f"the states moved into {record.names} are not all there any more; nothing runs"),
                cause=failure.message,
                fix=without_copy(record),
            )
        return UncertainError(
            what + (stand or f"the controllers {record.names} stay suspended"),
            cause=failure.message,
            fix="nvmelm recover, on either host, as soon as the two can speak",
            reason="session-uncertain",
        )

    def _tell(self, message: messages.Message) -> None:
        """Say something that changes nothing here when it does not arrive."""
        with suppress(LinkLostError):
            send(self.end.link, message)

    def _next(self) -> messages.AnyMessage:
        """Return the next message; the source may take its time, as long as it gives signs of life."""
        while True:
            frame = self.end.link.receive()
            if frame is not None:
                return messages.parse(frame, self.end.link.peer)

    def _described(self, chosen: list[Secondary]) -> list[Mapping[str, Any]]:
        return [
            described(self.end, secondary, peer_cntlid=pair.source)
            for pair, secondary in zip(self.opening.pairs, chosen, strict=True)
        ]


def _as_ours(error: Exception | KeyboardInterrupt) -> NvmelmError:
    return unexpected(error) if isinstance(error, Exception) else InterruptedByUserError("interrupted")


def _peer(text: str) -> str:
    """Return where the source says it can be reached, if that is an address."""
    try:
        return str(Address.parse(text)) if text else ""
    except UsageError:
        return ""
