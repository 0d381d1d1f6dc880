"""What matching a fleet costs: kinds that repeat, and a fleet in which every function is of its own kind."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.rows import Row
from tests.unit.manifests import manifest

NVMELM = str(Path(sys.executable).with_name("nvmelm"))
KINDS = 20


def write(path: Path, count: int, *, distinct: bool) -> None:
    """Write a fleet of so many functions as NDJSON."""
    with path.open("w") as file:
        for number in range(count):
            changes: dict[str, Any] = {"resources.vq": 2 + number % KINDS}
            if distinct:  # the same medium at both ends, another one for each pair
                changes["namespaces.nguid"] = [f"{number:032x}", f"{number + count:032x}"]
            one = manifest(changes, subject={"host": f"h{number % 97}", "cntlid": f"{number:#x}"})
            file.write(json.dumps(one.to_json()) + "\n")


def rows(place: Path) -> Sequence[Row]:
    """Return every row; each is a whole process."""
    place.mkdir(parents=True, exist_ok=True)
    found = []
    for count, promised_s in ((1_000, 3), (10_000, 30)):
        for distinct in (False, True):
            source, destination = place / "sources", place / "destinations"
            write(source, count, distinct=distinct)
            write(destination, count, distinct=distinct)
            words = [NVMELM, "compat", "match", "--sources", str(source), "--destinations", str(destination), "--json"]
            begin = time.perf_counter()
            done = subprocess.run(words, capture_output=True, check=False)
            spent = (time.perf_counter() - begin) * 1000
            kinds = "all different" if distinct else f"{KINDS} kinds"
            told = json.loads(done.stdout)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of any child so far
            note = f"{len(told['assignment'])} placed, at most {peak // 1024} MiB"
            found.append(Row(f"match {count:,} x {count:,}, {kinds}", spent, "promised", promised_s * 1000, 1.0, note))
    return found


if __name__ == "__main__":
    import tempfile

    from tests.bench.rows import table

    with tempfile.TemporaryDirectory(prefix="nvmelm-bench-") as scratch:
        for line in table(rows(Path(scratch))):
            print(line)
