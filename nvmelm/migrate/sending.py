"""The states of a session on their way from the suspended controllers to the link.

Several controllers are read at the same time. The main thread meanwhile listens: a destination that cannot go on says
so at once, and the guest need not wait until the last byte of a large state was sent in vain. Threads that still send
when it is over end with the frame they are at; who closes the link waits for them, so none is left when the
controller's node is closed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from nvmelm.errors import HostError, ImageError, MalformedError
from nvmelm.host import Progress
from nvmelm.inventory import state_reader
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import Picture, Secondary
from nvmelm.migrate.link import messages
from nvmelm.migrate.link.frames import Link
from nvmelm.migrate.link.messages import send
from nvmelm.migrate.link.streams import SMALL_BYTES, LinkSink
from nvmelm.ownership.sessions import Moving
from nvmelm.state import save as state_save
from nvmelm.state.image.format import ImageSource

#: So often one state may be asked for again; the destination gives up earlier.
_REPEATS = 8


class Sending:
    """All states of a session, in its order.

    Args:
        digest: the one the session agreed on.

    Attributes:
        saved: what was sent, by controller; of the last time when one was sent again.
        seconds: from the first command to the destination's word that all states are in.
        complete: every state is out, or about to be: the destination may have them all from here on.
    """

    def __init__(
        self,
        pf: OpenPrimary,
        picture: Picture,
        chosen: Sequence[Secondary],
        link: Link,
        controllers: Sequence[Moving],
        *,
        digest: str,
    ) -> None:
        self.saved: dict[int, state_save.Saved] = {}
        self.seconds = 0.0
        self.complete = False
        self._pf = pf
        self._picture = picture
        self._chosen = {secondary.cntlid: secondary for secondary in chosen}
        self._link = link
        self._controllers = controllers
        self._digest = digest
        self._wire = threading.Lock()
        self._formats = state_reader.formats_of(picture.primary)
        self._stopped = threading.Event()
        self._errors: list[BaseException] = []
        self._sizes: Mapping[int, int] = {}
        self._repeats: Counter[int] = Counter()
        self._progress: Progress | None = None

    def run(self, progress: Progress | None, sizes: Mapping[int, int]) -> messages.Loaded:
        """Send every state, and return what the destination says when all are in.

        Args:
            progress: called with bytes of the first state.
            sizes: bytes of each state as they were a moment ago.

        Raises:
            RemoteError: the destination cannot take them.
            NvmelmError: a state could not be read, or is not proven.
        """
        started = time.monotonic()
        self._progress, self._sizes = progress, sizes
        try:
            loaded = self._send_all()
        except BaseException:
            self._stopped.set()
            raise
        self.seconds = time.monotonic() - started
        return loaded

    def _send_all(self) -> messages.Loaded:
        few = len(self._controllers) == 1 or self._pf.host.serial
        if few and max(self._sizes.values(), default=0) <= SMALL_BYTES // 2:
            for number, controller in enumerate(self._controllers):
                self._send(controller, number)
        else:
            for number, controller in enumerate(self._controllers):
                self._start(controller, number)
        loaded = self._await_loaded()
        self._check(loaded)
        return loaded

    def _start(self, controller: Moving, stream: int) -> None:
        try:
            self._link.begin(partial(self._try, controller, stream), f"nvmelm-get-{controller.cntlid:#06x}")
        except HostError:  # no thread is to be had: one after the other, then
            self._send(controller, stream)

    def _try(self, controller: Moving, stream: int) -> None:
        try:
            self._send(controller, stream)
        except BaseException as error:  # raised again by the thread that waits for this one
            self._errors.append(error)
        self._link.wake()

    def _send(self, controller: Moving, stream: int) -> None:
        """Read one state and send it as an image."""
        with LinkSink(self._link, stream, self._wire, self._stopped) as sink:
            self.saved[controller.cntlid] = state_save.save(
                self._pf.queue,
                controller.cntlid,
                sink,
                source=ImageSource.of(self._picture.primary, self._chosen[controller.cntlid]),
                formats=self._formats,
                # Of several any will do: a destination that was found compatible takes all that the source gives.
                vendor_uuid=self._formats.uuids[0] if self._formats.uuids else None,
                device_bytes=self._picture.primary.max_transfer_bytes,
                digest=self._digest,
                expected_bytes=self._sizes.get(controller.cntlid, 0),
                progress=self._progress if controller is self._controllers[0] else None,
            )
            # Written before the frame goes out; of several threads the last one to get here sees all the others.
            self.complete = self.complete or len(self.saved) == len(self._controllers)
            send(self._link, messages.Sent(stream=stream))

    def _await_loaded(self) -> messages.Loaded:
        while True:
            if self._errors:
                raise self._errors[0]
            frame = self._link.receive()
            if frame is None:
                continue
            message = messages.parse(frame, self._link.peer)
            if isinstance(message, messages.Loaded):
                return message
            if isinstance(message, messages.Failed):
                raise messages.remote_error(message, self._link.peer)
            if not isinstance(message, messages.Again):
                raise messages.unexpected(message, self._link.peer)
            self._again(message)

    def _again(self, message: messages.Again) -> None:
        """Send a state once more that the destination's device lost in the middle."""
        numbers = [number for number, controller in enumerate(self._controllers) if controller.cntlid == message.source]
        self._repeats[message.source] += 1
        repeat = self._repeats[message.source]
        if not numbers or repeat > _REPEATS:
            raise MalformedError(f"{self._link.peer} asks for a state too often", cause=message.why, reason="protocol")
        self._start(self._controllers[numbers[0]], numbers[0] + repeat * len(self._controllers))

    def _check(self, loaded: messages.Loaded) -> None:
        """Compare what is in with what was sent."""
        theirs = {state.source: state.digest for state in loaded.states}
        ours = {cntlid: saved.digest for cntlid, saved in self.saved.items()}
        if theirs != ours:
            raise ImageError(
                f"{self._link.peer} holds other states than were sent",
                cause="the digests are not the same",
                fix="migrate again; this must not happen on an ssh connection",
                reason="wrong-digest",
            )
