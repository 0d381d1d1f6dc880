"""What it costs a VMM to be supervised: an answered call, and any other system call."""

from __future__ import annotations

import statistics
import struct
import subprocess
import sys
from pathlib import Path

from tests.bench.rows import Row
from tests.interposing import PlayedHost, PlayedVmm

CALLS = 3000
PROMISED_ANSWER_MS = 0.100
PROMISED_OTHER_MS = 0.000_100  # of one

#: Times a system call that does next to nothing, from a loop in C: `dd` reads and writes one byte at a time.
READS = 2_000_000


def rows() -> list[Row]:
    """Measure both."""
    with PlayedVmm(PlayedHost()) as vmm:
        fd = vmm.open()
        vmm.do("buffer", "feature", struct.pack("=2IQ", 16, 1 | 1 << 16, 0).hex())
        answered = statistics.median(vmm.do("repeat", CALLS, fd, 0x3B75, ["feature", 0])) / 1e6
    plain = min(_dd([]) for _ in range(5))
    filtered = min(_dd([sys.executable, "-c", _FILTERED]) for _ in range(5))
    more = max(filtered - plain, 0.0) * 1000 / (2 * READS)  # ms of one call
    note = f"{plain * 1e9 / (2 * READS):.0f} ns each without"
    return [
        Row("an answered call of a VMM, p50", answered, "promised", PROMISED_ANSWER_MS, 1.0, f"{CALLS} calls"),
        Row("1000 other system calls, more", 1000 * more, "promised", 1000 * PROMISED_OTHER_MS, 1.0, note),
    ]


_FILTERED = """
import os, sys
from nvmelm.interposer import launch
listener = launch.install(launch.program())
os.execvp(sys.argv[1], sys.argv[1:])
"""


def _dd(before: list[str]) -> float:
    """Return how many seconds of processor time `dd` takes for its reads and writes."""
    words = [*before, "sh", "-c", f"dd if=/dev/zero of=/dev/null bs=1 count={READS} 2>/dev/null; times"]
    out = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout
    return sum(_seconds(word) for word in out.splitlines()[1].split())


def _seconds(word: str) -> float:
    minutes, seconds = word.rstrip("s").split("m")
    return int(minutes) * 60 + float(seconds)
