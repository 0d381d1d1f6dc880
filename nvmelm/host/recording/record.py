"""Record a session: a :class:`~nvmelm.host.Host` around another one that writes down every question and answer.

The file is made when recording begins, so that a name that cannot be written fails before a device is touched, and
gets its content and its name when the host is closed, also after an error. Calls from several threads are taken one at
a time and written in the order in which they were answered; code whose order must not depend on the scheduler asks
:attr:`RecordingHost.serial` and runs one after the other.

What may not be written is not even kept: of a controller's state only the 48 bytes of the header, the length and the
digest of the rest stay (``keep_state`` keeps all, for lab devices). Processes become 1, 2, 3 … in the order in which
they are met. Inodes and boot ids stay: the marks that the host kept before the session rest on them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from nvmelm import __version__
from nvmelm.disk.atomic import AtomicFile
from nvmelm.errors import NotSupportedError, NvmelmError
from nvmelm.host import (
    AdminCommand,
    AdminQueue,
    Claim,
    Completion,
    Host,
    HostFacts,
    Mount,
    Opener,
    Sysfs,
    Uevents,
)
from nvmelm.host.recording.block import Block
from nvmelm.host.recording.events import (
    AdminEvent,
    ClaimFact,
    Event,
    FactsFact,
    HostEvent,
    MountFact,
    OpenerFact,
    RecordedFault,
    SysfsEvent,
    clean,
    no_queue_memory,
    no_uevents,
)
from nvmelm.host.recording.redact import Redactor
from nvmelm.host.recording.remembered import remembered
from nvmelm.host.recording.tape_host import TapeHost
from nvmelm.host.recording.transcript import MAX_EVENTS, MAX_FILE_BYTES, MiB, Transcript, TranscriptSource
from nvmelm.wire.migration import ControllerStateHeader
from nvmelm.wire.opcodes import MigrationSendSelect, Opcode

T = TypeVar("T")

#: As text data takes more than three bytes a byte; so this much still makes a file that can be read back.
_MAX_DATA_BYTES = MAX_FILE_BYTES // 4


class Ordinals:
    """Numbers that differ from run to run, replaced by 1, 2, 3 … in the order in which they are met."""

    def __init__(self) -> None:
        self._known: dict[object, int] = {}

    def __getitem__(self, value: object) -> int:
        return self._known.setdefault(value, len(self._known) + 1)


class Recorder:
    """The events so far, and the file they will be written to."""

    def __init__(self, path: Path, *, redact: bool, keep_state: bool, replace: bool) -> None:
        self.lock = threading.RLock()
        self.keep_state = keep_state
        self.pids = Ordinals()
        self._file = AtomicFile(path, replace=replace)
        self._redact = redact
        self._events: list[Event] = []
        self._data_bytes = 0
        self._too_large = False

    def call(self, ask: Callable[[], T], write_down: Callable[[T | None, RecordedFault | None], Event]) -> T:
        """Ask the real host, and write its answer or its error down; one thread at a time.

        Args:
            write_down: makes the event of an answer, or of an error (the answer is None then).
        """
        with self.lock:
            try:
                answer = ask()
            except NvmelmError as error:
                fault = RecordedFault.of(error)
                self._append(lambda: write_down(None, fault))
                raise
            self._append(lambda: write_down(answer, None))
            return answer

    def _append(self, event: Callable[[], Event]) -> None:
        """Keep an event, unless there are too many: a session is never stopped by its recording."""
        if self._too_large:
            return
        made = event()
        blocks = (made.data_in, made.data_out) if isinstance(made, AdminEvent) else ()
        kept = [segment for block in blocks if block for segment in block.segments if isinstance(segment, bytes)]
        self._data_bytes += sum(map(len, kept))
        self._too_large = self._data_bytes > _MAX_DATA_BYTES or len(self._events) >= MAX_EVENTS
        if self._too_large:
            self._events.clear()
        else:
            self._events.append(made)

    def write(self, about: str, source: TranscriptSource, before: dict[str, list[str]]) -> None:
        """Write the file.

        Raises:
            HostError: the disk is full, …; there is no file then.
            NotSupportedError: the session was too long to be recorded.
        """
        with self.lock, self._file as file:
            events = self._events
            if self._redact:
                redactor = Redactor(events)
                events = list(map(redactor.event, events))
                before = {name: [redactor.text(line) for line in lines] for name, lines in before.items()}
            text = Transcript(about=about, source=source, before=before, events=events).render().encode()
            if self._too_large or len(text) > MAX_FILE_BYTES:
                raise NotSupportedError(
                    "the session was too long to be recorded, so there is no recording; the session itself went on",
                    cause=f"a recording holds at most {MAX_FILE_BYTES // MiB} MiB and {MAX_EVENTS} events",
                    fix="record a shorter session",
                    reason="recording-too-large",
                )
            file.write(text)
            file.commit()


def _lines(text: str) -> str | list[str]:
    cleaned = clean(text)
    return cleaned.split("\n") if "\n" in cleaned else cleaned


class RecordingSysfs:
    """Sysfs that writes down every access."""

    def __init__(self, sysfs: Sysfs, recorder: Recorder) -> None:
        self._sysfs = sysfs
        self._recorder = recorder

    def _call(self, what: Any, path: str, ask: Callable[[], T], value: Callable[[T], Any]) -> T:
        def write_down(answer: T | None, fault: RecordedFault | None) -> Event:
            written = value(answer) if fault is None or what == "write" else None  # type: ignore[arg-type]
            return SysfsEvent(sysfs=what, path=clean(path), value=written, error=fault)

        return self._recorder.call(ask, write_down)

    def read(self, path: str) -> str:
        return self._call("read", path, lambda: self._sysfs.read(path), _lines)

    def write(self, path: str, value: str) -> None:
        return self._call("write", path, lambda: self._sysfs.write(path, value), lambda _: _lines(value))

    def readlink(self, path: str) -> str | None:
        def written(target: str | None) -> str | None:
            return target if target is None else clean(target)

        return self._call("readlink", path, lambda: self._sysfs.readlink(path), written)

    def listdir(self, path: str) -> list[str]:
        return self._call("listdir", path, lambda: self._sysfs.listdir(path), lambda names: list(map(clean, names)))

    def exists(self, path: str) -> bool:
        return self._call("exists", path, lambda: self._sysfs.exists(path), bool)

    def inode(self, path: str) -> int:
        return self._call("inode", path, lambda: self._sysfs.inode(path), int)

    def devices(self, subsystem: str) -> list[str]:
        ask = lambda: self._sysfs.devices(subsystem)  # noqa: E731 - one line, as its neighbours
        return self._call("devices", subsystem, ask, lambda names: list(map(clean, names)))


def state_bytes_kept(command: AdminCommand) -> int | None:
    """Return how many bytes of a command's data may be written down; None for all of them.

    Of a Controller State that is its header; of anything else in a Migration Send or Receive, nothing.
    """
    if command.opcode not in (Opcode.MIGRATION_SEND, Opcode.MIGRATION_RECEIVE):
        return None
    select = command.cdw10 & 0xFF
    carries_state = MigrationSendSelect.SET_CONTROLLER_STATE if command.opcode == Opcode.MIGRATION_SEND else 0
    offset = command.cdw13 << 32 | command.cdw12
    return max(0, ControllerStateHeader.size - offset) if select == carries_state else 0


class RecordingQueue:
    """An admin queue that writes down every command."""

    def __init__(self, queue: AdminQueue, controller: str, recorder: Recorder) -> None:
        self._queue = queue
        self._controller = controller
        self._recorder = recorder

    def submit(self, command: AdminCommand) -> Completion:
        keep = None if self._recorder.keep_state else state_bytes_kept(command)

        def write_down(completion: Completion | None, fault: RecordedFault | None) -> Event:
            values: dict[str, Any] = {"cdw10-15": command.words, "error": fault}
            if command.data_out:
                values["data_out"] = Block.of(command.data_out, keep=keep)
            if completion is not None:
                values |= {"status": completion.status, "result": completion.result}
                # A refused Migration Receive returns no state, so a replay can give that answer.
                if completion.data and not (completion.status and keep is not None):
                    values["data_in"] = Block.of(completion.data, keep=keep)
            return AdminEvent(
                admin=command.name,
                controller=self._controller,
                opcode=command.opcode,
                nsid=command.nsid,
                cdw2=command.cdw2,
                cdw3=command.cdw3,
                data_length=command.data_length,
                timeout_ms=command.timeout_ms,
                **values,
            )

        return self._recorder.call(lambda: self._queue.submit(command), write_down)

    @property
    def max_transfer_bytes(self) -> int:
        def write_down(limit: int | None, fault: RecordedFault | None) -> Event:
            return HostEvent(host="max_transfer", subject=self._controller, value=limit, error=fault)

        return self._recorder.call(lambda: self._queue.max_transfer_bytes, write_down)

    def close(self) -> None:
        self._queue.close()


class RecordingHost(TapeHost):
    """A host whose session is written to a file.

    Args:
        host: the real one; closed with this one.
        path: the recording, replaced when there is one.
        about: one sentence for the head of the file.
        redact: replace serial numbers and NQNs, and leave the names of virtual machines out.
        keep_state: write controller state down too; only for devices that hold nobody's data.
        replace: a file that has the name may be replaced.
    """

    def __init__(
        self,
        host: Host,
        path: Path,
        *,
        about: str = "",
        redact: bool = False,
        keep_state: bool = False,
        replace: bool = False,
    ) -> None:
        self._host = host
        self._about = about
        self._redact = redact
        self._recorder = Recorder(path, redact=redact, keep_state=keep_state, replace=replace)
        super().__init__(RecordingSysfs(host.sysfs, self._recorder))
        self._before = remembered(host.state_dir)
        self._closed = False
        self._kernel = ""

    @property
    def kind(self) -> Literal["local", "emulated", "replay"]:
        return self._host.kind

    @property
    def name(self) -> str:
        return self._host.name

    @property
    def state_dir(self) -> Path:
        return self._host.state_dir

    def _call(self, what: Any, ask: Callable[[], T], value: Callable[[T], Any], **about: Any) -> T:
        def write_down(answer: T | None, fault: RecordedFault | None) -> Event:
            written = value(answer) if fault is None else None  # type: ignore[arg-type]
            return HostEvent(host=what, value=written, error=fault, **about)

        return self._recorder.call(ask, write_down)

    def open_queue(self, controller: str) -> AdminQueue:
        queue = self._call("open_queue", lambda: self._host.open_queue(controller), lambda _: None, subject=controller)
        return RecordingQueue(queue, controller, self._recorder)

    def lock(self, name: str, *, timeout_s: float = 30.0) -> AbstractContextManager[None]:
        """Hold the real host's lock; a lock says nothing of the device, so it is not written down."""
        return self._host.lock(name, timeout_s=timeout_s)

    def facts(self) -> HostFacts:
        def written(facts: HostFacts) -> FactsFact:
            self._kernel = clean(facts.kernel_release)
            return FactsFact(kernel_release=self._kernel, boot=clean(facts.boot_id), privileged=facts.privileged)

        return self._call("facts", self._host.facts, written)

    def openers(self, nodes: Sequence[str]) -> list[Opener]:
        def written(openers: list[Opener]) -> list[OpenerFact]:
            pids = self._recorder.pids
            return [
                OpenerFact(
                    node=opener.node,
                    pid=pids[opener.pid],
                    name=clean(opener.name),
                    vm="" if self._redact else clean(opener.vm),
                )
                for opener in openers
            ]

        return self._call("openers", lambda: self._host.openers(nodes), written, nodes=list(nodes))

    def exclusively_held(self, nodes: Sequence[str]) -> list[str]:
        return self._call("exclusively_held", lambda: self._host.exclusively_held(nodes), list, nodes=list(nodes))

    def mounts(self) -> list[Mount]:
        def written(mounts: list[Mount]) -> list[MountFact]:
            return [MountFact(device=clean(mount.device), where=clean(mount.where)) for mount in mounts]

        return self._call("mounts", self._host.mounts, written)

    def claims(self) -> list[Claim]:
        def written(claims: list[Claim]) -> list[ClaimFact]:
            return [
                ClaimFact(address=claim.address, manager=claim.manager, domain=clean(claim.domain)) for claim in claims
            ]

        return self._call("claims", self._host.claims, written)

    def queue_memory(self, size: int) -> AbstractContextManager[memoryview]:
        raise no_queue_memory()

    def uevents(self) -> Uevents:
        raise no_uevents()

    def node_exists(self, node: str) -> bool:
        return self._call("node_exists", lambda: self._host.node_exists(node), bool, subject=node)

    def load_module(self, name: str) -> None:
        self._call("load_module", lambda: self._host.load_module(name), lambda _: None, subject=name)

    def close(self) -> None:
        """Write the recording and close the real host; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            if not self._kernel and self._host.kind != "replay":  # a replay was not asked when it was recorded either
                self._kernel = clean(self._host.facts().kernel_release)
            source = TranscriptSource(recorded_on=self._host.kind, kernel=self._kernel, nvmelm=__version__)
            self._recorder.write(self._about, source, self._before)
        finally:
            self._host.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except NvmelmError as problem:
            if error is None:
                raise
            error.add_note(f"the recording was not written: {problem.message}")
