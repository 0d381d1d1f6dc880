"""A QMP monitor, talked to step by step: the asyncio client of the ``qemu.qmp`` package behind plain calls.

A conversation is short and in order, so nothing above needs a coroutine::

    with Monitor("/run/vm1.qmp") as monitor:
        monitor.execute("query-status")
        with monitor.listening("DEVICE_DELETED", wanted=lambda data: data.get("device") == "vf1") as events:
            monitor.execute("device_del", {"id": "vf1"})
            event = events.next(deadline_s=30)

The peer is not trusted: every wait has a deadline and all look-ups together a budget, a line is at most 10 MiB (the
package's limit), events that nobody waits for are dropped, and its strings pass :func:`printable`.

``qemu.qmp`` is an extra, so it is imported when a monitor is opened, and so is asyncio.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from nvmelm.errors import (
    BusyError,
    HostError,
    MalformedError,
    NotSupportedError,
    NvmelmError,
    TimedOutError,
    UsageError,
    host_error,
)
from nvmelm.harmless import harmless
from nvmelm.vm.qemu.refusals import LONGEST_SENTENCE, refusal

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from qemu.qmp import EventListener, QMPClient

T = TypeVar("T")

#: A VMM answers a question in milliseconds; one that is starved of processor time takes seconds.
ANSWER_DEADLINE_S = 10.0
#: All questions of one conversation together; commands with a deadline of their own do not count.
LOOK_DEADLINE_S = 60.0
#: Linux, unix(7): sun_path holds 108 bytes, one of them the end.
_LONGEST_PATH = 107

#: Sockets libvirt talks through itself, by file name; others in its directories are the operator's own.
_LIBVIRT_SOCKETS = ("monitor.sock", "libvirt-sock", "libvirt-sock-ro", "virtqemud-sock", "virtqemud-sock-ro")

#: What the client's tasks may end with when the peer's bytes make no sense: not JSON, not UTF-8, nested without end,
#: members of the wrong type, a line without end.
_NONSENSE = (ValueError, TypeError, LookupError, RuntimeError, AssertionError)

_ONE_CLIENT = "a monitor serves one client at a time, and another one (libvirt, a script, nvmelm) may have it"
_OWN_MONITOR = "give the VM a monitor for nvmelm alone: -qmp unix:PATH,server=on,wait=off"


def printable(text: object, longest: int = LONGEST_SENTENCE) -> str:
    r"""Return a peer's text in one line that no terminal obeys, cut to a length.

    >>> printable("no\x1b[2J")
    'no\\x1b[2J'
    """
    words = text if isinstance(text, str) else json.dumps(text, default=str)
    return harmless(words, longest)


def as_sent(command: str, arguments: Mapping[str, object] | None = None) -> str:
    """Return a command as it goes over the socket, without the client's running number."""
    body: dict[str, object] = {"execute": command}
    if arguments:
        body["arguments"] = dict(arguments)
    return json.dumps(body)


@dataclass(frozen=True, slots=True)
class QmpEvent:
    """Something a VMM said unasked: the event's name and its data."""

    name: str
    data: Mapping[str, Any]


