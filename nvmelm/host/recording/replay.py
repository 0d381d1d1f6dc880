"""Replay a recording: a :class:`~nvmelm.host.Host` that answers from a transcript and from nothing else.

It is strict. Every call must be the next one of the recording, in every field; the first that is not raises
:class:`EventMismatchError`, and so does closing the host while events are left over. An error that was recorded is
raised again as the same type.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

from nvmelm.errors import EventMismatchError, NvmelmError, ReplayMismatchError, host_error
from nvmelm.host import AdminCommand, AdminQueue, Claim, Completion, HostFacts, Mount, Opener, Uevents
from nvmelm.host.recording.events import (
    AdminEvent,
    ClaimFact,
    Event,
    FactsFact,
    HostEvent,
    MountFact,
    OpenerFact,
    SysfsEvent,
    clean,
    command_request,
    no_queue_memory,
    no_uevents,
)
from nvmelm.host.recording.remembered import put_back
from nvmelm.host.recording.tape_host import TapeHost
from nvmelm.host.recording.transcript import Transcript

E = TypeVar("E", SysfsEvent, HostEvent, AdminEvent)
F = TypeVar("F", OpenerFact, MountFact, ClaimFact)


class Tape:
    """The events of a transcript and how far they were asked for."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self._position = 0
        self._lock = threading.Lock()
        self._mismatched = False

    def take(self, kind: type[E], asked: dict[str, object], data_out: memoryview | bytes | None = None) -> E:
        """Return the next event, which must be what was asked; or raise the error that it recorded."""
        with self._lock:
            number, total = self._position + 1, len(self._events)
            if number > total:
                raise self._mismatch(number, "event", "nothing more", _brief(asked))
            event = self._events[self._position]
            expected = event.request()
            if type(event) is not kind:
                raise self._mismatch(number, "event", _brief(expected), _brief(asked))
            for field, value in asked.items():
                if field not in expected or expected[field] != value:
                    raise self._mismatch(number, field, expected.get(field), value)
            if isinstance(event, AdminEvent) and event.data_out is not None and data_out is not None:
                at = event.data_out.difference(data_out)
                if at is not None:  # the bytes may be a controller's state, which is never shown
                    raise self._mismatch(
                        number, "data_out", "the recorded bytes", f"other bytes from offset {at:#x} on"
                    )
            self._position += 1
        if event.error is not None:
            raise event.error.error()
        return event

    def _mismatch(self, number: int, field: str, expected: object, got: object) -> EventMismatchError:
        self._mismatched = True
        return EventMismatchError(number, len(self._events), field, expected, got)

    def finish(self) -> None:
        """Complain about events that were not asked for, unless a mismatch was reported already.

        Raises:
            EventMismatchError: some are left.
        """
        if not self._mismatched and self._position < len(self._events):
            rest = _brief(self._events[self._position].request())
            raise self._mismatch(self._position + 1, "event", rest, "the end of the session")


def _brief(request: dict[str, object]) -> str:
    """Return an event in a few words: ``sysfs read class/nvme/nvme0/serial``."""
    kind, what = next(iter(request.items()))
    subject = request.get("path") or request.get("subject") or request.get("controller") or request.get("nodes") or ""
    return f"{kind} {what} {subject}".strip()


def _facts(value: object, kind: type[F]) -> list[F]:
    return [row for row in value if isinstance(row, kind)] if isinstance(value, list) else []


