"""What watching 127 VFs costs while nothing happens, and how long a uevent takes to be a line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.emulator.machine.generations import GENERATIONS
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.prepare import sequence
from nvmelm.process.waiting import wait_until
from tests.bench.rows import Row

VFS = 127
#: Long enough for every look there is, the one that comes once a minute among them.
IDLE_S = 70.0
EVENTS = 50
PROMISED_SHARE = 0.01
PROMISED_MS = 100.0
_VF = "0000:01:00.5"


def rows(place: Path) -> list[Row]:
    """Watch an emulated host with 127 prepared VFs."""
    kind = GENERATIONS["nvme-2.1"].with_(max_vfs=VFS, vq_flexible=4 * VFS, vi_flexible=2 * VFS)
    with create(place, [kind]) as host:
        with open_primary(host, "nvme0", change=True) as pf:
            sequence.prepare(pf, Role.MIGRATABLE, VFS, vq=2, vi=1, confirm=lambda _: None)
        words = [sys.executable, "-m", "nvmelm", "--host", host.name, "watch"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            lines = _Lines(process)
            try:
                wait_until(lambda: lines.count("primary") > 0, "the first look", deadline_s=60)
                idle = _idle(process.pid)
                late = sorted(_late(host, lines))
            finally:
                process.terminate()
                lines.end()
    share = f"{idle * 100:.2f} % of a core"
    promised = PROMISED_SHARE * IDLE_S * 1000
    return [
        Row(f"watch, {VFS} VFs, {IDLE_S:g} s idle", idle * IDLE_S * 1000, "promised", promised, 1.0, share),
        Row(
            f"a uevent is a line, worst of {EVENTS}",
            late[-1],
            "promised",
            PROMISED_MS,
            1.0,
            f"p50 {late[EVENTS // 2]:.1f} ms",
        ),
    ]


class _Lines:
    """The lines of a watch with the time each was read at."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.found: list[tuple[float, dict[str, Any]]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for text in self._process.stdout or ():
            self.found.append((time.monotonic(), json.loads(text)))

    def end(self) -> None:
        """Read what is left; its process has been told to end."""
        self._reader.join()

    def count(self, kind: str) -> int:
        """Return how many lines of a kind were read."""
        return sum(line["kind"] == kind for _, line in list(self.found))


def _idle(pid: int) -> float:
    """Return which part of a core a process takes while nothing happens."""
    before, began = _processor_s(pid), time.monotonic()
    time.sleep(IDLE_S)
    return (_processor_s(pid) - before) / (time.monotonic() - began)


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _late(host: EmulatedHost, lines: _Lines) -> list[float]:
    """Return how many ms after it began each of some changes was a line, the change itself included."""
    late = []
    for _ in range(EVENTS):
        at = len(lines.found)
        began = time.monotonic()
        host.sysfs.write("bus/pci/drivers/vfio-pci/unbind", _VF)
        late.append((_unbound(lines, at) - began) * 1000)
        host.sysfs.write("bus/pci/drivers_probe", _VF)
    return late


def _unbound(lines: _Lines, at: int) -> float:
    found: list[float] = []

    def seen() -> bool:
        found[:] = [
            when
            for when, line in lines.found[at:]
            if line["kind"] == "uevent" and (line["uevent"]["action"], line["uevent"]["address"]) == ("unbind", _VF)
        ]
        return bool(found)

    wait_until(seen, "the uevent to be a line", deadline_s=20)
    return found[0]
