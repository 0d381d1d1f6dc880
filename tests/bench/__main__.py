"""``make bench``: what nvmelm costs, side by side with what a user would use instead, in one run.

Nothing here passes or fails by a time: a row shows both figures, their ratio and the ratio that was promised. The
second half runs in the lab's guest (32 VFs on a real kernel); without QEMU it is left out with its reason.
"""

from __future__ import annotations

import compileall
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nvmelm
from tests.bench import arcs, fleet, interposer, moves, playbook, watch
from tests.bench.rows import Row, table

MiB = 1 << 20
ROUNDS = 15
STATE_BYTES = 256 * MiB

TYPER = '''
import typer
app = typer.Typer(help="Two commands.", add_completion=True)
@app.command()
def one(name: str, count: int = 1) -> None:
    """The first."""
@app.command()
def two(name: str, loud: bool = False) -> None:
    """The second."""
app()
'''
IMPORTS = "import pyudev, ioctl_opt, pydantic, typer"


def environment() -> dict[str, str]:
    """Return the environment of both sides: byte code is kept, as it is for any installed program."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def median_ms(words: list[str]) -> float:
    """Return the median wall time of a command over several runs, after one to warm up."""
    times = []
    for _ in range(ROUNDS + 1):
        begin = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=environment())
        times.append((time.perf_counter() - begin) * 1000)
    return statistics.median(times[1:])


def starts(place: Path) -> list[Row]:
    """Measure what a verb costs before it does anything."""
    python, verb = sys.executable, str(Path(sys.executable).with_name("nvmelm"))
    program = place / "two.py"
    program.write_text(TYPER)
    host = f"emulated:{place / 'host'}"
    subprocess.run([verb, "--host", host, "list"], check=True, stdout=subprocess.DEVNULL)
    wanted = place / "wanted"
    wanted.mkdir()
    (wanted / "nvmelm.toml").write_text("[[pf]]\naddress = '0000:01:00.0'\nvfs = 2\nrole = 'source'\n")
    apply = [verb, "--host", host, "apply", "--config", str(wanted)]
    subprocess.run(apply, check=True, stdout=subprocess.DEVNULL)
    return [
        Row(
            "nvmelm --help",
            median_ms([verb, "--help"]),
            "typer, two commands",
            median_ms([python, str(program), "--help"]),
            1.3,
        ),
        Row(
            "nvmelm list, emulated",
            median_ms([verb, "--host", host, "list"]),
            "import of 4 packages",
            median_ms([python, "-c", IMPORTS]),
            1.5,
        ),
        Row("apply, nothing to do", median_ms(apply), "nvmelm list", median_ms([verb, "--host", host, "list"]), 2),
    ]


def stream(place: Path) -> list[Row]:
    """Save a large vendor state into a pipe and restore it from there, beside ``cat`` through the same pipe."""
    from nvmelm.emulator.host import create
    from nvmelm.emulator.machine.generations import GENERATIONS
    from nvmelm.inventory.opened import open_primary
    from nvmelm.inventory.picture import Role
    from nvmelm.prepare import sequence
    from nvmelm.state import verbs

    row = GENERATIONS["nvme-2.1-vendor"].with_(vendor_state_bytes=STATE_BYTES)
    verb = str(Path(sys.executable).with_name("nvmelm"))
    words = []
    for name, role in (("source", Role.MIGRATABLE), ("destination", Role.RESUMABLE)):
        with create(place / name, [row]) as host, open_primary(host, "nvme0", change=True) as pf:
            sequence.prepare(pf, role, 1, confirm=lambda _: None)
            if role is Role.MIGRATABLE:
                verbs.suspend(pf, 0x42, confirm=lambda _: None)
        words.append([verb, "--host", f"emulated:{place / name}", "state"])
    image = place / "image"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    saved = piped([*words[0], "save", "nvme0", "0x42", str(image)], None)
    restored = piped(["cat", str(image)], [*words[1], "restore", "nvme0", "0x42", "-", "--yes"])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    plain = piped(["cat", str(image)], ["cat"])
    size = STATE_BYTES / MiB
    print(f"peak memory of any child: {peak / 1024:.0f} MiB (before: {before / 1024:.0f} MiB)", file=sys.stderr)
    return [
        Row("save 256 MiB to a file", saved, "cat through a pipe", plain, None, f"{size / saved * 1000:.0f} MiB/s"),
        Row(
            "restore it from a pipe", restored, "cat through a pipe", plain, None, f"{size / restored * 1000:.0f} MiB/s"
        ),
    ]


def piped(left: list[str], right: list[str] | None) -> float:
    """Return how long two commands joined by a pipe take, ms."""
    begin = time.perf_counter()
    with subprocess.Popen(left, stdout=subprocess.PIPE if right else subprocess.DEVNULL, env=environment()) as first:
        if right:
            subprocess.run(right, stdin=first.stdout, stdout=subprocess.DEVNULL, check=True, env=environment())
    return (time.perf_counter() - begin) * 1000


def lab(place: Path) -> list[Row]:
    """Run the other half in a guest with 32 VFs."""
    from tests.lab.guest import Guest, LabError, run

    # Inside, the repository is read-only; an installed program has its byte code already.
    compileall.compile_dir(Path(nvmelm.__file__).parent, quiet=1)
    results = place / "lab" / "results.json"
    try:
        status = run([sys.executable, "-m", "tests.bench.inside", str(results)], Guest(vfs=32), scratch=results.parent)
    except LabError as error:
        print(f"the lab's half is left out: {error}", file=sys.stderr)
        return []
    if status:
        print(f"the lab's half ended with {status}", file=sys.stderr)
        return []
    return [Row(*values) for values in json.loads(results.read_text())]


def main() -> int:
    """Measure everything and print one table."""
    with tempfile.TemporaryDirectory(prefix="nvmelm-bench-") as name:
        place = Path(name)
        rows = [
            *starts(place),
            *stream(place),
            *moves.rows(place / "moves"),
            *arcs.rows(place / "arcs"),
            *fleet.rows(place / "fleet"),
            *watch.rows(place / "watch"),
            *playbook.rows(place / "playbook"),
            *interposer.rows(),
            *lab(place),
        ]
    print("\n".join(table(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
