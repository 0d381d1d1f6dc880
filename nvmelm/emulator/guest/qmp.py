"""The server's side of the QEMU Machine Protocol: greeting, negotiation, commands, events, over a Unix socket.

One client at a time, as QEMU's monitors have it; another one waits until the first has gone. Events are only sent to a
client that has negotiated.

Source: QEMU documentation, QEMU Machine Protocol Specification.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nvmelm.errors import NvmelmError, host_error

Arguments = dict[str, Any]
Command = Callable[[Arguments], Any]

VERSION = {"qemu": {"micro": 3, "minor": 1, "major": 11}, "package": ""}
_GREETING = {
    "QMP": {"version": {"qemu": {"micro": 3, "minor": 1, "major": 11}, "package": ""}, "capabilities": ["oob"]}
}
_POLL_S = 0.2  # how long closing the server may go unnoticed
_MAX_LINE = 1 << 20


class QmpError(Exception):
    """A command fails.

    Args:
        description: QEMU's sentence.
        kind: QEMU's error class.
    """

    def __init__(self, description: str, kind: str = "GenericError") -> None:
        super().__init__(description)
        self.kind = kind


class QmpServer:
    """A QMP socket; commands run in the server's thread.

    Args:
        path: the socket; must not exist.
        commands: what the machine can do.
    """

    def __init__(self, path: Path, commands: dict[str, Command]) -> None:
        self._path = path
        self._commands = commands
        self._client: socket.socket | None = None
        self._negotiated = False
        self._sending = threading.Lock()
        self._stopping = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(os.fspath(path))
            path.chmod(0o600)
            self._listener.listen(4)
        except OSError as error:
            self._listener.close()
            raise host_error("cannot listen", str(path), error) from error
        self._thread = threading.Thread(target=self._serve, name="qmp", daemon=True)

    def start(self) -> None:
        """Begin to take clients."""
        self._thread.start()

    def emit(self, event: str, **data: Any) -> None:
        """Send an event to the client, if there is one."""
        now = time.time()
        stamp = {"seconds": int(now), "microseconds": int(now % 1 * 1_000_000)}
        message: dict[str, Any] = {"timestamp": stamp, "event": event}
        if data:
            message["data"] = data
        if self._negotiated:
            self._send(message)

    def close(self) -> None:
        """Take no more clients, let the present one go, remove the socket."""
        self._stopping.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._stopping.is_set():
                if selector.select(_POLL_S):
                    self._client, _ = self._listener.accept()
                    with self._client:
                        self._talk(self._client)
                    self._client, self._negotiated = None, False

    def _talk(self, client: socket.socket) -> None:
        self._send(_GREETING)
        buffered = b""
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ)
            while not self._stopping.is_set():
                if not selector.select(_POLL_S):
                    continue
                try:
                    received = client.recv(65536)
                except OSError:
                    return
                if not received or len(buffered) > _MAX_LINE:
                    return
                buffered = self._answer_all(buffered + received)

    def _answer_all(self, buffered: bytes) -> bytes:
        """Answer each whole message and return the rest; as in QEMU, no newline is needed between messages."""
        while buffered := buffered.lstrip():
            try:
                message, end = json.JSONDecoder().raw_decode(buffered.decode("utf-8", "surrogateescape"))
            except ValueError:
                _, newline, rest = buffered.partition(b"\n")
                if not newline:
                    return buffered  # the rest of it is still to come
                self._send({"error": {"class": "GenericError", "desc": "JSON parse error, invalid keyword"}})
                buffered = rest
                continue
            text = buffered.decode("utf-8", "surrogateescape")[end:]
            self._answer(message)
            buffered = text.encode("utf-8", "surrogateescape")
        return buffered

    def _answer(self, message: Any) -> None:
        identity: Any = None
        try:
            if not isinstance(message, dict) or not isinstance(message.get("execute"), str):
                raise QmpError("QMP input lacks member 'execute'")
            identity = message.get("id")
            answer: dict[str, Any] = {"return": self._run(message["execute"], message.get("arguments", {}))}
        except QmpError as error:
            answer = {"error": {"class": error.kind, "desc": str(error)}}
        except (KeyError, OSError, NvmelmError) as error:
            answer = {"error": {"class": "GenericError", "desc": f"the command failed: {error}"}}
        if identity is not None:
            answer["id"] = identity
        self._send(answer)

    def _run(self, name: str, arguments: Any) -> Any:
        if name == "qmp_capabilities":
            if self._negotiated:
                raise QmpError("Capabilities negotiation is already complete, command ignored", "CommandNotFound")
            self._negotiated = True
            return {}
        if not self._negotiated:
            raise QmpError("Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound")
        command = self._commands.get(name)
        if command is None:
            raise QmpError(f"The command {name} has not been found", "CommandNotFound")
        if not isinstance(arguments, dict):
            raise QmpError("QMP input member 'arguments' must be an object")
        return command(arguments)

    def _send(self, message: dict[str, Any]) -> None:
        client = self._client
        if client is None:
            return
        with self._sending:
            try:
                client.sendall(json.dumps(message).encode() + b"\r\n")
            except OSError:
                return  # it has gone; the server's loop finds out
