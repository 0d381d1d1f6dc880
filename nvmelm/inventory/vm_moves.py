"""What this host knows of controlled functions that move with their VMs: who holds which now, what left, what arrived.

::

    vm/held/0000:01:00.1.json    a function whose VM runs under the agent: its state, since when, the last arc
    vm/moves.jsonl               one line for everything that left, stayed, arrived or was refused; ids as on the peer
    vm/resumed/ID                a stream that has arrived here, and whether it was resumed: that it is never again

Who runs is the VMM's to decide. What is written here decides one thing only: that one stream runs once.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from nvmelm.disk import store
from nvmelm.disk.atomic import sync_directory
from nvmelm.disk.own import open_own, own_error
from nvmelm.disk.private import private_directory
from nvmelm.errors import MalformedError, UncertainError, host_error
from nvmelm.host import Host
from nvmelm.host.local.processes import start_of
from nvmelm.inventory.picture import Picture, Secondary

_FORMAT = 1
#: A record of who holds a function; its texts are bounded by who writes them.
_HELD_BYTES = 8192
#: What JSON gives for the fields of a record, by their annotations.
_TYPES: dict[str, tuple[type, ...]] = {"str": (str,), "int": (int,), "bool": (bool,), "float": (int, float)}
_EXPECTED, _RESUMED = b"expected\n", b"resumed!\n"


_HANDED_ON = (
    "; its VMM has read its state, as {}: unless the VM runs at the destination, it goes on here by cont (virsh resume)"
)


class Event(StrEnum):
    """What happened to a function on its way."""

    LEAVING = "leaving"
    LEFT = "left"
    STAYED = "stayed"
    ARRIVING = "arriving"
    ARRIVED = "arrived"
    REFUSED = "refused"
    ALL_DIRTY = "all-dirty"


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A function that a VM under the agent has open.

    Attributes:
        boot, incarnation: whose function it is; another boot's, or another VF's, is none of ours.
        start: when the VMM's process started, clock ticks: a pid alone may be used again.
        state: of VFIO's migration protocol, in its words.
        suspended: whether the controller was suspended, as far as arcs tell.
        since: when it came into this state; ``arc_seconds`` is what the last arc took.
        stream: id of the stream that left or arrived and has not run since, empty when there is none.
        arriving: id of a stream that was loaded and has not run yet.
        refusal: the last reason that something was refused.
    """

    address: str
    primary: str
    cntlid: int
    incarnation: int
    boot: str
    pid: int
    start: int
    vm: str
    state: str
    suspended: bool = False
    since: str = ""
    arc: str = ""
    arc_seconds: float = 0.0
    stream: str = ""
    arriving: str = ""
    refusal: str = ""

    @property
    def lives(self) -> bool:
        """Return whether the VMM's process is still there."""
        return start_of(self.pid) == self.start

    def __str__(self) -> str:
        """Return who holds it, and where it stands, in a line."""
        took = f"; {self.arc} took {self.arc_seconds * 1000:.1f} ms" if self.arc_seconds else ""
        refused = f"; last refused: {self.refusal}" if self.refusal else ""
        left = _HANDED_ON.format(self.stream) if self.state == "STOP" and self.stream and not self.arriving else ""
        return f"with {self.vm} (pid {self.pid}), {self.state} since {self.since}{took}{refused}{left}"


