"""The states of a session on their way from the link into the targets.

The only state of a session is set by the thread that receives it where the device is quick: what arrives meanwhile
waits in the buffers of the link, and a second thread would cost more than it saves. Otherwise one thread receives, and
one for each state sets it. A state that needs several commands is set alone: its parts come one behind the other on the
link as well, so a state that waits for its turn never keeps another one's bytes back.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from nvmelm.commands import AdminCommandError
from nvmelm.errors import MalformedError, SourceGaveUpError
from nvmelm.inventory import state_reader
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import Picture
from nvmelm.migrate.link import messages
from nvmelm.migrate.link.frames import Link
from nvmelm.migrate.link.layout import DATA, Frame
from nvmelm.migrate.link.messages import send
from nvmelm.migrate.link.streams import Arriving
from nvmelm.ownership.sessions import Moving
from nvmelm.process.interrupts import begin, held_back
from nvmelm.state import restore as state_restore
from nvmelm.state.image.stream import Receive, StreamedImage, TailDigest
from nvmelm.state.read_ahead import WORTH_A_THREAD_S
from nvmelm.wire.layout import Buffer
from nvmelm.wire.migration import KNOWN_VERSION, NvmeStateHeader

#: A state that failed in the middle is asked for again this often.
_REPEATS = 2


class _State:
    """One state: what arrives of it, and what became of it."""

    def __init__(self, controller: Moving, digest: str) -> None:
        self.controller = controller
        self.arriving = Arriving(digest)
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.loaded: messages.LoadedOne | None = None
        self.sent = False
        self.again = False


class _Pulled:
    """The pieces of a state that are read from the link when they are wanted."""

    def __init__(self, link: Link, stream: int, digest: str) -> None:
        self.digest = TailDigest(digest)
        self._link = link
        self._stream = stream
        self._ended = False

    def get(self) -> Buffer | None:
        """Return the next piece, or None at the end."""
        while not self._ended:
            frame = self._link.receive()
            if frame is None:
                continue
            stream = frame.stream if frame.kind == DATA else _sent(frame, self._link.peer).stream
            if stream != self._stream:
                raise _not_open(self._link)
            if frame.kind == DATA:
                self.digest.update(frame.payload)
                return frame.payload
            self._ended = True
        return None

    def drop(self) -> None:
        """Pass over what is left."""
        while self.get() is not None:
            pass


class Loading:
    """All states of a session.

    Args:
        controllers: the targets, in the order of the session; stream ``n`` is that of controller ``n % count``.
        digest: the one the session agreed on.
        command_s: what a short command takes on this device, s.
    """

    def __init__(
        self,
        pf: OpenPrimary,
        picture: Picture,
        link: Link,
        controllers: Sequence[Moving],
        *,
        digest: str,
        command_s: float,
    ) -> None:
        self._pf = pf
        self._link = link
        self._controllers = controllers
        self._digest = digest
        self._device_bytes = picture.primary.max_transfer_bytes
        self._target = state_restore.Target.of(picture.primary)
        self._limit = state_reader.transfer_limit(pf.queue, self._device_bytes)
        self._pulls = len(controllers) == 1 and command_s < WORTH_A_THREAD_S
        self._one_by_one = threading.Lock()
        self._states: dict[int, _State] = {}
        self._failed = threading.Event()
        self._idle: set[int] = set()

    def run(self) -> list[messages.LoadedOne]:
        """Take every state; returns when all are in.

        Raises:
            NvmelmError: one could not be set, or the link was lost; nothing is to be resumed.
        """
        if self._pulls:
            return [self._pull(self._controllers[0])]
        for number, controller in enumerate(self._controllers):
            self._begin(number, controller)
        while not self._all_in():
            frame = self._next()
            if frame is None:
                continue  # a state is in, or failed
            state = self._state(_sent(frame, self._link.peer).stream)
            state.sent = True
            state.arriving.end()
        return [
            loaded for loaded in (self._latest(number).loaded for number in range(len(self._controllers))) if loaded
        ]

    def loaded(self) -> tuple[Moving, ...]:
        """Return the targets, with what is known of the states that are in them."""
        return tuple(replace(controller, idle=controller.cntlid in self._idle) for controller in self._controllers)

    def _pull(self, controller: Moving) -> messages.LoadedOne:
        """Take the only state, again when the device lost it."""
        stream = 0
        while True:
            pulled = _Pulled(self._link, stream, self._digest)
            try:
                return self._set(controller, pulled.get, pulled.digest)
            except AdminCommandError as error:
                if error.status.dnr or stream == _REPEATS:
                    raise
                pulled.drop()
                self._ask_for(controller, error)
                stream += 1

    def __enter__(self) -> Loading:
        return self

    def __exit__(self, *error: object) -> None:
        for state in self._states.values():
            state.arriving.abandon()
        with held_back():  # an interrupt here would leave a thread that sets what is being put back
            for state in self._states.values():
                if state.thread is not None:
                    state.thread.join()

    def _next(self) -> Frame | None:
        """Hand data over as it comes; return the first frame that is none, or None when a state is in, or failed."""
        while True:
            frame = self._link.receive()
            if frame is None or frame.kind != DATA:
                return frame
            self._state(frame.stream).arriving.put(frame.payload)
            if self._failed.is_set():
                return None

    def _begin(self, stream: int, controller: Moving) -> None:
        self._states[stream] = state = _State(controller, self._digest)
        name = f"nvmelm-set-{controller.cntlid:#06x}"
        thread = threading.Thread(target=self._try, args=(state,), name=name, daemon=True)
        begin(thread)
        state.thread = thread  # one that could not start is not waited for

    def _state(self, stream: int) -> _State:
        state = self._states.get(stream)
        if state is None or state.sent:
            raise _not_open(self._link)
        return state

    def _latest(self, number: int) -> _State:
        count = len(self._controllers)
        return self._states[max(stream for stream in self._states if stream % count == number)]

    def _all_in(self) -> bool:
        """Return whether every state is in; ask for those again that the device lost."""
        for number, controller in enumerate(self._controllers):
            latest = self._latest(number)
            if latest.error is not None and not latest.again:
                self._ask_again(number, controller, latest.error)
        return all(self._latest(number).loaded for number in range(len(self._controllers)))

    def _ask_again(self, number: int, controller: Moving, error: BaseException) -> None:
        latest = self._latest(number)
        repeats = sum(1 for stream in self._states if stream % len(self._controllers) == number)
        if not isinstance(error, AdminCommandError) or error.status.dnr or repeats > _REPEATS:
            raise error
        if latest.sent:
            latest.again = True
            self._begin(number + repeats * len(self._controllers), controller)
            self._ask_for(controller, error)

    def _ask_for(self, controller: Moving, error: AdminCommandError) -> None:
        send(self._link, messages.Again(source=controller.peer_cntlid, why=error.message[:4096]))

    def _try(self, state: _State) -> None:
        """Put one state of several into its target, in a thread of its own."""
        try:
            state.loaded = self._set(state.controller, state.arriving.get, state.arriving.digest)
        except BaseException as error:  # raised again by the thread that waits for this one
            state.error = error
            self._failed.set()
            state.arriving.unwanted()
        self._link.wake()

    def _set(self, controller: Moving, get: Receive, digest: TailDigest) -> messages.LoadedOne:
        """Put one state into its target."""
        image = StreamedImage(get, f"the state of {controller.peer_cntlid:#06x}", digest=digest)
        if image.header.state_bytes <= self._limit:
            done = self._restore(controller, image, retries=_REPEATS)
        else:
            with self._one_by_one:
                done = self._restore(controller, image, retries=0)
        if image.header.state_version == KNOWN_VERSION and image.header.nvme_bytes == NvmeStateHeader.size:
            self._idle.add(controller.cntlid)  # an entry for each queue would follow
        return messages.LoadedOne(
            source=controller.peer_cntlid, digest=image.proven.hex(), set_s=done.seconds, commands=done.commands
        )

    def _restore(self, controller: Moving, image: StreamedImage, *, retries: int) -> state_restore.Restored:
        waited_before = image.waited_s
        done = state_restore.restore(
            self._pf.queue,
            controller.cntlid,
            image,
            target=self._target,
            device_bytes=self._device_bytes,
            suspended=True,
            retries=retries,
        )
        return replace(done, seconds=max(0.0, done.seconds - (image.waited_s - waited_before)))


def _sent(frame: Frame, peer: str) -> messages.Sent:
    """Return the message that ends a state, and nothing else."""
    message = messages.parse(frame, peer)
    if isinstance(message, messages.Abort):
        raise SourceGaveUpError(message.why)
    if not isinstance(message, messages.Sent):
        raise messages.unexpected(message, peer)
    return message


def _not_open(link: Link) -> MalformedError:
    return MalformedError(f"{link.peer} sent data of a stream that is not open", reason="protocol")
