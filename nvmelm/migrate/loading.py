"""The states of a session on their way from the link into the targets.

One thread receives, and one for each state sets it, unless a single small one is all that comes. A state that needs
several commands is set alone: its parts come one behind the other on the link as well, so a state that waits for its
turn never keeps another one's bytes back.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from nvmelm.commands import AdminCommandError
from nvmelm.errors import MalformedError, NvmelmError
from nvmelm.migrate import messages
from nvmelm.migrate.link import DATA, Frame, Link
from nvmelm.migrate.messages import send
from nvmelm.migrate.streams import SMALL_BYTES, Arriving
from nvmelm.operations import state
from nvmelm.operations.image_stream import StreamedImage
from nvmelm.operations.ownership import Moving
from nvmelm.operations.session import Session
from nvmelm.picture import Picture

#: A state that failed in the middle is asked for again this often.
_REPEATS = 2


class _State:
    """One state: what arrives of it, and what became of it."""

    def __init__(self, one: Moving, digest: str) -> None:
        self.one = one
        self.arriving = Arriving(digest)
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.loaded: messages.LoadedOne | None = None
        self.frames = 0
        self.sent = False
        self.again = False


class Loading:
    """All states of a session.

    Args:
        controllers: the targets, in the order of the session; stream ``n`` is that of controller ``n % count``.
        digest: the one the session agreed on.
    """

    def __init__(
        self, session: Session, picture: Picture, link: Link, controllers: Sequence[Moving], *, digest: str
    ) -> None:
        self._session = session
        self._link = link
        self._controllers = controllers
        self._digest = digest
        self._device_bytes = picture.primary.max_transfer_bytes
        self._target = state.Target.of(picture.primary)
        self._limit = state.transfer_limit(session.queue, self._device_bytes)
        self._alone = len(controllers) == 1 or session.host.serial
        self._one_by_one = threading.Lock()
        self._states: dict[int, _State] = {}
        self._failed = threading.Event()

    def run(self) -> list[messages.LoadedOne]:
        """Take every state; returns when all are in.

        Raises:
            NvmelmError: one could not be set, or the link was lost; nothing is to be resumed.
        """
        for number, one in enumerate(self._controllers):
            self._states[number] = _State(one, self._digest)
        while not self._all_in():
            frame = self._next()
            if frame is None:
                continue  # a state is in, or failed
            message = messages.parse(frame, self._link.peer)
            if isinstance(message, messages.Sent):
                self._end(self._state(message.stream))
            elif isinstance(message, messages.Abort):
                raise SourceGaveUpError(message.why)
            else:
                raise messages.unexpected(message, self._link.peer)
        return [one for one in (self._latest(number).loaded for number in range(len(self._controllers))) if one]

    def __enter__(self) -> Loading:
        return self

    def __exit__(self, *error: object) -> None:
        for one in self._states.values():
            one.arriving.abandon()
        for one in self._states.values():
            if one.thread is not None:
                one.thread.join()

    def _next(self) -> Frame | None:
        """Hand data over as it comes; return the first frame that is none, or None when a state is in, or failed."""
        while True:
            frame = self._link.receive()
            if frame is None or frame.kind != DATA:
                return frame
            found = self._state(frame.stream)
            if found.thread is None and (found.frames or len(frame.payload) > SMALL_BYTES):
                self._start(found)
            found.frames += 1
            found.arriving.put(frame.payload)
            if self._failed.is_set():
                return None

    def _end(self, found: _State) -> None:
        """Take the end of a state. One that came in one frame is all there: a thread for it alone would only cost."""
        found.sent = True
        found.arriving.end()
        if found.thread is None and self._alone:
            self._set(found)
        elif found.thread is None:
            self._start(found)

    def _start(self, found: _State) -> None:
        name = f"nvmelm-set-{found.one.cntlid:#06x}"
        found.thread = threading.Thread(target=self._set_apart, args=(found,), name=name)
        found.thread.daemon = True
        found.thread.start()

    def _state(self, stream: int) -> _State:
        found = self._states.get(stream)
        if found is None or found.sent:
            raise MalformedError(f"{self._link.peer} sent data of a stream that is not open", reason="protocol")
        return found

    def _latest(self, number: int) -> _State:
        count = len(self._controllers)
        return self._states[max(stream for stream in self._states if stream % count == number)]

    def _all_in(self) -> bool:
        """Return whether every state is in; ask for those again that the device lost."""
        for number, one in enumerate(self._controllers):
            latest = self._latest(number)
            if latest.error is not None and not latest.again:
                self._ask_again(number, one, latest.error)
        return all(self._latest(number).loaded for number in range(len(self._controllers)))

    def _ask_again(self, number: int, one: Moving, error: BaseException) -> None:
        latest = self._latest(number)
        repeats = sum(1 for stream in self._states if stream % len(self._controllers) == number)
        if not isinstance(error, AdminCommandError) or error.status.dnr or repeats > _REPEATS:
            raise error
        if latest.sent:
            latest.again = True
            self._states[number + repeats * len(self._controllers)] = _State(one, self._digest)
            send(self._link, messages.Again(source=one.peer_cntlid, why=error.message[:4096]))

    def _set_apart(self, found: _State) -> None:
        """Put one state into its target, in a thread of its own."""
        self._set(found)
        self._link.wake()

    def _set(self, found: _State) -> None:
        try:
            name = f"the state of {found.one.peer_cntlid:#06x}"
            image = StreamedImage(found.arriving.get, name, digest=found.arriving.digest)
            small = image.header.state_bytes <= self._limit
            if small:
                done = self._restore(found.one, image, retries=_REPEATS)
            else:
                with self._one_by_one:
                    done = self._restore(found.one, image, retries=0)
            found.loaded = messages.LoadedOne(
                source=found.one.peer_cntlid,
                digest=image.proven.hex(),
                set_s=done.seconds,
                commands=done.commands,
            )
        except BaseException as error:  # raised again by the thread that waits for this one
            found.error = error
            self._failed.set()
            found.arriving.unwanted()

    def _restore(self, one: Moving, image: StreamedImage, *, retries: int) -> state.Restored:
        waited_before = image.waited_s
        done = state.restore(
            self._session.queue,
            one.cntlid,
            image,
            target=self._target,
            device_bytes=self._device_bytes,
            suspended=True,
            retries=retries,
        )
        return replace(done, seconds=max(0.0, done.seconds - (image.waited_s - waited_before)))


class SourceGaveUpError(NvmelmError):
    """The source aborted the session, and runs its controllers again."""

    kind = "source_gave_up"

    def __init__(self, why: str) -> None:
        super().__init__("the source gave up", cause=why, reason="source-gave-up")
