"""What an agent must know again after a restart: the VMM's mappings and descriptors, and the calls that wait.

A call that was received and not answered waits for ever: the kernel hands it over once. So it is written down before it
is answered, and taken up again by whoever has the listener next.

A file for each VM, to which lines are added and which is written anew when it has grown; an event is one line::

    ["call", 10, "0a00…"]                            its number, and its struct seccomp_notif
    ["answered", 10]
    ["descriptor", [pid, number], identity, address] which function a number is
    ["closed", address]
    ["bound", [pid, number]]                         a device's own node that was bound
    ["map", space, iova, length, source, address]    source: [pid] of its memory, [pid, device, inode] of a file
    ["unmap", space, iova, length]
    ["move", space, iova, address]
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

#: What a file may grow by before it is written anew; a VM without a virtual IOMMU writes some hundred lines.
_GROWTH_BYTES = 1 << 20

Event = tuple[Any, ...]
#: Takes an event's parts.
Recorder = Callable[..., None]


def nothing(*_event: Any) -> None:
    """Record nothing: whoever answers this VMM is not started again."""


class RecordFile:
    """The file of one VM.

    Args:
        path: made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file = path.open("ab", buffering=0)
        self._fewest_bytes = self._file.tell()
        self._waiting: dict[int, Event] = {}

    def add(self, *event: Any) -> None:
        """Add an event; a full disk is no reason to stop a VM."""
        with self._lock, suppress(OSError):
            if event[0] == "call":
                self._waiting[event[1]] = event
            elif event[0] == "answered":
                self._waiting.pop(event[1], None)
            self._file.write(_line(event))

    @property
    def is_roomy(self) -> bool:
        """Whether the file has grown so far that it should be written anew."""
        with self._lock:
            return self._file.tell() > 2 * self._fewest_bytes + _GROWTH_BYTES

    def events(self) -> Iterator[Event]:
        """Return the events; a line that was cut off by a crash is left out."""
        with suppress(OSError):
            for line in self._path.read_text(errors="replace").splitlines():
                with suppress(ValueError):
                    event = json.loads(line)
                    if isinstance(event, list) and event:
                        yield tuple(event)

    def rewrite(self, events: Iterable[Event]) -> None:
        """Replace the file by these events, and those of the calls that wait."""
        beside = self._path.with_suffix(".anew")
        with self._lock, suppress(OSError):
            beside.write_bytes(b"".join(map(_line, [*events, *self._waiting.values()])))
            beside.replace(self._path)
            self._file.close()
            self._file = self._path.open("ab", buffering=0)
            self._fewest_bytes = self._file.tell()

    def remove(self) -> None:
        """Close and remove the file: the VM has ended."""
        with self._lock, suppress(OSError):
            self._file.close()
            self._path.unlink()

    def close(self) -> None:
        """Close the file, and leave it for the next agent."""
        with self._lock, suppress(OSError):
            self._file.close()


def _line(event: Event) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
