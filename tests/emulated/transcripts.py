"""The consoles of a page of the documentation, run on emulated hosts, and compared with what the page shows.

``python -m tests.emulated.transcripts docs/tutorial.md`` runs them and writes what was printed into the
page, when more than chance has changed.

A console is a block of ``$`` commands with what each prints. They are run in order by one shell's rules: ``export``
and ``unset`` last, ``&`` puts a command into the background until the page's end, and ``/tmp/`` is a scratch directory.
A block of TOML that begins with ``# /tmp/…`` is written into that file first. A page that goes on with the hosts of
another one is run after that one.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = re.compile(r"^( *)```console\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
#: What differs from run to run: names made by chance, digests of what holds one, times, and counts of a guest's I/O.
_BY_CHANCE = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22,}|\b[0-9a-f]{64}\b|\b[0-9a-f]{32}\b|\b\d{4}-\d\d-\d\dT[0-9:+Z]+"
    r"|\b\d+(\.\d+)? (ms|s|µs|us)\b|(?<=pid )\d+|\b(\d+\.)?\d+ [KM]iB(/s)?"
    r"|(?<=\"bytes\":)\d+|\b\d+(?= (commands|completed|outstanding|reads|blocks|bytes))"
)
_FILE = re.compile(r"^```toml\n# (/tmp/\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_DEADLINE_S = 30.0
#: The pages of docs/ whose ``$`` consoles are run by a test, and written by this program.
TRANSCRIBED = (
    "tutorial.md",
    "cli.md",
    "compat.md",
    "compat-dialects.md",
    "compat-fleet.md",
    "compat-policy.md",
    "dirty-tracking.md",
    "emulator.md",
    "vmm.md",
)
#: The pages that go on with what another page has made.
_AFTER = {"compat-policy.md": "compat.md", "compat-dialects.md": "compat.md"}
#: A console that make runs in the clone; a test of its own compares it.
MADE_ELSEWHERE = "$ make demo\n"


def blank(text: str) -> str:
    """Return a text without what chance made, and without the spaces that line columns up."""
    return re.sub(r" +", " ", _BY_CHANCE.sub("*", text)).strip()


class Console:
    """A shell that lives as long as a page."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._environment = {
            **os.environ,
            "COLUMNS": "120",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._environment.pop("NVMELM_HOST", None)
        self._behind: list[subprocess.Popen[Any]] = []

    def run(self, command: str) -> str:
        """Return what a command prints."""
        command = command.replace("/tmp/", f"{self._place}/")
        if command.startswith("export "):
            name, _, value = shlex.split(command)[1].partition("=")
            self._environment[name] = value
            return ""
        if command.startswith("unset "):
            self._environment.pop(shlex.split(command)[1], None)
            return ""
        if command.endswith("&"):
            self._background(shlex.split(command.removesuffix("&")))
            return ""
        done = subprocess.run(
            ["/bin/bash", "-c", command],
            env=self._environment,
            cwd=self._place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return done.stdout.replace(f"{self._place}/", "/tmp/")

    def begin(self, page: Path) -> None:
        """Run the page that this one goes on with, and write the files that this one shows."""
        if page.name in _AFTER:
            before = page.with_name(_AFTER[page.name])
            for command, _ in itertools.chain(*consoles(before)):
                self.run(command)
            self._environment.pop("NVMELM_HOST", None)
        for name, text in _FILE.findall(page.read_text()):
            (self._place / name.removeprefix("/tmp/")).write_text(text)

    def _background(self, words: list[str]) -> None:
        """Start a command, and return when the socket it makes is there."""
        started = subprocess.Popen(
            words, env=self._environment, cwd=self._place, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        self._behind.append(started)
        socket = Path(words[words.index("--socket") + 1])
        deadline = time.monotonic() + _DEADLINE_S
        while not socket.exists():
            assert started.poll() is None, f"{shlex.join(words)} has ended"
            assert time.monotonic() < deadline, f"{socket} was not made"
            time.sleep(0.01)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *error: object) -> None:
        for one in self._behind:
            one.terminate()
            one.wait()


def commands(block: str) -> list[tuple[str, str]]:
    """Return the commands of a block, each with what it prints."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def consoles(page: Path) -> list[list[tuple[str, str]]]:
    """Return the consoles of a page that are run: those whose prompt is ``$``."""
    return [commands(block) for _, block in _BLOCK.findall(page.read_text()) if _is_run(block)]


def _is_run(block: str) -> bool:
    return block.startswith("$ ") and not block.startswith(MADE_ELSEWHERE)


def differences(page: Path, place: Path) -> Iterator[tuple[str, str, str]]:
    """Run a page; return each command that printed something else than the page shows, with both."""
    with Console(place) as console:
        console.begin(page)
        for block in consoles(page):
            for command, shown in block:
                printed = console.run(command)
                if blank(printed) != blank(shown):
                    yield command, shown, printed


def rewritten(page: Path, place: Path) -> str:
    """Run a page; return its text with what was printed."""
    with Console(place) as console:
        console.begin(page)

        def again(found: re.Match[str]) -> str:
            if not found[2].startswith("$ ") or found[2].startswith(MADE_ELSEWHERE):
                return found[0]
            steps = [(command, console.run(command).strip("\n")) for command, _ in commands(found[2])]
            texts = [f"$ {command}\n" + (f"{printed}\n" if printed else "") for command, printed in steps]
            together = "".join(
                text + ("\n" if printed and number + 1 < len(steps) else "")
                for number, (text, (_, printed)) in enumerate(zip(texts, steps, strict=True))
            )
            return f"```console\n{together}```"

        return _BLOCK.sub(again, page.read_text())


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        with tempfile.TemporaryDirectory() as directory:
            text = rewritten(page, Path(directory))
        if blank(text) != blank(page.read_text()):
            page.write_text(text)
