"""What a migration costs: the tool's own part of the downtime, several controllers at once, and large states.

The hosts are emulated and answer at once unless said otherwise, so that what is measured is nvmelm. Each move starts
the destination as an operator's does, as a process of its own behind a pipe or behind ssh.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.emulator.machine.generations import GENERATIONS
from nvmelm.inventory.address import Address
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.migrate.callouts.points import Points
from nvmelm.migrate.end import End
from nvmelm.migrate.link.frames import Link
from nvmelm.migrate.link.remote import connected
from nvmelm.migrate.request import MigrationRequest
from nvmelm.migrate.source import Source
from nvmelm.ownership.sessions import Sessions
from nvmelm.prepare import release, sequence
from tests.bench.rows import Row

MiB, GiB = 1 << 20, 1 << 30
PF = "0000:01:00.0"
FIRST = 0x42
NVMELM = str(Path(sys.executable).with_name("nvmelm"))
Connect = Callable[[Path], AbstractContextManager[Link]]


def prepare(place: Path, *generations: Any, controllers: int = 1, **options: Any) -> None:
    """Make two hosts below a directory, prepared for moves from the one to the other."""
    for name, role in (("source", Role.MIGRATABLE), ("destination", Role.RESUMABLE)):
        with create(place / name, generations, serials=[name], storage=place / "media") as host:
            again(host, role, controllers)
            if options:
                host.set_option(**options)


def again(host: EmulatedHost, role: Role, controllers: int) -> None:
    """Prepare a host; after a move as before the first."""
    with open_primary(host, PF, change=True) as pf:
        sequence.prepare(pf, role, controllers, vq=2, vi=1, confirm=lambda question: None)


def through_a_pipe(place: Path) -> AbstractContextManager[Link]:
    """Start the destination behind a pipe."""
    return connected(Address("destination"), rsh=f"{NVMELM} emulate rsh {place}", program=NVMELM)


def move(place: Path, connect: Connect, controllers: int = 1) -> Source:
    """Move everything once, and return what it took."""
    pairs = [(FIRST + number, None) for number in range(controllers)]
    with (
        EmulatedHost(place / "source") as host,
        open_primary(host, PF, change=True) as pf,
        Sessions(host) as sessions,
        connect(place) as link,
    ):
        request = MigrationRequest(to="ssh://destination", pf=PF, pairs=pairs)
        moved = Source(End(pf, sessions, link, Points(None, "source"), "source"), request)
        moved.open()
        moved.move()
    return moved


def downtimes(place: Path, connect: Connect, rounds: int) -> list[float]:
    """Return the downtime of several moves, ms; hosts are prepared anew in between."""
    found = []
    for _ in range(rounds):
        for name, role in (("source", Role.MIGRATABLE), ("destination", Role.RESUMABLE)):
            with EmulatedHost(place / name) as host:
                with open_primary(host, PF, change=True) as pf:
                    release.release(pf, confirm=lambda question: None)
                again(host, role, 1)
        found.append((move(place, connect).measured.downtime_s or 0.0) * 1000)
    return sorted(found)


def switch_over(place: Path, rounds: int) -> list[Row]:
    """The tool's own part of the downtime, over a pipe and over ssh on the loopback."""
    prepare(place)
    rows = []
    from tests.sshd import NoSshdError, sshd

    for name, limits, connect in (("a pipe", (5.0, 20.0), through_a_pipe), ("ssh", (15.0, None), None)):
        if connect is not None:
            found = downtimes(place, connect, rounds)
        else:
            try:
                with sshd(place / "ssh") as server:
                    found = downtimes(place, server.link_to(place / "destination"), max(20, rounds // 4))
            except NoSshdError as error:
                print(f"moves over ssh are left out: {error}", file=sys.stderr)
                continue
        at_99 = found[min(len(found) - 1, int(len(found) * 0.99))]
        note = f"p99 {at_99:.2f} ms{f' (promised {limits[1]:g})' if limits[1] else ''}, {len(found)} moves"
        rows.append(Row(f"switch-over through {name}, p50", statistics.median(found), "promised", limits[0], 1.0, note))
    return rows


def together(place: Path) -> list[Row]:
    """Eight controllers beside one, on hosts whose every command takes 50 ms."""
    times = {}
    for count in (1, 8):
        prepare(place / str(count), controllers=count, latency_ms=50)
        times[count] = (move(place / str(count), through_a_pipe, count).measured.downtime_s or 0.0) * 1000
    return [Row("downtime of 8, 50 ms a command", times[8], "downtime of 1", times[1], 1.5)]


def plain(image: Path, target: Path) -> float:
    """Return what ``cat`` takes to carry a file through a pipe into a new file, ms."""
    begin = time.perf_counter()
    with subprocess.Popen(["cat", str(image)], stdout=subprocess.PIPE) as first, target.open("xb") as copy:
        subprocess.run(["cat"], stdin=first.stdout, stdout=copy, check=True)
    took_ms = (time.perf_counter() - begin) * 1000
    target.unlink()
    return took_ms


@contextmanager
def in_memory(otherwise: Path, needed: int) -> Iterator[Path]:
    """Give a directory in memory where there is room; a disk that writes back at its own time slows whatever it meets.

    Args:
        otherwise: the directory where there is none.
        needed: bytes that lie there at a time, at most.
    """
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 2 * needed:
        yield otherwise
        return
    with tempfile.TemporaryDirectory(prefix="nvmelm-bench-", dir=memory) as place:
        yield Path(place)


def large(place: Path, size: int = GiB, rounds: int = 5) -> list[Row]:
    """A large vendor state, beside ``cat`` of as much through the same pipe, in turns: what else runs slows both."""
    import resource

    place.mkdir(parents=True, exist_ok=True)
    row = GENERATIONS["nvme-2.1-vendor"].with_(vendor_state_bytes=size)
    image = place / "as-much"
    with image.open("wb") as file:
        for _ in range(size // MiB):
            file.write(b"\xa5" * MiB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    copied, stood = [], []
    for number in range(rounds):
        copied.append(plain(image, place / "copied"))
        hosts = place / str(number)
        prepare(hosts, row)
        stood.append(move(hosts, through_a_pipe).measured.send_s * 1000)
        shutil.rmtree(hosts)
    image.unlink()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    stood_ms = statistics.median(stood)
    memory = f"memory here +{(peak - before) / 1024:.0f}, there {child / 1024:.0f} MiB"
    best = f"best of {rounds}: {min(stood):.0f} and {min(copied):.0f} ms"
    note = f"{size / MiB / stood_ms * 1000:.0f} MiB/s; {best}; {memory}"
    what = f"state of {size // MiB} MiB to the other host"
    return [Row(what, stood_ms, "cat | cat > file", statistics.median(copied), 1 / 0.6, note)]


def rows(place: Path, rounds: int = 200) -> Sequence[Row]:
    """Return every row."""
    with in_memory(place, needed=3 * GiB) as memory:
        states = large(memory / "large")
    return [*switch_over(place / "switch", rounds), *together(place / "together"), *states]


if __name__ == "__main__":
    from tests.bench.rows import table

    with tempfile.TemporaryDirectory(prefix="nvmelm-bench-") as scratch:
        for line in table(rows(Path(scratch), int(sys.argv[1]) if len(sys.argv) > 1 else 200)):
            print(line)