class ReplaySysfs:
    """Sysfs of a recording."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape

    def _take(self, what: str, path: str, **more: object) -> SysfsEvent:
        return self._tape.take(SysfsEvent, {"sysfs": what, "path": clean(path), **more})

    def read(self, path: str) -> str:
        return self._take("read", path).text

    def write(self, path: str, value: str) -> None:
        self._take("write", path, value=clean(value))

    def readlink(self, path: str) -> str | None:
        target = self._take("readlink", path).value
        return target if isinstance(target, str) else None

    def listdir(self, path: str) -> list[str]:
        return self._names("listdir", path)

    def exists(self, path: str) -> bool:
        return bool(self._take("exists", path).value)

    def inode(self, path: str) -> int:
        value = self._take("inode", path).value
        return value if isinstance(value, int) else 0

    def devices(self, subsystem: str) -> list[str]:
        return self._names("devices", subsystem)

    def _names(self, what: str, path: str) -> list[str]:
        value = self._take(what, path).value
        return list(value) if isinstance(value, list) else []


class ReplayQueue:
    """The admin queue of a recorded controller."""

    def __init__(self, tape: Tape, controller: str) -> None:
        self._tape = tape
        self._controller = controller

    def submit(self, command: AdminCommand) -> Completion:
        """Return the recorded completion.

        Raises:
            EventMismatchError: it is another command.
            NotSupportedError: the completion's data is controller state, which was not recorded.
        """
        event = self._tape.take(AdminEvent, command_request(self._controller, command), command.data_out)
        data = event.data_in.data() if event.data_in is not None else b""
        return Completion(event.status or 0, event.result, data)

    @property
    def max_transfer_bytes(self) -> int:
        value = self._tape.take(HostEvent, {"host": "max_transfer", "subject": self._controller}).value
        return value if isinstance(value, int) else 0

    def close(self) -> None:
        """Do nothing: there is no device node."""


class ReplayHost(TapeHost):
    """The host of a recording. Marks and journals live in a directory of its own that vanishes with it.

    Raises:
        HostError: the file cannot be read.
        MalformedError: it is no transcript.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        transcript = Transcript.load(path)
        self._tape = Tape(transcript.events)
        self._before = transcript.before
        super().__init__(ReplaySysfs(self._tape))
        self._state_dir: Path | None = None

    @property
    def kind(self) -> Literal["local", "emulated", "replay"]:
        return "replay"

    @property
    def name(self) -> str:
        return f"replay:{self._path}"

    @property
    def state_dir(self) -> Path:
        if self._state_dir is None:
            try:
                self._state_dir = Path(tempfile.mkdtemp(prefix="nvmelm-replay-"))  # mkdtemp makes it 0700
            except OSError as error:
                raise host_error("cannot make a directory", tempfile.gettempdir(), error) from error
            put_back(self._state_dir, self._before)
        return self._state_dir

    def open_queue(self, controller: str) -> AdminQueue:
        self._take("open_queue", controller)
        return ReplayQueue(self._tape, controller)

    def _take(self, what: str, subject: str = "") -> HostEvent:
        return self._tape.take(HostEvent, {"host": what, "subject": subject})

    def lock(self, name: str, *, timeout_s: float = 30.0) -> AbstractContextManager[None]:
        """Hold nothing: nobody else has this recording's controllers."""
        return contextlib.nullcontext()

    def facts(self) -> HostFacts:
        value = self._take("facts").value
        if not isinstance(value, FactsFact):
            raise ReplayMismatchError("the recorded facts are none")
        return HostFacts(value.kernel_release, value.boot, value.privileged)

    def openers(self, nodes: Sequence[str]) -> list[Opener]:
        value = self._tape.take(HostEvent, {"host": "openers", "nodes": list(nodes)}).value
        return [Opener(row.node, row.pid, row.name, row.vm) for row in _facts(value, OpenerFact)]

    def exclusively_held(self, nodes: Sequence[str]) -> list[str]:
        value = self._tape.take(HostEvent, {"host": "exclusively_held", "nodes": list(nodes)}).value
        return [node for node in value if isinstance(node, str)] if isinstance(value, list) else []

    def mounts(self) -> list[Mount]:
        return [Mount(row.device, row.where) for row in _facts(self._take("mounts").value, MountFact)]

    def claims(self) -> list[Claim]:
        return [Claim(row.address, row.manager, row.domain) for row in _facts(self._take("claims").value, ClaimFact)]

    def queue_memory(self, size: int) -> AbstractContextManager[memoryview]:
        raise no_queue_memory()

    def uevents(self) -> Uevents:
        raise no_uevents()

    def node_exists(self, node: str) -> bool:
        return bool(self._take("node_exists", node).value)

    def load_module(self, name: str) -> None:
        self._take("load_module", name)

    def close(self) -> None:
        """Remove the state directory, and complain about events that were never asked for.

        Raises:
            EventMismatchError: some are left over.
        """
        if self._state_dir is not None:
            shutil.rmtree(self._state_dir, ignore_errors=True)
            self._state_dir = None
        self._tape.finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except EventMismatchError as left_over:
            # A verb that fails earlier than the recorded one did is a difference too; anything else that ends the
            # session (Ctrl-C, a failed assertion) says more than the events it left.
            if error is None:
                raise
            if isinstance(error, NvmelmError):
                raise left_over from error
