"""A small libvirt in this process: one daemon, its domains, and answers that a test can change.

It stands for the module ``libvirt`` where the real one needs a daemon with QEMU's driver: plugging, its events, its
errors. Numbers are those of libvirt's headers (libvirt-domain.h, virterror.h).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

NO_SUPPORT, NO_DOMAIN, OPERATION_FAILED, INTERNAL, TIMEOUT = 3, 42, 9, 1, 68
REMOVED, REMOVAL_FAILED = 15, 22


class FakeError(Exception):
    """libvirt.libvirtError: a number and a sentence."""

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        super().__init__(message)
        self.code = code

    def get_error_code(self) -> int:
        return self.code

    def get_error_message(self) -> str:
        return str(self)


class FakeDomain:
    """A running domain; ``xml`` is what it has, ``lasting`` its configuration, or None when it has none."""

    def __init__(self, name: str = "vm1") -> None:
        self._name = name
        self.devices: list[str] = []
        self.lasting: list[str] | None = []
        self.active = True
        self.vanished = False
        self.now = [1, 1]
        self.changes: list[tuple[str, str, int]] = []
        self.tainted: list[str] = []
        self.blocked: Any = ["0000:01:00.1: VFIO device doesn't support migration"]
        self.answer: Callable[[str, str], None] | None = None

    def name(self) -> str:
        return self._name

    def isActive(self) -> int:  # noqa: N802
        return int(self.active)

    def isPersistent(self) -> int:  # noqa: N802
        return int(self.lasting is not None)

    def state(self) -> list[int]:
        return self.now

    def messages(self, _flags: int) -> list[str]:
        return self.tainted

    def XMLDesc(self, flags: int) -> str:  # noqa: N802
        if self.vanished:
            raise FakeError("Domain not found: no domain with matching uuid", NO_DOMAIN)
        devices = self.devices if flags == 0 else (self.lasting or [])
        return f"<domain type='kvm'><name>{self._name}</name><devices>{''.join(devices)}</devices></domain>"

    def attachDeviceFlags(self, xml: str, flags: int) -> None:  # noqa: N802
        self.changes.append(("attach", xml, flags))
        if self.answer is not None:
            self.answer("attach", xml)
        else:
            self.devices.append(xml)

    def detachDeviceFlags(self, xml: str, flags: int) -> None:  # noqa: N802
        self.changes.append(("detach", xml, flags))
        if self.answer is not None:
            self.answer("detach", xml)


class FakeLibvirt:
    """The module, and the daemon behind it."""

    libvirtError = FakeError  # noqa: N815
    VIR_DOMAIN_XML_INACTIVE = 2
    VIR_DOMAIN_AFFECT_LIVE = 1
    VIR_DOMAIN_MESSAGE_TAINTING = 2
    VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED = REMOVED
    VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED = REMOVAL_FAILED

    def __init__(self) -> None:
        self.domain = FakeDomain()
        self.uri = "qemu:///system"
        self.alive = True
        self.calls: list[str] = []
        self.handlers: dict[int, tuple[int, Any, Any]] = {}
        self.pending: list[tuple[int, str]] = []
        self.timers: dict[int, int] = {}
        self.news = threading.Condition()
        self.ending: Callable[[Any, int, object], None] | None = None

    def said(self, event: int, alias: str) -> None:
        """Let the daemon tell of a device; whoever listens by then hears it when its event loop runs."""
        assert any(number == event for number, _, _ in self.handlers.values()), "nobody listens yet"
        with self.news:
            self.pending.append((event, alias))
            self.news.notify_all()

    def hang_up(self) -> None:
        """Let the daemon end."""
        self.alive = False
        if self.ending is not None:
            self.ending(self, 2, None)

    # The module

    def registerErrorHandler(self, handler: Any, context: Any) -> None:  # noqa: N802
        self.calls.append("quiet")
        handler(context, ("never shown",))

    def virEventRegisterDefaultImpl(self) -> None:  # noqa: N802
        self.calls.append("loop")

    def open(self, uri: str | None) -> FakeLibvirt:
        self.calls.append("open")
        if uri == "qemu:///none":
            raise FakeError("Failed to connect socket to '/run/libvirt/libvirt-sock': No such file or directory", 38)
        return self

    def virEventAddTimeout(self, milliseconds: int, call: Any, opaque: Any) -> int:  # noqa: N802
        self.timers[len(self.timers)] = milliseconds
        return len(self.timers) - 1

    def virEventUpdateTimeout(self, number: int, milliseconds: int) -> None:  # noqa: N802
        with self.news:
            self.timers[number] = milliseconds
            self.news.notify_all()

    def virEventRemoveTimeout(self, number: int) -> None:  # noqa: N802
        del self.timers[number]

    def virEventRunDefaultImpl(self) -> None:  # noqa: N802
        with self.news:
            self.news.wait_for(lambda: self.pending or 0 in self.timers.values())
            said = [self.pending.pop(0)] if self.pending else []
        for event, alias in said:
            for number, call, opaque in list(self.handlers.values()):
                if number == event:
                    call(self, self.domain, alias, opaque)

    # A connection

    def getURI(self) -> str:  # noqa: N802
        return self.uri

    def getVersion(self) -> int:  # noqa: N802
        return 7_002_022

    def setKeepAlive(self, interval: int, count: int) -> None:  # noqa: N802
        self.calls.append("keepalive")

    def registerCloseCallback(self, call: Any, _opaque: object) -> None:  # noqa: N802
        self.ending = call

    def unregisterCloseCallback(self) -> None:  # noqa: N802
        self.ending = None

    def isAlive(self) -> int:  # noqa: N802
        return int(self.alive)

    def lookupByName(self, name: str) -> FakeDomain:  # noqa: N802
        if name != self.domain.name():
            raise FakeError(f"Domain not found: no domain with matching name '{name}'", NO_DOMAIN)
        return self.domain

    def lookupByUUIDString(self, text: str) -> FakeDomain:  # noqa: N802
        if text != "6695eb01-f6a4-8304-79aa-97f2502e193f":
            raise FakeError("invalid UUID", 8)
        return self.domain

    def domainEventRegisterAny(self, _domain: Any, event: int, call: Any, opaque: Any) -> int:  # noqa: N802
        self.handlers[len(self.handlers)] = (event, call, opaque)
        return len(self.handlers) - 1

    def domainEventDeregisterAny(self, number: int) -> None:  # noqa: N802
        self.handlers[number] = (-1, None, None)

    def close(self) -> None:
        self.calls.append("close")


def monitor(libvirt: FakeLibvirt) -> Any:
    """Return the module ``libvirt_qemu``: it answers query-migrate and marks the domain."""

    def command(domain: FakeDomain, text: str, _flags: int) -> str:
        assert json.loads(text) == {"execute": "query-migrate"}
        domain.tainted.append("tainted: custom monitor control commands issued")
        value = domain.blocked if isinstance(domain.blocked, dict) else {"blocked-reasons": domain.blocked}
        return json.dumps({"return": value, "id": "libvirt-1"})

    return SimpleNamespace(qemuMonitorCommand=command)
