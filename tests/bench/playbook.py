"""What the collection adds to Ansible: its playbook over eight hosts, beside Ansible's own command module doing it."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from tests.bench.rows import Row
from tests.emulated.fleet_hosts import NVMELM, PF, Fleet

ROUNDS = 3


def _plays() -> list[dict[str, Any]]:
    """Return plays of as many tasks, in the same batches, that run the same verbs by ``ansible.builtin.command``."""
    prepare = ["{{ side }}", "prepare", PF, "--vfs", "2", "--vq", "2", "--vi", "1"]

    def play(hosts: str, verb: list[str], **more: Any) -> dict[str, Any]:
        words = [str(NVMELM), "--host", "{{ nvmelm_host }}", *verb, "--json"]
        task = {"name": "One host", "ansible.builtin.command": {"argv": words}, "register": "answer"}
        return {"name": "Plain", "hosts": hosts, "gather_facts": False, "tasks": [task], **more}

    looking = play("nvmelm_sources:nvmelm_destinations", ["show", PF])
    looking["tasks"].append({"name": "Say", "ansible.builtin.debug": {"msg": "{{ answer.stdout | length }}"}})
    return [
        play("nvmelm_destinations", prepare, serial=2, vars={"side": "destination"}),
        play("nvmelm_sources", prepare, serial=2, vars={"side": "source"}),
        looking,
    ]


def rows(place: Path) -> list[Row]:
    """Measure a run that changes nothing, in turns: what else runs slows both."""
    place.mkdir(parents=True, exist_ok=True)
    fleet = Fleet(place)
    plain = place / "plain.yml"
    plain.write_text(json.dumps(_plays()))
    _play(fleet, "fleet.yml")  # this one prepares
    times: dict[str, list[float]] = {"fleet.yml": [], str(plain): []}
    for _ in range(ROUNDS):
        for book, taken in times.items():
            taken.append(_play(fleet, book))
    ours, theirs = (statistics.median(taken) for taken in times.values())
    return [Row("playbook over 8 hosts, no change", ours, "the same by ansible's command", theirs, None)]


def _play(fleet: Fleet, book: str) -> float:
    begin = time.perf_counter()
    code, _, told = fleet.play(book)
    if code:
        raise RuntimeError(told)
    return (time.perf_counter() - begin) * 1000


if __name__ == "__main__":
    import tempfile

    from tests.bench.rows import table

    with tempfile.TemporaryDirectory(prefix="nvmelm-bench-") as scratch:
        for line in table(rows(Path(scratch))):
            print(line)