class Moves:
    """The records of one host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._directory = host.state_dir / "vm"

    def hold(self, held: Held) -> Held:
        """Write down where a function stands; this outlives the agent, and need not outlive the host.

        The VM waits meanwhile: one write of one length into the file that is there, so that no name changes and nobody
        reads half of it.
        """
        path = self._held(held.address)
        held = replace(held, since=now())
        text = json.dumps({"format": _FORMAT, **asdict(held)})
        try:
            private_directory(path.parent)
            descriptor = open_own(path, os.O_WRONLY | os.O_CREAT)
            try:
                os.pwrite(descriptor, text.encode().ljust(_HELD_BYTES - 1) + b"\n", 0)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise own_error("cannot write", path, error) from error
        return held

    def held(self, address: str) -> Held | None:
        """Return who holds a function under the agent in this boot, or None."""
        record = _parse(store.read(self._held(address)))
        return record if record is not None and record.boot == self._host.facts().boot_id else None

    def all_held(self) -> list[Held]:
        """Return every function that a VM under the agent has open, by address."""
        names = store.names(self._directory / "held")
        records = [self.held(name.removesuffix(".json")) for name in names if name.endswith(".json")]
        return [held for held in records if held is not None]

    def require_readable(self) -> None:
        """Refuse where a record of who holds a function is not what the agent wrote: a VM may hold it.

        Raises:
            MalformedError: the file is named.
        """
        for name in store.names(self._directory / "held"):
            address, json_, rest = name.partition(".json")
            path = self._held(address)
            # Read again: the agent makes the file before it writes it.
            if json_ and not rest and _parse(store.read(path)) is None and _parse(store.read(path)) is None:
                raise MalformedError(
                    f"{path} is not what nvmelm wrote",
                    cause=f"it says which VM has {address} open, and moves it",
                    fix=f"when no VM has it open: rm {shlex.quote(str(path))}",
                    reason="vm-record-damaged",
                )

    def let_go(self, address: str) -> None:
        """Forget who holds a function: its VM closed it."""
        store.remove(self._held(address))

    def note(self, event: Event, held: Held, *, stream: str = "", why: str = "", **more: str) -> None:
        """Append to the journal of moves; nothing is decided by it, and no VM waits for the disk."""
        record = {
            "format": _FORMAT,
            "event": event,
            "at": now(),
            "id": stream or held.stream,
            "address": held.address,
            "primary": held.primary,
            "cntlid": held.cntlid,
            "incarnation": held.incarnation,
            "boot": held.boot,
            "vm": held.vm,
            "pid": held.pid,
            "reason": why,
            **more,
        }
        line = json.dumps(record, separators=(",", ":")) + "\n"
        store.append(self._directory / "moves.jsonl", line, durable=False)

    def journal(self) -> list[dict[str, Any]]:
        """Return the journal, the oldest first; a line that a full disk tore is passed over."""
        records = []
        for line in (store.read(self._directory / "moves.jsonl") or "").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and record.get("format") == _FORMAT:
                records.append(record)
        return records

    def departures(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Return, by address and incarnation, the functions that left in this boot and that no VM has held since."""
        boot = self._host.facts().boot_id
        last = {
            (str(record.get("address")), int(record.get("incarnation", 0))): record
            for record in self.journal()
            if record.get("boot") == boot
        }
        return {function: record for function, record in last.items() if record["event"] == Event.LEFT}

    def left(self, address: str, incarnation: int) -> dict[str, Any] | None:
        """Return the departure of a function that left and has not been held by a VM since, or None."""
        return self.departures().get((address, incarnation))

    def files(self) -> list[str]:
        """Return what another process may have written since: all of it is written in place, or appended to."""
        held = self._directory / "held"
        return [str(self._directory / "moves.jsonl"), str(held), *(str(held / name) for name in store.names(held))]

    def expect(self, stream: str) -> None:
        """Make room for a claim of a stream that arrives, so that claiming it is one small write.

        Raises:
            UncertainError: it was resumed before.
            HostError: it cannot be written.
        """
        with self._claiming(stream) as descriptor:
            if os.fstat(descriptor).st_size == 0:
                os.pwrite(descriptor, _EXPECTED, 0)
                os.fsync(descriptor)
                sync_directory(self._resumed(stream).parent)

    def claim(self, stream: str) -> None:
        """Write down that a stream is resumed now, once and for all; it is on the disk when this returns.

        Raises:
            UncertainError: it was resumed before.
            HostError: it cannot be written; it must not be resumed then.
        """
        with self._claiming(stream) as descriptor:
            os.pwrite(descriptor, _RESUMED, 0)
            os.fdatasync(descriptor)

    @contextmanager
    def _claiming(self, stream: str) -> Iterator[int]:
        """Hold the file of a stream that was not resumed yet."""
        path = self._resumed(stream)
        try:
            private_directory(path.parent)
            descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                if os.pread(descriptor, len(_RESUMED), 0) == _RESUMED:
                    raise resumed_before(stream)
                yield descriptor
            finally:
                os.close(descriptor)
        except OSError as error:
            raise host_error("cannot write", str(path), error) from error

    def _resumed(self, stream: str) -> Path:
        return self._directory / "resumed" / stream

    def _held(self, address: str) -> Path:
        return self._directory / "held" / f"{address}.json"


def joined(host: Host, picture: Picture) -> Picture:
    """Return the picture with where each function stands with its VM."""
    moves = Moves(host)
    held = {record.address: record for record in moves.all_held() if record.lives}
    left = moves.departures()
    rows = [replace(secondary, with_vm=_stands(secondary, held, left)) for secondary in picture.secondaries]
    return replace(picture, secondaries=tuple(rows))


def _stands(secondary: Secondary, held: Mapping[str, Held], left: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    address = (secondary.address or "") if secondary.present else ""
    holder = held.get(address)
    if holder is not None and holder.incarnation == secondary.incarnation:
        return str(holder)
    record = left.get((address, secondary.incarnation))
    return f"left with its VM {record['vm']} at {record['at']}, as {record['id']}" if record is not None else ""


def resumed_before(stream: str) -> UncertainError:
    """Return the error of a stream that comes a second time."""
    return UncertainError(
        f"the state in stream {stream} was resumed on this host before",
        cause="it runs, or ran, in a VM already; a second copy would write to the same namespaces",
        fix="migrate the VM again from where it runs now",
        reason="stream-resumed-before",
    )


def now() -> str:
    """Return the time, UTC, for people."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _parse(text: str | None) -> Held | None:
    try:
        record = json.loads(text) if text else None
        if not isinstance(record, dict) or record.pop("format", None) != _FORMAT:
            return None
        held = Held(**record)
    except (ValueError, TypeError, RecursionError):
        return None
    typed = all(isinstance(getattr(held, field.name), _TYPES[str(field.type)]) for field in fields(held))
    return held if typed else None
