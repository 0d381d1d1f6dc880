"""Small fakes for unit tests: an admin queue that migrates, and a host of dictionaries.

The queue obeys the specification's Migration Send and Migration Receive (NVM Express Base Specification 2.1), written
here from the specification's words and not with nvmelm's structures, so that a mistake there is not repeated here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from nvmelm.errors import HostError
from nvmelm.host import AdminCommand, Claim, Completion, HostFacts, Mount, Opener, Uevents

SUCCESS = 0
INVALID_FIELD = 0x002
INTERNAL_ERROR = 0x006
SEQUENCE_ERROR = 0x00C
INVALID_CONTROLLER = 0x11F
NOT_SUSPENDED = 0x13A
DNR = 0x4000


def queue_state(pairs: int = 1) -> bytes:
    """Return an NVMe Controller State, version 0, with pairs of I/O queues of 1024 slots."""
    head = struct.pack("<HHHH", 0, pairs, pairs, 0)
    sqs = [struct.pack("<QHHHHHHI", 0x5170000 + q, 1023, q, q, 1, 7, 9, 0) for q in range(1, pairs + 1)]
    cqs = [struct.pack("<QHHHHII", 0x45D4000 + q, 1023, q, 5, 7, 0x0001_0007, 0) for q in range(1, pairs + 1)]
    return head + b"".join(sqs + cqs)


def state_header(nvme_dwords: int, vendor_dwords: int, *, suspended: bool, version: int = 0) -> bytes:
    """Return the 48 bytes in front of a Controller State."""
    head = struct.pack("<HB13x", version, int(suspended))
    return head + nvme_dwords.to_bytes(16, "little") + vendor_dwords.to_bytes(16, "little")


@dataclass
class FakeController:
    """A secondary controller: its state, and whether it runs."""

    nvme: bytes = b""
    vendor: bytes = b""
    suspended: bool = False

    def state(self, *, with_nvme: bool, with_vendor: bool) -> bytes:
        nvme, vendor = self.nvme if with_nvme else b"", self.vendor if with_vendor else b""
        return state_header(len(nvme) // 4, len(vendor) // 4, suspended=self.suspended) + nvme + vendor


@dataclass
class FakeQueue:
    """The admin queue of a primary controller with two secondaries, 0x0001 and 0x0002.

    Attributes:
        csup: completions of Migration Receive say that the controller was suspended.
        one_part_only: Set Controller State answers Internal Error to anything but SEQIND 11b.
        before: called before each command with its number, from 1; may change the controllers.
        statuses: status by number of the command, instead of what the specification says.
    """

    controllers: dict[int, FakeController]
    max_transfer_bytes: int = 128 * 1024
    versions: int = 1
    uuids: int = 0
    csup: bool = True
    one_part_only: bool = False
    before: Callable[[int], None] = lambda number: None
    statuses: dict[int, int] = field(default_factory=dict)
    commands: list[AdminCommand] = field(default_factory=list)
    _parts: dict[int, bytearray] = field(default_factory=dict)

    def submit(self, command: AdminCommand) -> Completion:
        self.commands.append(command)
        self.before(len(self.commands))
        assert command.data_length <= self.max_transfer_bytes
        if len(self.commands) in self.statuses:
            return Completion(self.statuses[len(self.commands)])
        controller = self.controllers.get(command.cdw11 & 0xFFFF)
        if controller is None:
            return Completion(INVALID_CONTROLLER | DNR)
        if command.opcode == 0x42:
            return self._get(command, controller)
        assert command.opcode == 0x41
        return Completion(self._send(command, controller))

    def _get(self, command: AdminCommand, controller: FakeController) -> Completion:
        version, vendor = command.cdw10 >> 16 & 0xFF, command.cdw11 >> 16 & 0xFF
        state = controller.state(with_nvme=version > 0, with_vendor=vendor > 0)
        offset = command.cdw13 << 32 | command.cdw12
        length = (command.cdw15 + 1) * 4
        if version > self.versions or vendor > self.uuids or offset % 4 or offset >= len(state):
            return Completion(INVALID_FIELD | DNR)
        assert length == command.data_in_length
        data = state[offset : offset + length].ljust(length, b"\xee")
        return Completion(SUCCESS, int(self.csup and controller.suspended), data)

    def _send(self, command: AdminCommand, controller: FakeController) -> int:
        select = command.cdw10 & 0xFF
        if select == 0:
            controller.suspended |= (command.cdw11 >> 16 & 0xFF) == 1
            return SUCCESS
        if select == 1:
            if not controller.suspended:
                return NOT_SUSPENDED | DNR
            controller.suspended = False
            return SUCCESS
        return self._set(command, controller)

    def _set(self, command: AdminCommand, controller: FakeController) -> int:
        cntlid, sequence = command.cdw11 & 0xFFFF, command.cdw10 >> 16 & 3
        version, vendor = command.cdw11 >> 16 & 0xFF, command.cdw11 >> 24
        if self.one_part_only and sequence != 3:
            return INTERNAL_ERROR | DNR
        if not controller.suspended:
            return INVALID_CONTROLLER | DNR
        if version > self.versions or vendor > self.uuids or not version | vendor:
            return INVALID_FIELD | DNR
        data = bytes(command.data_out or b"")
        assert command.cdw15 * 4 == len(data)
        if sequence & 1:  # first or only
            self._parts[cntlid] = bytearray()
        elif cntlid not in self._parts:
            return SEQUENCE_ERROR | DNR
        if (command.cdw13 << 32 | command.cdw12) != len(self._parts[cntlid]):
            return INVALID_FIELD | DNR
        self._parts[cntlid] += data
        return self._commit(cntlid, controller) if sequence & 2 else SUCCESS

    def _commit(self, cntlid: int, controller: FakeController) -> int:
        state = bytes(self._parts.pop(cntlid))
        middle = 48 + 4 * int.from_bytes(state[16:32], "little")
        if len(state) != middle + 4 * int.from_bytes(state[32:48], "little") or controller.nvme[8:]:
            return INVALID_FIELD | DNR
        controller.nvme, controller.vendor = state[48:middle], state[middle:]
        return SUCCESS

    def close(self) -> None:
        pass


@dataclass
class FakeHost:
    """A host of dictionaries; what is not there is an error or an empty answer, as on a real one."""

    directory: Path
    texts: dict[str, str] = field(default_factory=dict)
    queues: dict[str, Any] = field(default_factory=dict)
    open_by: list[Opener] = field(default_factory=list)
    closed: bool = False
    kind: Literal["local", "emulated", "replay"] = "emulated"
    name: str = "fake"

    @property
    def sysfs(self) -> Any:
        return self

    @property
    def state_dir(self) -> Path:
        return self.directory

    def read(self, path: str) -> str:
        if path not in self.texts:
            raise HostError(f"cannot read: {path}", path=path, errno=2, cause="not there", fix="look elsewhere")
        return self.texts[path]

    def write(self, path: str, value: str) -> None:
        if path.startswith("busy"):
            raise HostError(f"cannot write: {path}", path=path, errno=16)
        self.texts[path] = value

    def readlink(self, path: str) -> str | None:
        return f"../{path}" if path.startswith("link") else None

    def listdir(self, path: str) -> list[str]:
        return sorted({text[len(path) + 1 :].split("/")[0] for text in self.texts if text.startswith(f"{path}/")})

    def exists(self, path: str) -> bool:
        return path in self.texts

    def inode(self, path: str) -> int:
        return 4_000_000 + len(path)

    def devices(self, subsystem: str) -> list[str]:
        return sorted(self.queues)

    def open_queue(self, controller: str) -> Any:
        if controller not in self.queues:
            raise HostError(f"cannot open {controller}", path=f"/dev/{controller}", errno=2)
        return self.queues[controller]

    def lock(self, name: str, *, timeout_s: float = 30.0) -> AbstractContextManager[None]:
        return nullcontext()

    def facts(self) -> HostFacts:
        return HostFacts("6.1.0", "5f1c4d5e-0000-4000-8000-0123456789ab", True)

    def openers(self, nodes: Sequence[str]) -> list[Opener]:
        return [one for one in self.open_by if one.node in nodes]

    def exclusively_held(self, nodes: Sequence[str]) -> list[str]:
        return []

    def mounts(self) -> list[Mount]:
        return [Mount("nvme1n1p1", "/srv")]

    def claims(self) -> list[Claim]:
        return []

    def queue_memory(self, size: int) -> AbstractContextManager[memoryview]:
        raise AssertionError("not asked for in unit tests")

    def uevents(self) -> Uevents:
        raise AssertionError("not asked for in unit tests")

    def node_exists(self, node: str) -> bool:
        return node in self.queues

    def load_module(self, name: str) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
