"""Real processes on one emulated host: killed, interrupted, two at once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.machine.faults import CRASH_STATUS
from nvmelm.process.waiting import wait_until
from tests.emulated.conftest import MakeHost
from tests.emulated.prepare.test_provision import cells

PF = "0000:01:00.0"
PREPARE = ("source", "prepare", PF, "--vfs", "2")


def started(host: EmulatedHost, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "nvmelm", "--host", host.name, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(host: EmulatedHost, *words: str) -> tuple[int, Any, str]:
    """Return exit code, the JSON document and what people read."""
    process = started(host, *words, "--json")
    out, err = process.communicate(timeout=60)
    return process.returncode, json.loads(out) if out else None, err


@pytest.mark.parametrize(
    "fault", ["sysfs/*/sriov_numvfs=crash-before", "admin/0x1c#3=crash-after", "sysfs#6=crash-after"]
)
def test_a_killed_verb_is_named_and_undone_by_recover(make_host: MakeHost, fault: str) -> None:
    host = make_host()
    before = cells(host)
    host.arm(fault)
    process = started(host, *PREPARE)
    process.communicate(timeout=60)
    assert process.returncode == CRASH_STATUS
    code, document, _ = run(host, "recover", "--dry-run")
    assert (code, [unfinished["verb"] for unfinished in document["unfinished"]]) == (0, ["source prepare"])
    assert run(host, "recover", "--yes")[0] == 0
    assert cells(host) == before
    code, document, _ = run(host, "recover")
    assert (code, document["changed"]) == (0, False)


def test_ctrl_c_puts_everything_back_and_says_so(make_host: MakeHost, tmp_path: Path) -> None:
    host = make_host()
    before = cells(host)
    host.arm("admin/0x1c#5=delay:1500")
    process = started(host, *PREPARE, "--json")
    wait_until(lambda: cells(host)["vfs"] == 2, "the VFs to appear", deadline_s=30)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert json.loads(out)["rolled_back"] is True
    assert cells(host) == before
    assert run(host, "recover")[1]["unfinished"] == []


def test_two_at_once_wait_for_each_other_and_the_second_finds_it_done(make_host: MakeHost) -> None:
    host = make_host()
    host.arm("admin/0x1c#2=delay:500")
    both = [started(host, *PREPARE, "--json") for _ in range(2)]
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in both]
    assert sorted(answer["changed"] for answer in answers) == [False, True]


def test_the_directory_of_a_host_may_have_any_name(make_host: MakeHost, tmp_path: Path) -> None:
    name = tmp_path / "a host; rm -rf $HOME\x1b[31m"
    process = subprocess.run(
        [sys.executable, "-m", "nvmelm", "--host", f"emulated:{name}", "list"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "\x1b[31m" not in process.stdout