class Monitor:
    """A VMM's QMP monitor, connected and out of negotiation mode while the ``with`` block lasts.

    Args:
        path: the monitor's Unix socket.
        deadline_s: seconds until it must have greeted.

    Raises:
        NotSupportedError: the package ``qemu.qmp`` is not installed.
        UsageError: this cannot be the path of a socket.
        BusyError: it is libvirt's own monitor.
        HostError: there is no such socket, nobody listens, or what listens speaks no QMP.
        TimedOutError: no greeting came.
    """

    def __init__(self, path: str, *, deadline_s: float = ANSWER_DEADLINE_S) -> None:
        self.path = path
        self._deadline_s = deadline_s
        self._left_s = LOOK_DEADLINE_S
        self._client = _client()
        self._runner: asyncio.Runner | None = None

    def __enter__(self) -> Self:
        import asyncio

        _check_path(self.path)
        connection = _connect(self.path, self._deadline_s)
        self._runner = asyncio.Runner()
        # The client's tasks would print what a broken peer made of them; execute() reports it instead.
        self._runner.get_loop().set_exception_handler(lambda _loop, _context: None)
        try:
            self._run(self._greeted(connection), self._deadline_s, "its greeting")
        except BaseException:
            self.close()
            connection.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; a second time does nothing."""
        runner, self._runner = self._runner, None
        if runner is not None:
            try:
                runner.run(_bounded(self._disconnected(), self._deadline_s))
            except TimeoutError:
                pass  # the peer takes no more bytes; what is left of the connection ends with the loop
            finally:
                runner.close()

    @property
    def version(self) -> str:
        """Return the VMM's version, ``7.2.22``, or a question mark when its greeting has none."""
        greeting = self._client.greeting
        version = greeting.QMP.version.get("qemu") if greeting is not None else None
        if not isinstance(version, dict):
            return "?"
        return printable(".".join(str(version.get(part, "?")) for part in ("major", "minor", "micro")), 40)

    def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, deadline_s: float | None = None
    ) -> Any:
        """Send one command and return its answer, as the JSON it is.

        Args:
            deadline_s: seconds this command may take; without it, it is a question and shares their budget.

        Raises:
            NvmelmError, of the type the refusal stands for: see :mod:`nvmelm.vm.qemu.refusals`.
            HostError: the VMM hung up (reason ``qmp-lost``).
            TimedOutError: it does not answer (``qmp-silent``).
            MalformedError: it answered nonsense (``qmp-garbage``).
        """
        wait_s = min(ANSWER_DEADLINE_S, self._left_s) if deadline_s is None else deadline_s
        begin = time.monotonic()
        try:
            return self._run(self._executed(command, arguments), wait_s, f"its answer to {command}")
        finally:
            if deadline_s is None:
                self._left_s = max(0.0, self._left_s - (time.monotonic() - begin))

    @contextmanager
    def listening(self, *names: str, wanted: Callable[[Mapping[str, Any]], bool]) -> Iterator[Events]:
        """Keep the events of these names whose data is wanted, from here to the end of the block."""
        from qemu.qmp import EventListener

        def matches(message: Mapping[str, Any]) -> bool:
            return message.get("event") in names and wanted(_data(message))

        listener = EventListener(event_filter=matches)
        self._client.register_listener(listener)
        try:
            yield Events(self, listener)
        finally:
            self._client.remove_listener(listener)

    def _run(self, work: Coroutine[Any, Any, T], deadline_s: float, what: str) -> T:
        if self._runner is None:
            work.close()
            raise self._lost(None)
        try:
            return self._runner.run(_bounded(work, deadline_s))
        except TimeoutError as error:
            message = f"waited {deadline_s:.3g} s in vain for the VMM at {self.path} and {what}"
            raise TimedOutError(message, cause=_ONE_CLIENT, fix=_OWN_MONITOR, reason="qmp-silent") from error

    async def _greeted(self, connection: socket.socket) -> None:
        from qemu.qmp import ConnectError

        try:
            await self._client.connect(connection)
        except ConnectError as error:
            raise _not_qmp(self.path, error.exc) from error

    async def _executed(self, command: str, arguments: Mapping[str, object] | None) -> object:
        from qemu.qmp import ExecuteError, QMPError

        try:
            return await self._client.execute(command, arguments)
        except ExecuteError as error:
            raise refusal(command, printable(error.error_class, 60), printable(str(error))) from error
        except QMPError as error:
            raise self._lost(await self._disconnected() or error) from error

    async def _disconnected(self) -> Exception | None:
        """Hang up and return what the connection had already ended with, if anything."""
        from qemu.qmp import QMPError

        try:
            await self._client.disconnect()
        except (EOFError, OSError, QMPError, *_NONSENSE) as error:
            return error
        return None

    async def _heard(self, listener: EventListener) -> QmpEvent:
        """Wait for the next event, and for the connection to end."""
        import asyncio

        from qemu.qmp import Runstate

        event = asyncio.ensure_future(listener.get())
        while not event.done():
            if self._client.runstate is not Runstate.RUNNING:
                event.cancel()
                raise self._lost(await self._disconnected())
            change = asyncio.ensure_future(self._client.runstate_changed())
            try:
                await asyncio.wait((event, change), return_when=asyncio.FIRST_COMPLETED)
            finally:
                change.cancel()
        message = event.result()
        return QmpEvent(str(message["event"]), _data(message))

    def _lost(self, why: Exception | None) -> NvmelmError:
        from qemu.qmp import StateError  # the connection had ended before this call

        if why is None or isinstance(why, EOFError | OSError | StateError):
            cause = "it has ended, or it was told to drop this client"
            return HostError(
                f"the VMM at {self.path} hung up", path=self.path, cause=cause, fix="look at its log", reason="qmp-lost"
            )
        cause = f"the client could not read it: {printable(type(why).__name__)}"
        fix = "check that the socket is the VM's own QMP monitor"
        return MalformedError(f"the VMM at {self.path} sent nonsense", cause=cause, fix=fix, reason="qmp-garbage")


