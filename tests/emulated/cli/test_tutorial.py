"""The tutorial's transcripts are what its commands print; only what chance makes may differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulated.transcripts import blank, consoles, differences

DOCS = Path(__file__).parents[3] / "docs"


def test_every_command_of_the_tutorial_prints_what_the_tutorial_says(tmp_path: Path) -> None:
    assert sum(map(len, consoles(DOCS / "tutorial.md"))) > 20
    for command, shown, printed in differences(DOCS / "tutorial.md", tmp_path):
        anew = "python -m tests.emulated.transcripts docs/tutorial.md writes it anew"
        pytest.fail(f"$ {command}\n{printed}\nbut the tutorial says ({anew})\n{shown}")


def test_what_chance_makes_is_all_that_may_differ() -> None:
    assert blank("stood still for 8.6 ms, pid 12, 0x0042") == blank("stood still for 12 ms, pid 777, 0x0042")
    assert blank("2 VFs, 0x0042") != blank("3 VFs, 0x0042")
    assert blank("exit 6") != blank("exit 8")
