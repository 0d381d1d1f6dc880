"""A domain of libvirt, talked to through libvirt-python: the calls that step 5 needs, with errors of our own.

``libvirt-python`` is an extra, so it is imported when a domain is opened. A call waits for the daemon's answer. While a
domain is open, a thread runs libvirt's default event loop: it delivers events to :meth:`Domain.hear`, and it answers
the daemon's keepalive messages; a daemon hangs up on a client that is silent for half a minute, while its operator
thinks about a question, say.

The peer is not trusted: its strings pass :func:`~nvmelm.vm.qemu.monitor.printable`, its XML is bounded, and keepalive
messages of our own end a call whose daemon is silent. Libvirt's own error handler, which prints, is replaced.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from nvmelm.errors import MalformedError, NotReadyError, NotSupportedError, UsageError
from nvmelm.process.interrupts import begin
from nvmelm.vm.libvirt import domain_xml
from nvmelm.vm.libvirt.domain_xml import DomainXml
from nvmelm.vm.libvirt.refusals import refusal
from nvmelm.vm.qemu.monitor import printable
from nvmelm.vm.report import Vmm

#: A daemon that answers none of three messages, one every five seconds, is given up.
_KEEPALIVE = (5, 3)
#: Words for virDomainState, in its order.
_STATES = ("no state", "running", "blocked", "paused", "shutdown", "shutoff", "crashed", "suspended by its guest")
_PAUSED = 3
#: virDomainPausedReason: for a migration, while it starts, while it ends.
_IDLE_PAUSES = {2: "migrating", 8: "shutting down", 11: "starting up"}


class DomainRef(NamedTuple):
    """A domain as the operator names it.

    Attributes:
        name: its name, or its UUID.
        uri: the libvirt that has it; None for the usual one.
        may_taint: QEMU may be asked through libvirt, which marks the domain tainted.
    """

    name: str
    uri: str | None = None
    may_taint: bool = False


class Domain:
    """A running domain, connected while the ``with`` block lasts.

    Raises:
        NotSupportedError: the package is not installed.
        UsageError: there is no such domain, or it is on another host.
        NotReadyError: it does not run.
        HostError, PermissionDeniedError: no daemon listens, or it does not let this user in.
    """

    def __init__(self, which: DomainRef) -> None:
        self._which = which
        self._libvirt = _package()
        self._connection: Any = None
        self._domain: Any = None
        self._loop: _EventLoop | None = None
        self._news = threading.Condition()
        self._heard: list[tuple[str, str]] = []
        self._lost = False

    def __enter__(self) -> Self:
        _require_here(self._which.uri)
        self._libvirt.registerErrorHandler(_say_nothing, None)
        with self._asked(f"connect to {printable(self._which.uri or 'its daemon', 80)}"):
            self._libvirt.virEventRegisterDefaultImpl()  # before the connection is made; a second time does nothing
            self._connection = self._libvirt.open(self._which.uri)
        try:
            self._loop = _EventLoop(self._libvirt)
            self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def _begin(self) -> None:
        with self._asked("say where it is"):
            _require_here(self._connection.getURI())  # the usual one can be set to another host's
        with suppress(self._libvirt.libvirtError):  # a driver inside this process has nobody to keep alive
            self._connection.registerCloseCallback(self._ended, None)
            self._connection.setKeepAlive(*_KEEPALIVE)
        with self._asked(f"find the domain {printable(self._which.name, 80)}"):
            self._domain = self._find()
        with self._asked("tell whether the domain runs"):
            running = self._domain.isActive()
        if not running:
            raise NotReadyError(
                f"the domain {printable(self._which.name, 80)} does not run",
                cause="only a running or waiting domain has devices that can be plugged",
                fix=f"virsh start --paused {printable(self._which.name, 80)}; or let its configuration name the VF: "
                "nvmelm vm attach VF --print",
                reason="domain-not-running",
            )

    def _find(self) -> Any:
        """Return the domain by name, or by UUID when no domain has such a name."""
        try:
            return self._connection.lookupByName(self._which.name)
        except self._libvirt.libvirtError:
            with suppress(self._libvirt.libvirtError):
                return self._connection.lookupByUUIDString(self._which.name)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; a second time does nothing."""
        connection, self._connection, self._domain = self._connection, None, None
        if connection is not None:
            with suppress(self._libvirt.libvirtError):
                connection.unregisterCloseCallback()
            with suppress(self._libvirt.libvirtError):
                connection.close()
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()

    @property
    def which(self) -> DomainRef:
        """Return the domain as it was named."""
        return self._which

    @property
    def name(self) -> str:
        """Return the domain's name, not bounded: for libvirt, never for a terminal."""
        return str(self._domain.name())

    def about(self) -> tuple[Vmm, bool]:
        """Return what the domain is, and whether no guest has begun to use its devices."""
        with self._asked("describe the domain"):
            state, why = self._domain.state()
            number = self._connection.getVersion()
        word = _STATES[state] if 0 <= state < len(_STATES) else f"state {state}"
        pause = _IDLE_PAUSES.get(why) if state == _PAUSED else None
        vmm = Vmm(
            name=printable(self.name, 80),
            version=f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}",  # virConnectGetVersion
            status=f"{word}, {pause}" if pause else word,
            running=state in (1, 2),
        )
        return vmm, pause is not None

    def xml(self, *, lasting: bool = False) -> DomainXml | None:
        """Return the domain's devices: those it has, or those its configuration gives it at its next start.

        None: the domain has no configuration, it is gone when it ends.
        """
        with self._asked("describe the domain"):
            if lasting and not self._domain.isPersistent():
                return None
            flags = self._libvirt.VIR_DOMAIN_XML_INACTIVE if lasting else 0
            text = self._domain.XMLDesc(flags)
        return domain_xml.read(text.encode())

    def attach(self, xml: str) -> None:
        """Plug a device into the running domain."""
        with self._asked("attach the VF"):
            self._domain.attachDeviceFlags(xml, self._libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def detach(self, xml: str) -> None:
        """Ask the running domain's guest for a device; libvirt waits a few seconds for its answer, and not longer."""
        with self._asked("detach the VF"):
            self._domain.detachDeviceFlags(xml, self._libvirt.VIR_DOMAIN_AFFECT_LIVE)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep what is said of removed devices, for :meth:`hear`."""
        lib = self._libvirt
        events = {lib.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED: "removed"}
        events[lib.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED] = "refused"
        self._heard.clear()
        numbers: list[int] = []
        with self._asked("tell of removed devices"):
            for event, word in events.items():
                numbers.append(self._connection.domainEventRegisterAny(self._domain, event, self._keep, word))
        try:
            yield
        finally:
            for number in numbers:
                with suppress(lib.libvirtError):
                    self._connection.domainEventDeregisterAny(number)

    def _keep(self, _connection: Any, _domain: Any, alias: str, word: str) -> None:
        with self._news:
            self._heard.append((word, alias))
            self._news.notify_all()

    def _ended(self, _connection: Any, _why: int, _opaque: object) -> None:
        with self._news:
            self._lost = True
            self._news.notify_all()

    def hear(self, alias: str, end: float) -> str | None:
        """Return what was said of a device, ``removed`` or ``refused``; None when nothing was.

        Args:
            end: the time of the monotonic clock until which to wait.

        Raises:
            HostError: the connection ended.
        """

        def said() -> str | None:
            return next((word for word, name in self._heard if name == alias), None)

        with self._news:
            self._news.wait_for(lambda: said() or self._lost, timeout=max(0.0, end - time.monotonic()))
            word = said()
        if word is None and self._lost:
            raise refusal("tell of removed devices", 0, "the connection has ended", alive=False)
        return word

    def tainted_by_monitor(self) -> bool:
        """Return whether somebody has sent QEMU commands of his own already, which libvirt marks a domain for."""
        try:
            words = self._domain.messages(self._libvirt.VIR_DOMAIN_MESSAGE_TAINTING)
        except (self._libvirt.libvirtError, AttributeError):  # libvirt before 7.1, or a driver without
            return False
        return any("custom" in word and "monitor" in word for word in words)

    def ask_qemu(self, command: str) -> dict[str, Any]:
        """Ask QEMU itself, through libvirt; this taints the domain.

        Raises:
            NotSupportedError: it is not a domain of QEMU.
        """
        with self._asked(f"ask QEMU {command}"):
            text = import_module("libvirt_qemu").qemuMonitorCommand(self._domain, json.dumps({"execute": command}), 0)
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise MalformedError("libvirt handed through what is no JSON", reason="libvirt-garbage") from error
        value = answer.get("return") if isinstance(answer, dict) else None
        if not isinstance(value, dict):
            said = printable(answer)
            raise MalformedError(f"QEMU's answer to {command} is no object: {said}", reason="libvirt-garbage")
        return value

    @contextmanager
    def _asked(self, doing: str) -> Iterator[None]:
        try:
            yield
        except self._libvirt.libvirtError as error:
            connection = self._connection
            alive = connection is None or self._still_there()
            raise refusal(
                doing, error.get_error_code() or 0, printable(error.get_error_message() or str(error)), alive=alive
            ) from error

    def _still_there(self) -> bool:
        try:
            return bool(self._connection.isAlive())
        except self._libvirt.libvirtError:
            return False


class _EventLoop:
    """libvirt's default event loop, in a thread until it is closed."""

    def __init__(self, libvirt: Any) -> None:
        self._libvirt = libvirt
        self._closing = False
        self._timer = libvirt.virEventAddTimeout(-1, _say_nothing, None)
        self._thread = threading.Thread(target=self._run, name="libvirt", daemon=True)
        begin(self._thread)

    def _run(self) -> None:
        with suppress(self._libvirt.libvirtError):
            while not self._closing:
                self._libvirt.virEventRunDefaultImpl()

    def close(self) -> None:
        """Let the thread come to its end: a timer that has run out wakes it."""
        self._closing = True
        self._libvirt.virEventUpdateTimeout(self._timer, 0)
        self._thread.join()
        self._libvirt.virEventRemoveTimeout(self._timer)


def _package() -> Any:
    try:
        return import_module("libvirt")
    except ImportError as error:
        cause = "the Python package libvirt-python, which speaks with libvirt's daemon, is an extra and not installed"
        fix = (
            "pip install '.[libvirt]' in nvmelm's checkout (or your distribution's python3-libvirt), "
            "or nvmelm vm attach VF --print"
        )
        raise NotSupportedError("cannot talk to libvirt", cause=cause, fix=fix, reason="no-libvirt-package") from error


def _require_here(uri: str | None) -> None:
    """Refuse the libvirt of another host: a VF is plugged where it is."""
    try:
        elsewhere = urlsplit(uri or "").hostname
    except ValueError:
        elsewhere = None  # libvirt says what is wrong with it
    if elsewhere and elsewhere not in ("localhost", "127.0.0.1", "::1"):
        message = f"{printable(uri, 80)} is another host's libvirt"
        fix = "run nvmelm on that host"
        raise UsageError(message, cause="the VF is in this host", fix=fix, reason="libvirt-elsewhere")


def _say_nothing(_first: object, _second: object) -> None:
    """Take libvirt's error instead of its own handler, which prints it (it is raised as well); or a timer's end."""
