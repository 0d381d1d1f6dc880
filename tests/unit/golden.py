"""The reference values: structures, constants, commands and bytes that other programs produced, and real exchanges.

They live in ``fixtures/``; its README names the origin of each. Nothing here is computed by nvmelm.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parents[2] / "fixtures"

RECORDINGS = ("stock-qemu-7.2", "tp4159-controller")


@dataclass(frozen=True)
class GoldenCommand:
    """One command as nvme-cli's encoder makes it."""

    name: str
    params: dict[str, int]
    opcode: int
    nsid: int
    data_length: int
    words: tuple[int, ...]

    @property
    def id(self) -> str:
        return "-".join([self.name, *(f"{key}={value}" for key, value in self.params.items())])


@dataclass(frozen=True)
class Exchange:
    """One recorded command and its answer, data in full length."""

    about: str
    opcode: int
    nsid: int
    words: tuple[int, ...]
    data_out: bytes | None
    data_length: int
    status: int
    result: int
    data_in: bytes


@functools.cache
def reference() -> dict[str, Any]:
    """Return the whole of ``struct-sizes.json``."""
    return json.loads((FIXTURES / "golden" / "struct-sizes.json").read_text(encoding="utf-8"))


def structure(name: str) -> dict[str, Any]:
    """Return ``{"size": bytes, "fields": {name: [offset, size]}}``."""
    return reference()[name]


def constants(*path: str) -> Any:
    """Return a constant, or a group of them, ``constants("cdq", "sel")``."""
    value = reference()["_constants"]
    for key in path:
        value = value[key]
    return value


def data(name: str) -> bytes:
    """Return a golden byte string."""
    return bytes.fromhex(reference()["_golden_data"][name])


def commands() -> list[GoldenCommand]:
    """Return every golden command."""
    return [
        GoldenCommand(
            name=row["name"],
            params=row["params"],
            opcode=row["opcode"],
            nsid=row["nsid"],
            data_length=row["data_len"],
            words=tuple(row[f"cdw{number}"] for number in range(10, 16)),
        )
        for row in reference()["_golden_commands"]["commands"]
    ]


@functools.cache
def recording(name: str) -> tuple[Exchange, ...]:
    """Return the exchanges of a recording, in order."""
    document = json.loads((FIXTURES / "recordings" / f"{name}.json").read_text(encoding="utf-8"))
    return tuple(_exchange(event) for event in document["events"])


def queue_entries() -> list[bytes]:
    """Return the recorded entries of a User Data Migration Queue, in order."""
    path = FIXTURES / "recordings" / "user-data-migration-queue.json"
    return [bytes.fromhex(entry["bytes"]) for entry in json.loads(path.read_text(encoding="utf-8"))["entries"]]


def _exchange(event: dict[str, Any]) -> Exchange:
    length = event["data_in_length"] or 0
    return Exchange(
        about=event["about"],
        opcode=int(event["opcode"], 16),
        nsid=int(event["nsid"], 16),
        words=tuple(int(word, 16) for word in event["cdw10_15"].split()),
        data_out=bytes.fromhex(event["data_out"]) if event["data_out"] else None,
        data_length=event["data_length"],
        status=int(event["status"], 16),
        result=int(event["result"], 16),
        # Trailing zeros are left out of the files.
        data_in=bytes.fromhex(event["data_in"] or "").ljust(length, b"\0"),
    )
