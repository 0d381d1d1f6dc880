"""One controlled function as VFIO's migration interface shows it: what each single arc does.

==========================  ============================================================================================
RUNNING → RUNNING_P2P       Suspend; a controller that is off needs none. A suspended controller starts no DMA at all
RUNNING_P2P ↔ STOP          nothing: it stands still already
STOP → STOP_COPY            registers and admin queue position are read, Get State into a proven image; the stream opens
STOP_COPY → STOP            the stream ends
STOP → RESUMING             the stream opens; its header is judged as soon as it has arrived
RESUMING → STOP             registers, admin queue, Suspend, Set State (:mod:`nvmelm.vfio.loading`)
RUNNING_P2P → RUNNING       Resume; of a state that arrived, once and for all
==========================  ============================================================================================

An arc that is refused leaves the function where it was, or, when nobody knows what the controller holds, in ERROR, out
of which only a reset leads. Who runs is the VMM's to decide; one stream is resumed once.

A state is loaded when its VM starts, since only then the VMM has restored everything else. QEMU starts a VM whatever
its devices answer then, and tells the source afterwards that all is well. So the refusal of a state that has arrived
whole ends the VMM: the source hears nothing, and the VM goes on there.

All commands go to the controlling function. What is asked of the controlled one are registers that its guest's driver
wrote, and which nothing else carries.

Source: Linux include/uapi/linux/vfio.h, enum vfio_device_mig_state; drivers/vfio/vfio_main.c, vfio_mig_get_next_state.
"""

from __future__ import annotations

import errno
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace

from nvmelm.commands import AdminCommandError
from nvmelm.errors import HostError, NvmelmError, UncertainError
from nvmelm.inventory import marks, state_reader
from nvmelm.inventory.picture import Role
from nvmelm.inventory.vm_moves import Event, Held
from nvmelm.state import running
from nvmelm.vfio import loading, seam
from nvmelm.vfio.arcs import way
from nvmelm.vfio.arrival import JudgedStream
from nvmelm.vfio.departure import depart, spool
from nvmelm.vfio.dirty import stop_quietly
from nvmelm.vfio.loading import Loader, LoadingError
from nvmelm.vfio.logged import LoggedFunction
from nvmelm.vfio.passport import Passport, current, look, marked, state_bytes
from nvmelm.vfio.refusals import refusal_of
from nvmelm.vfio.registers import Controller, reachable
from nvmelm.vfio.seam import DeviceState, Refusal
from nvmelm.vfio.stream import PADDING_BYTES, ArrivingStream, SpooledStream, StreamHeader, warm_up

#: More than any state without a vendor's part; QEMU wants an estimate, and never 0.
_LEAST_BYTES = 64 * 1024

#: After these nobody knows what the controller does: a command that timed out had the driver reset its primary.
_LOST = frozenset({errno.ETIMEDOUT, errno.ENODEV})

_UNMARKED = (
    "{name} has no mark that holds, so its VM cannot migrate: nvmelm secondary allow-migration (or allow-resume)"
)

_Arc = tuple[DeviceState, DeviceState]


@dataclass(slots=True)
class _Arrival:
    """A state that was loaded and has not run yet: the id of its stream, and whether that was claimed for it."""

    stream: str
    notes: tuple[str, ...] = ()
    claimed: bool = False


