"""What a VM waits for while its function leaves and arrives: the arcs on emulated hosts without latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from nvmelm.emulator.guest.migrating_vm import MigratingVm, MigrationState
from nvmelm.inventory import marks
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from tests.bench.rows import Row
from tests.emulated.vfio_world import PF, World

ROUNDS = 40
_RESCANS = 40


def rows(place: Path) -> list[Row]:
    """Return the medians of each arc beside what was promised, ms."""
    world = World(place)
    try:
        source, destination = world.running(), world.waiting()
        source.rescan(_RESCANS)
        taken: dict[str, list[float]] = {"RUNNING to STOP": [], "STOP to STOP_COPY": [], "RESUMING to RUNNING": []}
        for _ in range(ROUNDS):
            _round(world, source, destination, taken)
        promised = {"RUNNING to STOP": 2.0, "STOP to STOP_COPY": 2.0, "RESUMING to RUNNING": 5.0}
        return [
            Row(arc, statistics.median(times), "promised", promised[arc], 1.0, "p50, emulated, no latency")
            for arc, times in taken.items()
        ]
    finally:
        world.close()


def _round(world: World, source: MigratingVm, destination: MigratingVm, taken: dict[str, list[float]]) -> None:
    """Let the function leave and arrive, and go on at the source as after a failure that comes last of all."""
    with open_primary(world.destination, PF, change=True) as pf:
        picture = pf.picture()
        marks.give(world.destination, picture, picture.secondaries[0], Role.RESUMABLE)
    destination.reset()
    destination.expect()
    source.begin()
    source.running = False
    taken["RUNNING to STOP"].append(_ms(lambda: source.set(MigrationState.STOP)))
    assert source.answering is not None
    source.answering.logging_stop()
    outgoing: list[object] = []
    taken["STOP to STOP_COPY"].append(_ms(lambda: outgoing.append(source.set(MigrationState.STOP_COPY))))
    data = b""
    while piece := outgoing[0].read(1 << 16):  # type: ignore[attr-defined]
        data += piece
    destination.function.memory.write(0, source.function.memory.read(0, source.function.memory.size))
    destination.load(data, source.configuration)
    taken["RESUMING to RUNNING"].append(_ms(lambda: destination.set(MigrationState.RUNNING)))
    destination.reset()
    source.start()


def _ms(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return (time.perf_counter() - begin) * 1000
