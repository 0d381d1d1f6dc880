"""An agent that was started again takes up the VMs of the one before: their memory, devices and waiting calls."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from contextlib import suppress

from nvmelm.interposer.caller import Process
from nvmelm.interposer.descriptors import Place
from nvmelm.interposer.kernel import Identity
from nvmelm.interposer.memory import Backing, FileBacking, Mapping
from nvmelm.interposer.notification import Notification, parse
from nvmelm.interposer.record import Event
from nvmelm.interposer.supervisor import Supervisor

_Open = dict[tuple[int, int], tuple[Identity, str]]


def adopt(supervisor: Supervisor, events: Iterable[Event]) -> list[Notification]:
    """Bring a supervisor to where the events of its record left another one.

    Events that make no sense, and what has gone meanwhile, are passed over.

    Returns:
        The calls that wait for an answer, in their order; to be taken when the supervisor may answer.
    """
    waiting: dict[int, Notification] = {}
    opened: _Open = {}
    for event in events:
        with suppress(OSError, ValueError, TypeError, IndexError, struct.error):
            _replay(supervisor, event, waiting, opened)
    for (pid, number), (identity, address) in opened.items():
        with suppress(OSError):
            _reopen(supervisor, supervisor.processes.numbered(pid), number, identity, address)
    return list(waiting.values())


def _replay(supervisor: Supervisor, event: Event, waiting: dict[int, Notification], opened: _Open) -> None:
    mappings = supervisor.mappings
    match event:
        case ("call", int(number), str(data)):
            waiting[number] = parse(bytes.fromhex(data))
        case ("answered", int(number)):
            waiting.pop(number, None)
        case ("descriptor", [int(pid), int(number)], [int(), int(), int(), str()], str(address)):
            opened[pid, number] = (Identity(*event[2]), address)
        case ("bound", [int(pid), int(number)]):
            supervisor.descriptors.bind(Place(pid, number))
        case ("closed", str(address)):
            for place in [place for place, (_, former) in opened.items() if former == address]:
                del opened[place]
        case ("map", [int(fd), int(ioas)], int(iova), int(length), list(source), int(address)):
            mappings.map(Mapping((fd, ioas), iova, length, _backing(supervisor, source), address))
        case ("unmap", [int(fd), int(ioas)], int(iova), int(length)):
            mappings.unmap((fd, ioas), iova, length)
        case ("move", [int(fd), int(ioas)], int(iova), int(address)):
            mappings.move((fd, ioas), iova, address)


def _backing(supervisor: Supervisor, source: list[int]) -> Backing:
    process = supervisor.processes.numbered(source[0])
    return process if len(source) == 1 else FileBacking(process, (source[1], source[2]))


def _reopen(supervisor: Supervisor, process: Process, number: int, identity: Identity, address: str) -> None:
    fd = process.take(number)
    try:
        if Identity.of(fd) == identity:
            supervisor.reopen(process, number, address, fd)
    finally:
        os.close(fd)
