"""The page about a migration: self-contained, and no name from outside becomes markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelm import __version__
from nvmelm.errors import RolledBackError
from nvmelm.migrate import report_page
from nvmelm.migrate.report import Downtime, LoggedRound, MigrateReport, Moved, Round
from nvmelm.migrate.report_page import Origin


def report(**changes: Any) -> MigrateReport:
    moved = Moved(
        source_cntlid=0x42,
        destination_cntlid=0x43,
        destination_address="0000:01:00.1",
        held_by="qemu (pid 7)",
        source_digest="sha256:a",
        destination_digest="sha256:b",
    )
    down = Downtime(
        total_us=9200, drain_us=700, get_us=1700, transfer_us=2100, set_us=1200, resume_us=800, other_us=2700
    )
    rounds = (Round(cntlid=0x42, number=1, seconds=0.5, bytes=4096, extents=1, after_suspend=True),)
    body: dict[str, Any] = {
        "session": "a" * 32,
        "changed": True,
        "dry_run": False,
        "source_primary": "0000:01:00.0",
        "destination": "ssh://b/nvme0",
        "destination_primary": "0000:02:00.0",
        "controllers": (moved,),
        "downtime": down,
        "state_bytes": 4152,
        "rehearsal_us": 3000,
        "bytes_per_second": 800_000,
        "commands": 4,
        "rounds": rounds,
        "logged_rounds": (
            LoggedRound(cntlid=0x42, number=1, seconds=0.5, blocks=77, restart=False, after_suspend=True),
        ),
        "notes": ("a note",),
    }
    return MigrateReport(**{**body, **changes})


ORIGIN = Origin("2026-11-28 16:50:02 UTC", "rack1")


def page(report: MigrateReport, failure: RolledBackError | None = None) -> str:
    return report_page.page(report, ORIGIN, failure)


class Seen(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("href", "src", "onload", "onclick")]
        if tag not in ("meta", "rect", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_from_outside() -> None:
    text = page(report())
    seen = Seen(text)
    assert seen.open == []
    assert seen.links == []
    assert not {"script", "link", "img", "iframe"} & set(seen.tags)
    assert "default-src 'none'" in text
    assert "9.2 ms" in text
    assert text.count("<rect") >= 8


def test_a_dry_run_has_no_downtime_to_draw() -> None:
    assert "timeline" not in page(report(downtime=None)).lower()


@given(st.text(max_size=80))
@settings(max_examples=80, deadline=None)
def test_no_name_becomes_markup(name: str) -> None:
    plain = Seen(page(report()))
    hostile = Seen(page(report(destination=name, source_primary=name, notes=(name,), destination_primary=name)))
    assert hostile.tags == plain.tags
    assert hostile.open == []


def test_a_script_in_a_name_is_text() -> None:
    text = page(report(destination="</title><script>alert(1)</script>"))
    assert "<script" not in text


@pytest.mark.parametrize("failure", [None, RolledBackError("it failed")], ids=["moved", "failed"])
def test_the_page_says_when_where_and_by_which_nvmelm_it_was_made(failure: RolledBackError | None) -> None:
    text = page(report(), failure)
    assert "2026-11-28 16:50:02 UTC, on rack1" in text
    assert f"nvmelm {__version__}" in text
    assert "rack1 (0000:01:00.0)" in text
    assert "ssh://b/nvme0 (0000:02:00.0)" in text


def test_a_failed_move_has_its_reason_on_the_page() -> None:
    text = page(report(downtime=None), RolledBackError("it failed", cause="a cable", fix="nvmelm recover"))
    assert "which failed" in text
    assert all(f"<td>{word}</td>" in text for word in ("a cable", "nvmelm recover", "8"))


def test_numbers_have_units_that_people_read() -> None:
    text = page(report(state_bytes=1 << 30, bytes_per_second=228 << 20, rehearsal_us=4_481_600))
    assert "1.0 GiB at 228.0 MiB/s" in text
    assert "4.48 s" in text
    assert "4481.6 ms" not in text


@pytest.mark.parametrize(
    ("total_us", "steps"), [(9_200, ["0.0 ms", "2.0 ms", "8.0 ms"]), (4_481_600, ["0.0 ms", "1.00 s", "4.00 s"])]
)
def test_the_timeline_has_an_axis_in_round_steps_from_the_suspend(total_us: int, steps: list[str]) -> None:
    down = Downtime(total_us=total_us, drain_us=total_us, get_us=0, transfer_us=0, set_us=0, resume_us=0, other_us=0)
    ticks = re.findall(r'class="tick"[^>]*>([^<]+)<', page(report(downtime=down)))
    assert len(ticks) <= 6
    assert [tick for tick in ticks if tick in steps] == steps
