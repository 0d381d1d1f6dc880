"""Where the answer goes: a full disk is one error, a reader that has left is none, for every verb that only looks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nvmelm.cli import main
from nvmelm.emulator.host import create

VERBS = [
    "--help",
    "--version",
    "--show-completion bash",
    "secondary --help",
    "secondary list --help",
    "list",
    "list --json",
    "status",
    "show nvme0",
    "host check",
    "secondary list nvme0",
    "recover",
    "recover --json",
    "source prepare nvme0 --vfs 1 --dry-run",
    "release nvme0 --dry-run",
    "vm attach nvme0/0x42 --print",
    "vm check --pid 1",
    "watch --count 1",
    "compat export nvme0 0x42",
    "compat token a.json",
    "compat steps a.json a.json",
    "compat check a.json a.json",
    "compat parameters info nvme0",
    "state show image",
    "fixture show recording.json",
    "emulate generations",
    "emulate fault list host",
    "explain offline",
    "explain offline --json",
    "share",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with an emulated host, and what its verbs write."""
    place = tmp_path_factory.mktemp("streams")
    create(place / "host").close()
    before = Path.cwd()
    os.chdir(place)
    try:
        for words in (
            "source prepare nvme0 --vfs 1 --yes",
            "compat export nvme0 0x42 -o a.json",
            "--record recording.json list",
            "state suspend nvme0 0x42 --yes",
            "state save nvme0 0x42 image",
            "state resume nvme0 0x42 --yes",
        ):
            assert main(["--host", "emulated:host", *words.split()]) == 0
    finally:
        os.chdir(before)
    return place


def run(place: Path, words: str, stdout: int) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "nvmelm", *words.split()]
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "NVMELM_HOST": "emulated:host", "PYTHONPATH": root}
    return subprocess.run(
        call,
        stdout=stdout,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=60,
        cwd=place,
        env=environment,
    )


@pytest.mark.parametrize("words", VERBS)
def test_a_full_disk_behind_the_answer_is_one_error(place: Path, words: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(place, words, full.fileno())
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: cannot write the answer: <stdout>: No space left on device",
        "cause: the disk is full",
        "fix:   make room (df), then run it again",
    ]


@pytest.mark.parametrize("words", VERBS)
def test_a_reader_that_has_left_changes_nothing(place: Path, words: str) -> None:
    whole = run(place, words, subprocess.PIPE)
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run(place, words, writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (whole.returncode, whole.stderr)


@pytest.mark.parametrize("words", ["--help", "list", "status", "state save nvme0 0x42 -"])
def test_a_closed_stdout_is_no_bug(place: Path, words: str) -> None:
    call = ["sh", "-c", f"exec {sys.executable} -m nvmelm --host emulated:host {words} >&-"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(call, stderr=subprocess.PIPE, text=True, timeout=60, cwd=place, env=environment)
    assert "bug in nvmelm" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "EBADF" not in done.stderr


@pytest.mark.parametrize(("shell", "first"), [("bash", "_nvmelm_completion() {"), ("zsh", "#compdef nvmelm")])
@pytest.mark.parametrize("form", ["--show-completion {}", "--show-completion={}"])
def test_the_completion_that_is_shown_is_that_of_the_shell_that_was_named(
    place: Path, shell: str, first: str, form: str
) -> None:
    done = run(place, form.format(shell), subprocess.PIPE)
    assert done.stdout.splitlines()[0] == first
    assert run(place, form.format("fish"), subprocess.PIPE).stdout.startswith("complete --command nvmelm")
    refused = run(place, form.format("tcsh"), subprocess.PIPE)
    assert refused.returncode == 2
    assert "there is no completion for 'tcsh'" in refused.stderr
