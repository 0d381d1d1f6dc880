"""The transcripts of the documentation are what its commands print; only what chance makes may differ."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.emulated.transcripts import TRANSCRIBED, blank, consoles, differences

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("name", TRANSCRIBED)
def test_every_command_of_a_page_prints_what_the_page_says(name: str, tmp_path: Path) -> None:
    page = DOCS / name
    if "jq " in page.read_text() and shutil.which("jq") is None:
        pytest.skip("the page shows lines through jq")
    run = [command for console in consoles(page) for command, _ in console]
    assert run
    assert run == re.findall(r"^\$ (.*)$", page.read_text(), re.MULTILINE), "every command with a prompt of $ is run"
    for command, shown, printed in differences(page, tmp_path):
        anew = f"python -m tests.emulated.transcripts docs/{name} writes it anew"
        pytest.fail(f"$ {command}\n{printed}\nbut {name} says ({anew})\n{shown}")


def test_what_chance_makes_is_all_that_may_differ() -> None:
    assert blank("stood still for 8.6 ms, pid 12, 0x0042") == blank("stood still for 12 ms, pid 777, 0x0042")
    assert blank("2 VFs, 0x0042") != blank("3 VFs, 0x0042")
    assert blank("exit 6") != blank("exit 8")
