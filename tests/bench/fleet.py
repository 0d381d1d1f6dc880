"""What matching a fleet costs: kinds that repeat, every function of its own kind, and one that was made to hurt.

In the last every function differs from every other in each number that is compared by size, so that each set of
candidates is another one and half of the fleet, in its firmware, its version, a list of which no item is anywhere
else, and a policy speaks of these; destinations have the largest capacity.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.rows import Row
from tests.unit.manifests import manifest

NVMELM = str(Path(sys.executable).with_name("nvmelm"))
KINDS = 20
ITEMS = 50
LARGEST_CAPACITY = "65536"
POLICY = """
schema = "nvmelm.policy"
version = 1
[[allow]]
fact = "identity.firmware"
why = "tested"
[[allow]]
fact = "capabilities.nvm_commands"
destination = [1]
why = "tested"
[[allow]]
fact = "capabilities.nvm_commands"
why = "tested"
[[require]]
fact = "identity.nvme_version"
rule = "same-major"
why = "as ours"
"""


def repeating(number: int, _: int) -> dict[str, Any]:
    """Return facts that many functions share."""
    return {"resources.vq": 2 + number % KINDS}


def different(number: int, count: int) -> dict[str, Any]:
    """Return facts of one function alone: the same medium at both ends, another one for each pair."""
    return repeating(number, count) | {"namespaces.nguid": [f"{number:032x}", f"{number + count:032x}"]}


def hostile(number: int, _: int) -> dict[str, Any]:
    """Return facts of which hardly a value is anywhere else, and all of which must be compared."""
    return {
        "identity.firmware": f"f{number}",
        "identity.nvme_version": f"2.{number}",
        "capabilities.nvm_commands": list(range(number * ITEMS, number * ITEMS + ITEMS)),
        "limits.max_transfer_bytes": number + 1,
        "limits.queue_entries": number + 1,
        "limits.largest_nsid": number + 1,
        "resources.vq": number,
        "resources.vi": number,
    }


SHAPES = {f"{KINDS} kinds": repeating, "all different": different, "made to hurt": hostile}


def write(path: Path, count: int, facts: Callable[[int, int], dict[str, Any]]) -> None:
    """Write a fleet of so many functions as NDJSON."""
    labels = {"capacity": LARGEST_CAPACITY} if facts is hostile else {}
    with path.open("w") as file:
        for number in range(count):
            subject = {"host": f"h{number % 97}", "cntlid": f"{number:#x}"}
            file.write(json.dumps(manifest(facts(number, count), subject=subject, labels=labels).to_json()) + "\n")


def rows(place: Path) -> Sequence[Row]:
    """Return every row; each is a whole process."""
    place.mkdir(parents=True, exist_ok=True)
    policy = place / "policy.toml"
    policy.write_text(POLICY)
    found = []
    for count, promised_s in ((1_000, 3), (10_000, 30)):
        for shape, facts in SHAPES.items():
            source, destination = place / "sources", place / "destinations"
            write(source, count, facts)
            write(destination, count, facts)
            words = [NVMELM, "compat", "match", "--sources", str(source), "--destinations", str(destination), "--json"]
            if facts is hostile:
                words += ["--policy", str(policy)]
            begin = time.perf_counter()
            done = subprocess.run(words, capture_output=True, check=False)
            spent = (time.perf_counter() - begin) * 1000
            told = json.loads(done.stdout)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # of any child so far
            note = f"{len(told['assignment'])} placed, at most {peak // 1024} MiB, {len(done.stdout) >> 20} MiB printed"
            found.append(Row(f"match {count:,} x {count:,}, {shape}", spent, "promised", promised_s * 1000, 1.0, note))
    return found


if __name__ == "__main__":
    import tempfile

    from tests.bench.rows import table

    with tempfile.TemporaryDirectory(prefix="nvmelm-bench-") as scratch:
        for line in table(rows(Path(scratch))):
            print(line)