@dataclass(frozen=True, slots=True)
class Events:
    """Events that are being kept; made by :meth:`Monitor.listening`."""

    monitor: Monitor
    listener: EventListener

    def next(self, *, deadline_s: float) -> QmpEvent | None:
        """Return the next kept event, or None when none came in time.

        Raises:
            HostError, MalformedError: the connection ended.
        """
        try:
            return self.monitor._run(self.monitor._heard(self.listener), deadline_s, "an event")
        except TimedOutError:
            return None


async def _bounded(work: Coroutine[Any, Any, T], deadline_s: float) -> T:
    import asyncio

    async with asyncio.timeout(deadline_s):
        return await work


def _data(message: Mapping[str, Any]) -> Mapping[str, Any]:
    data = message.get("data")
    return data if isinstance(data, dict) else {}


def _client() -> QMPClient:
    """Make a client that keeps no event of its own accord."""
    try:
        from qemu.qmp import QMPClient
    except ImportError as error:
        cause = "the Python package qemu.qmp, which speaks with QEMU's monitor, is an extra and not installed"
        fix = "pip install '.[qmp]' in nvmelm's checkout, or nvmelm vm attach --print"
        raise NotSupportedError("cannot talk to a VM", cause=cause, fix=fix, reason="no-qmp-package") from error
    client = QMPClient()
    client.events.event_filter = lambda _message: False
    return client


def _check_path(path: str) -> None:
    if not path or "\0" in path or len(os.fsencode(path)) > _LONGEST_PATH:
        cause = f"a Unix socket's path has 1 to {_LONGEST_PATH} bytes"
        fix = "name it by a shorter path, relative or through a symbolic link"
        raise UsageError("this is not the path of a QMP socket", cause=cause, fix=fix)
    if Path(os.path.realpath(path)).name in _LIBVIRT_SOCKETS and "libvirt" in Path(os.path.realpath(path)).parts:
        cause = "libvirt follows the VM through this socket, and a second client would confuse or block it"
        fix = "nvmelm vm attach VF --libvirt DOMAIN"
        raise BusyError(f"{path} belongs to libvirt", cause=cause, fix=fix, reason="qmp-libvirt")


def _connect(path: str, deadline_s: float) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(deadline_s)
    try:
        connection.connect(path)
    except (TimeoutError, BlockingIOError) as error:
        connection.close()
        message = f"the VMM at {path} accepts no connection"
        raise TimedOutError(message, cause=_ONE_CLIENT, fix=_OWN_MONITOR, reason="qmp-silent") from error
    except OSError as error:
        connection.close()
        raise _no_connection(path, error) from error
    connection.setblocking(False)
    return connection


def _no_connection(path: str, error: OSError) -> HostError:
    number = error.errno or 0
    if number in (errno.ENOENT, errno.ENOTDIR):
        cause = "the VM does not run, or it was started without this monitor"
        fix = "start it with -qmp unix:PATH,server=on,wait=off"
        message = f"there is no QMP socket {path}"
        return HostError(message, path=path, errno=number, cause=cause, fix=fix, reason="qmp-no-socket")
    if number == errno.ECONNREFUSED:
        cause = "the VM has ended and left its socket behind, or this is no socket"
        message = f"nobody listens at {path}"
        fix = "start the VM; one that has ended holds no VF any more"
        return HostError(message, path=path, errno=number, cause=cause, fix=fix, reason="qmp-refused")
    return host_error("cannot connect to", path, error)


def _not_qmp(path: str, why: Exception) -> NvmelmError:
    if isinstance(why, EOFError | OSError):
        cause = "it hung up instead of greeting"
    else:
        cause = "its first line is not a QMP greeting: it is a human monitor, a guest agent, or something else"
    fix = "name the socket of -qmp unix:PATH,server=on,wait=off, not that of -monitor or of the guest agent"
    return HostError(
        f"what listens at {path} is not a QMP server", path=path, cause=cause, fix=fix, reason="qmp-not-qmp"
    )
