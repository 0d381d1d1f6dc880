"""The README's transcripts are what the verbs print; only times, counts and names made by chance may differ."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[3] / "README.md"
_BY_CHANCE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22,}|[0-9a-f]{64}|[0-9a-f]{32}|\d+(\.\d+)? ms|[0-9.]+ .?i?B/s"
)


def transcript(first: str) -> list[tuple[str, str]]:
    """Return the commands of the console block that holds a line, each with what it prints."""
    blocks = re.findall(r"```console\n(.*?)```", README.read_text(), re.DOTALL)
    (block,) = [block for block in blocks if first in block]
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def printed(command: str, host: str, place: Path) -> str:
    words = [word.replace("/tmp/", f"{place}/") for word in shlex.split(command)]
    done = subprocess.run(
        [sys.executable, "-m", *words],
        env={
            **os.environ,
            "NVMELM_HOST": host,
            "COLUMNS": "120",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_session_on_an_emulated_host_prints_what_the_readme_says(tmp_path: Path) -> None:
    steps = [(command, text) for command, text in transcript("$ nvmelm list") if command.startswith("nvmelm")]
    assert len(steps) > 5
    for command, text in steps:
        shown = printed(command, f"emulated:{tmp_path}/source", tmp_path)
        assert _BY_CHANCE.sub("*", shown.strip()) == _BY_CHANCE.sub("*", text.strip()), command


def test_the_move_between_two_hosts_prints_what_the_readme_says(tmp_path: Path) -> None:
    for command, text in transcript("$ nvmelm emulate create /tmp/hosts/a"):
        shown = printed(command, "local", tmp_path).replace(str(tmp_path), "/tmp")
        assert _BY_CHANCE.sub("*", shown.strip()) == _BY_CHANCE.sub("*", text.strip()), command


def test_the_demo_prints_what_the_readme_says(tmp_path: Path) -> None:
    ((_, text),) = transcript("$ make demo")
    numbers = re.compile(r"\d+(\.\d+)?")
    shown = printed("nvmelm demo", "local", tmp_path)
    assert numbers.sub("N", shown.strip()) == numbers.sub("N", text.strip())
    assert "0 completions lost, 0 doubled, 0 misdirected" in text
