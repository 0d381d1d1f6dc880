"""A scripted QMP server on a real Unix socket: it says what a test wants it to say, when it is asked, or never."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: The greeting of QEMU 7.2.22 of Debian 12.
GREETING = {
    "QMP": {
        "version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian 1:7.2+dfsg-7+deb12u18+b3"},
        "capabilities": ["oob"],
    }
}

Answer = Callable[[dict[str, Any]], Any]


class RefusedError(Exception):
    """The command is refused with this sentence and class."""

    def __init__(self, sentence: str, error_class: str = "GenericError") -> None:
        super().__init__(sentence)
        self.error_class = error_class


class HangUpError(Exception):
    """The connection ends instead of an answer."""


class SilenceError(Exception):
    """No answer comes."""


class RawError(Exception):
    """These bytes are sent instead of an answer."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self.raw = raw


@dataclass
class Server:
    """What a client meets.

    Attributes:
        answers: by command, the answer or a function of the arguments that gives it (or raises one of the above).
        greeting: bytes sent to a client that connects; None: nothing is said.
        asked: every command with its arguments, in order.
    """

    path: Path
    answers: dict[str, Any] = field(default_factory=dict)
    greeting: bytes | None = json.dumps(GREETING).encode() + b"\r\n"
    asked: list[tuple[str, Any]] = field(default_factory=list)
    _client: socket.socket | None = None

    @property
    def changes(self) -> list[tuple[str, Any]]:
        """Return the commands that change something."""
        return [one for one in self.asked if one[0] in ("device_add", "device_del")]

    def emit(self, event: str, **data: Any) -> None:
        self._send({"event": event, "data": data, "timestamp": {"seconds": 1, "microseconds": 0}})

    def drop(self) -> None:
        """Hang up on the client."""
        if self._client is not None:
            self._client.shutdown(socket.SHUT_RDWR)

    def _send(self, message: Any) -> None:
        if self._client is not None:
            self._client.sendall(json.dumps(message).encode() + b"\r\n")

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return  # the test is over
            with client:
                self._client = client
                with suppress(OSError, HangUpError):
                    self._talk(client)
                self._client = None

    def _talk(self, client: socket.socket) -> None:
        if self.greeting is not None:
            client.sendall(self.greeting)
        buffered = ""
        while received := client.recv(65536):
            buffered = (buffered + received.decode()).lstrip()
            while buffered:  # the client puts nothing between its messages, and QEMU needs nothing
                message, end = json.JSONDecoder().raw_decode(buffered)
                buffered = buffered[end:].lstrip()
                self._answer(client, message)

    def _answer(self, client: socket.socket, message: dict[str, Any]) -> None:
        command, arguments = message["execute"], message.get("arguments", {})
        self.asked.append((command, arguments))
        identity = {"id": message["id"]} if "id" in message else {}
        try:
            self._send({"return": self._value(command, arguments), **identity})
        except RefusedError as error:
            self._send({"error": {"class": error.error_class, "desc": str(error)}, **identity})
        except RawError as error:
            client.sendall(error.raw)
        except SilenceError:
            pass

    def _value(self, command: str, arguments: Any) -> Any:
        if command == "qmp_capabilities" and command not in self.answers:
            return {}
        if command not in self.answers:
            raise RefusedError(f"The command {command} has not been found", "CommandNotFound")
        answer = self.answers[command]
        if isinstance(answer, Exception):
            raise answer
        return answer(arguments) if callable(answer) else answer


@contextmanager
def serving(path: Path, **values: Any) -> Iterator[Server]:
    """Serve one client after another until the block ends."""
    server = Server(path, **values)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        thread = threading.Thread(target=server.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            server.drop()
    thread.join(5)


@dataclass
class Machine:
    """A q35 machine's object tree as QEMU 7.2 shows it: ports, and devices below them.

    Attributes:
        ports: root ports, and whether each takes devices while the machine runs.
        devices: name, or ``device[N]`` for one without a name, to properties and the ``port`` it is in.
        lists: what query-migrate says; None: nothing blocks.
    """

    ports: dict[str, bool] = field(default_factory=lambda: {"rp1": True})
    devices: dict[str, dict[str, str]] = field(default_factory=dict)
    status: str = "prelaunch"
    blocked: list[str] | None = None
    name: str | None = "vm1"

    def answers(self) -> dict[str, Any]:
        return {
            "query-status": lambda _: {"status": self.status, "singlestep": False, "running": self.status == "running"},
            "query-name": lambda _: {"name": self.name} if self.name else {},
            "qom-list": self.qom_list,
            "qom-get": self.qom_get,
            "device_add": self.device_add,
            "device_del": self.device_del,
            "query-migrate": lambda _: {"blocked-reasons": self.blocked} if self.blocked else {},
        }

    def _place(self, name: str) -> str:
        return "/machine/peripheral-anon" if name.startswith("device[") else "/machine/peripheral"

    def qom_list(self, arguments: dict[str, str]) -> list[dict[str, str]]:
        path = arguments["path"]
        rows = {"type": "string"}
        place, _, last = path.rpartition("/")
        if path in ("/machine/peripheral", "/machine/peripheral-anon"):
            if path == "/machine/peripheral":
                rows |= dict.fromkeys(self.ports, "child<pcie-root-port>")
            rows |= {n: f"child<{d['kind']}>" for n, d in self.devices.items() if self._place(n) == path}
        elif last in self.ports and place == "/machine/peripheral":
            rows |= {"hotplug": "bool", last: "child<PCIE>", "pcie-root-port-msix[0]": "child<memory-region>"}
        elif last in self.ports:
            rows |= {"hotplug-handler": "link<hotplug-handler>"}
            found = [device for device in self.devices.values() if device.get("port") == last]
            rows |= {f"child[{number}]": f"link<{one['kind']}>" for number, one in enumerate(found)}
        else:
            raise RefusedError(f"Device '{path}' not found", "DeviceNotFound")
        return [{"name": name, "type": kind} for name, kind in rows.items()]

    def qom_get(self, arguments: dict[str, str]) -> Any:
        path, name = arguments["path"], arguments["property"]
        last = path.rpartition("/")[2]
        if name == "hotplug-handler":
            return "/machine/unattached/device[2]" if self.ports[last] else ""
        if last not in self.devices:
            raise RefusedError(f"Device '{path}' not found", "DeviceNotFound")
        one = self.devices[last]
        if name == "parent_bus":
            return f"/machine/peripheral/{one['port']}/{one['port']}" if "port" in one else "/machine/q35/pcie.0"
        if name not in one:
            raise RefusedError(f"Property '{one['kind']}.{name}' not found")
        return one[name]

    def device_add(self, arguments: dict[str, str]) -> dict[str, Any]:
        bus = arguments.get("bus", "pcie.0")
        if not self.ports.get(bus):
            raise RefusedError(f"Bus '{bus}' does not support hotplugging")
        self.devices[arguments["id"]] = {"kind": arguments["driver"], "host": arguments["host"], "port": bus}
        self.blocked = [f"{arguments['host']}: VFIO device doesn't support migration"]
        return {}

    def device_del(self, arguments: dict[str, str]) -> dict[str, Any]:
        if arguments["id"].rpartition("/")[2] not in self.devices:
            raise RefusedError(f"Device '{arguments['id']}' not found", "DeviceNotFound")
        return {}
