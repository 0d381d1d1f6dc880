"""The README's transcripts are what the verbs print; only what chance makes may differ."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulated.transcripts import MADE_ELSEWHERE, consoles, differences

README = Path(__file__).parents[3] / "README.md"


def test_every_command_of_the_readme_prints_what_the_readme_says(tmp_path: Path) -> None:
    assert sum(map(len, consoles(README))) > 12
    for command, shown, printed in differences(README, tmp_path):
        anew = "python -m tests.emulated.transcripts README.md writes it anew"
        pytest.fail(f"$ {command}\n{printed}\nbut the README says ({anew})\n{shown}")


def test_the_demo_prints_what_the_readme_says() -> None:
    shown = README.read_text().partition(MADE_ELSEWHERE)[2].partition("```")[0]
    numbers = re.compile(r"\d+(\.\d+)?")
    words = [sys.executable, "-m", "nvmelm", "demo"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert numbers.sub("N", done.stdout.strip()) == numbers.sub("N", shown.strip())
    assert "0 completions lost, 0 doubled, 0 misdirected" in shown


def test_the_first_screen_says_what_works_what_was_seen_and_what_a_vmm_has_to_do() -> None:
    screen = "\n".join(README.read_text().splitlines()[:24])
    for words in ("What works today", "Was seen on", "No real drive", "What your VMM has to do", "make demo"):
        assert words in screen


def test_the_readme_counts_nothing_that_ages() -> None:
    assert not re.search(r"\d+ (passed|tests|source files|files already)", README.read_text())