@dataclass(slots=True)
class ControlledFunction(LoggedFunction):
    """One controlled function; see :class:`nvmelm.vfio.seam.Function`."""

    _state: DeviceState = DeviceState.RUNNING
    _mark_text: str = ""
    _allowed: bool = False
    _unmarked: Refusal = field(init=False)
    _passport: Passport | None = None
    _state_bytes: int = 0
    _outgoing: SpooledStream | None = None
    _incoming: JudgedStream | None = None
    _arrival: _Arrival | None = None

    def __post_init__(self, record: Held) -> None:
        LoggedFunction.__post_init__(self, record)
        self._unmarked = Refusal(errno.ENOTTY, _UNMARKED.format(name=self._name))  # the same each time: said once
        if self.opening.reopened:
            self._state = DeviceState.ERROR  # unless the controller can be asked
            with suppress(Refusal), self._journal.answering("TAKE UP"):
                self._take_up()
        self._remember("opened", 0.0)

    # What the VMM asks

    def flags(self) -> int:
        """Return STOP_COPY and P2P; ENOTTY for a function that no mark allows to migrate.

        Asked before every call: the facts behind a mark are read when its file has changed, and by the arcs themselves.
        """
        text = marks.stored_text(self.host, self.held.primary, self.held.cntlid)
        if text != self._mark_text:
            with self._journal.answering("PROBE"), self._session() as opened:
                mark = current(self.held, opened.picture(users=False)).mark
            self._mark_text, self._allowed = text, mark is not None and mark.holds
        if not self._allowed:
            raise self._unmarked
        return seam.STOP_COPY | seam.P2P

    @property
    def state(self) -> DeviceState:
        """Return the state, in VFIO's words."""
        return self._state

    def set_state(self, state: DeviceState) -> seam.Outgoing | seam.Incoming | None:
        """Take the arcs to a state; the stream of the last one, if it has one, is returned."""
        stream: seam.Outgoing | seam.Incoming | None = None
        try:
            state = DeviceState(state)
            arcs = list(way(self._state, state))
        except ValueError as error:
            raise Refusal(errno.EINVAL, str(error)) from error
        started, before, arrives = time.monotonic(), self._state, False
        try:
            for arc in arcs:
                arrives = self._arrives
                with self._journal.answering(f"{arc[0].name} to {arc[1].name}"):
                    stream = self._take(arc)
                self._state = arc[1]
        except Refusal as refusal:
            if refusal.errno in _LOST:
                self._state = DeviceState.ERROR
            refusal.ends_vm = arrives and not self._begun_elsewhere()
            raise
        finally:
            if arcs:
                self._remember(f"{before.name} to {state.name}", time.monotonic() - started)
        return stream

    def data_size(self) -> int:
        """Return an estimate of the stream's length; what is needed before the VM stops is read here as well."""
        with self._journal.answering("MIG_DATA_SIZE"):
            warm_up()
            with self._session() as opened:
                passport = self._passport = look(opened, self.held)
                self._state_bytes = state_bytes(opened, passport)
            return _LEAST_BYTES + PADDING_BYTES + len(passport.manifest.dumps(indent=None)) + self._state_bytes

    def was_reset(self) -> None:
        """Forget what was loaded, and end a suspension that outlived the reset: the controller is off now."""
        self._drop_streams()
        if self._suspended or self._state is not DeviceState.RUNNING:
            with suppress(Refusal), self._journal.answering("RESET"):
                self._with_queue(lambda queue: running.resume(queue, self.held.cntlid))
        self._suspended, self._arrival, self._outgoing = False, None, None
        self._state = DeviceState.RUNNING
        self._remember("reset", 0.0)

    def close(self) -> None:
        """Write down whether the function left with its VM, and let go of it."""
        left = self._outgoing is not None and self._outgoing.finished and self._state is not DeviceState.ERROR
        notes = stop_quietly(self._log) if self._log is not None else ""
        self._log = None
        if left:
            self._journal.note(Event.LEFT, self.held.stream, notes)
        self._drop_streams()
        self._outgoing = None
        with suppress(HostError):
            self._moves.let_go(self.held.address)

    # The single arcs

    def _take(self, arc: _Arc) -> seam.Outgoing | seam.Incoming | None:
        match arc:
            case DeviceState.RUNNING, DeviceState.RUNNING_P2P:
                self._suspend()
            case DeviceState.RUNNING_P2P, DeviceState.RUNNING:
                self._resume()
            case DeviceState.RUNNING_P2P, DeviceState.STOP if not self._suspended:
                self._suspend()  # somebody may have enabled it meanwhile
            case DeviceState.STOP, DeviceState.STOP_COPY:
                return self._depart()
            case DeviceState.STOP_COPY, DeviceState.STOP:
                if self._outgoing is not None:
                    self._outgoing.close()
            case DeviceState.STOP, DeviceState.RESUMING:
                return self._expect()
            case DeviceState.RESUMING, DeviceState.STOP:
                self._load()
        return None

    def _suspend(self) -> None:
        """Suspend a controller that is on; one that is off and suspended all the same is left over from another VM."""
        with reachable(self.opening.registers):
            enabled = Controller(self.opening.registers).enabled
        if enabled:
            self._with_queue(lambda queue: running.suspend(queue, self.held.cntlid))
        self._suspended = enabled or self._is_suspended()

    def _resume(self) -> None:
        arrival = self._arrival
        if arrival is not None and not arrival.claimed:
            self._moves.claim(arrival.stream)
            arrival.claimed = True
        if self._suspended:
            with self._session() as opened:
                resumed = running.resume(opened.queue, self.held.cntlid).changed
            if arrival is not None and not resumed:
                self._state = DeviceState.ERROR
                raise UncertainError(
                    f"{self._name} was not suspended any more when its VM was to start",
                    cause="it was reset meanwhile, and what was loaded is lost",
                    fix="let the VM run on at the source",
                    reason="arrival-lost",
                )
        self._suspended = False
        if arrival is not None:
            self._arrived(arrival)
        elif self._outgoing is not None:
            self._journal.note(Event.STAYED, self._outgoing.header.id)
        self._outgoing, self._arrival, self._passport = None, None, None
        self._journal.held = replace(self.held, stream="")

    def _take_up(self) -> None:
        """Go on from what was recorded, and from what the controller says: an arc may have been cut off."""
        self._state, suspended = DeviceState[self.held.state], self._is_suspended()
        if self._state is DeviceState.RUNNING and suspended:
            self._state = DeviceState.RUNNING_P2P
        elif self.held.suspended and not suspended:
            runs = self._state is DeviceState.RUNNING_P2P and not self.held.arriving
            self._state = DeviceState.RUNNING if runs else DeviceState.ERROR
        self._suspended = suspended
        if self.held.arriving:
            self._arrival = _Arrival(self.held.arriving)

    def _is_suspended(self) -> bool:
        with self._session() as opened:
            formats = state_reader.formats_of(opened.picture(users=False).primary)
            try:
                return state_reader.is_suspended(opened.queue, self.held.cntlid, formats)
            except AdminCommandError:  # a controller that gives no state stands in nobody's way
                return False

    def _depart(self) -> SpooledStream:
        with self._session() as opened:
            passport = self._passport or look(opened, self.held)
            secondary = marked(self.host, passport, Role.MIGRATABLE)
            stream = depart(opened, self.opening, secondary, passport, self.options, self._state_bytes)
        self._outgoing = stream
        self._journal.held = replace(self.held, stream=stream.header.id)
        self._journal.write(Event.LEAVING)
        return stream

    def _expect(self) -> JudgedStream:
        warm_up()
        with self._session() as opened:
            passport = self._passport = look(opened, self.held)
            loading.warm_up(passport.manifest)
            marked(self.host, passport, Role.RESUMABLE)
        stream = ArrivingStream(
            spool(self.host),
            lambda header: self._judge(passport, header),
            lambda image: loading.require_fit(image, passport),
        )
        self._incoming = JudgedStream(stream, self._journal.answering)
        return self._incoming

    def _judge(self, passport: Passport, header: StreamHeader) -> None:
        """Refuse what does not fit here, before its state has arrived."""
        self._journal.held = replace(self.held, stream=header.id)
        self._journal.write(Event.ARRIVING, source_vm=header.vm, source_address=header.address)
        self._moves.expect(header.id)
        self.options.judge(header.source_manifest(), passport.manifest, self._name)
        loading.require_room(header.admin_queue, passport)

    def _load(self) -> None:
        incoming, self._incoming = self._incoming, None
        passport = self._passport
        if incoming is None or passport is None:
            self._state = DeviceState.ERROR
            raise Refusal(errno.EBADMSG, f"no state has arrived for {self._name}: the interposer began anew meanwhile")
        try:
            header = incoming.header()
            with self._session() as opened:
                marked(self.host, passport, Role.RESUMABLE)
                loader = Loader(self.opening, opened.queue, self.held.cntlid, passport, self.habits)
                loaded = loader.load(header, incoming.stream.image)
        except LoadingError as error:
            self._state, self._suspended = DeviceState.ERROR, False
            raise refusal_of(error.__cause__) from error
        finally:
            incoming.stream.close()
        self._suspended = loaded.suspended
        self._arrival = _Arrival(header.id, loaded.notes)

    def _arrived(self, arrival: _Arrival) -> None:
        """Have the guest look at its queues, write down that it runs here, and let it move on from here."""
        notes = list(arrival.notes)
        try:
            self.opening.vectors.trigger()
        except OSError as error:
            notes.append(f"its interrupts were not raised once ({error}); one that was lost in the move stays lost")
        try:
            self._let_move_on()
        except NvmelmError as error:
            notes.append(f"it has no mark to move on: {error.message}")
        self._journal.note(Event.ARRIVED, arrival.stream, "; ".join(notes))

    def _let_move_on(self) -> None:
        """Mark the function migratable, by the facts that its resumable mark was looked at with."""
        passport = self._passport
        if passport is None:  # a restarted agent has read nothing yet
            with self._session() as opened:
                passport = look(opened, self.held)
        marks.verify(passport.picture, passport.secondary)
        marks.give(self.host, passport.picture, passport.secondary, Role.MIGRATABLE, durable=False)

    @property
    def _arrives(self) -> bool:
        """Whether a state has arrived whole and has not run yet: the VMM starts its VM."""
        return self._arrival is not None or (self._incoming is not None and self._incoming.whole)

    def _begun_elsewhere(self) -> bool:
        """Return whether another function of the VM runs already; then the VM has begun here, and the guest copes."""
        with suppress(NvmelmError):
            return any(
                held.pid == self.held.pid and held.address != self.held.address and held.state == "RUNNING"
                for held in self._moves.all_held()
            )
        return False

    # What the arcs share

    def _remember(self, arc: str, seconds: float) -> None:
        self._journal.remember(
            state=self._state.name,
            suspended=self._suspended,
            arc=arc,
            arc_seconds=round(seconds, 6),
            arriving=self._arrival.stream if self._arrival is not None else "",
        )

    def _drop_streams(self) -> None:
        if self._outgoing is not None:
            self._outgoing.close()
        if self._incoming is not None:
            self._incoming.stream.close()
            self._incoming = None
