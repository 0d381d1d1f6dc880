"""Tables, sizes and text from devices, as people see them."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.cli.frame import render
from nvmelm.cli.frame.progress import ProgressBar
from nvmelm.cli.frame.render import Column
from nvmelm.cli.views import functions
from tests.unit.pictures import picture, secondary


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


COLUMNS = [Column("NAME"), Column("COUNT", right=True), Column("MODEL", gives_way=True)]
ROWS = [["nvme0", 4, "a model with a very long name"], ["nvme10", 127, None]]


def test_a_table_is_aligned_and_says_dash_for_nothing() -> None:
    assert render.table(COLUMNS, ROWS, stream=io.StringIO()) == [
        "NAME    COUNT  MODEL",
        "nvme0       4  a model with a very long name",
        "nvme10    127  -",
    ]


def test_piped_output_is_never_shortened_or_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "terminal_width", lambda: 20)
    lines = render.table(COLUMNS, ROWS, stream=io.StringIO())
    assert "a model with a very long name" in lines[1]
    assert "\x1b" not in "".join(lines)


def test_a_narrow_terminal_shortens_the_column_that_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(render, "terminal_width", lambda: 30)
    lines = render.table(COLUMNS, ROWS, stream=Terminal())
    assert lines[1] == "nvme0       4  a model with a…"
    assert max(map(len, lines)) == 30


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colours_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert render.Paint(Terminal()).bad("no") == "\x1b[1;31mno\x1b[0m"
    monkeypatch.setenv(variable, value)
    assert render.Paint(Terminal()).bad("no") == "no"
    assert render.Paint(io.StringIO()).bad("no") == "no"


@given(st.text())
def test_nothing_that_is_not_printable_reaches_a_terminal(text: str) -> None:
    shown = render.plain(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (2 * 1024**2, "2 MiB"),
        (64 * 1024**3, "64 GiB"),
        (2**70, "1024 EiB"),
    ],
)
def test_sizes_have_binary_units(number: int, text: str) -> None:
    assert render.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "1 ms"), (0.44, "440 ms"), (4.44, "4.4 s"), (59.4, "59 s"), (125, "2 min 05 s"), (3720, "1 h 02 min")],
)
def test_time_spans_read_well(seconds: float, text: str) -> None:
    assert render.duration(seconds) == text


def test_counts_agree_with_their_nouns() -> None:
    assert render.count(1, "VF") == "1 VF"
    assert render.count(2, "VF") == "2 VFs"
    assert render.count(0, "entry", "entries") == "0 entries"


def test_a_progress_bar_says_how_far_how_fast_and_how_long() -> None:
    bar = ProgressBar("saving 0x0041", stream=Terminal())
    line = bar.line(32 * 1024**2, 64 * 1024**2, 2.0)
    assert line == "saving 0x0041  " + "█" * 12 + "░" * 12 + "  50%  32 MiB of 64 MiB  16 MiB/s  2.0 s left"


def test_a_progress_bar_without_a_total_says_how_far_and_how_fast() -> None:
    assert ProgressBar("reading").line(1024, 0, 1.0) == "reading  1 KiB  1 KiB/s"


def test_a_progress_bar_appears_on_a_terminal_only() -> None:
    for stream, quiet in ((io.StringIO(), False), (Terminal(), True)):
        with ProgressBar("saving", stream=stream, quiet=quiet) as bar:
            bar._drawn_at = 0.0
            bar(1, 2)
        assert stream.getvalue() == ""


def test_a_progress_bar_leaves_no_trace() -> None:
    stream = Terminal()
    with ProgressBar("saving", stream=stream) as bar:
        bar._drawn_at = 0.0
        bar(1, 2)
    assert stream.getvalue().endswith("\r\x1b[K")


def test_who_uses_a_vf_is_never_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    user = "VM guest-of-a-long-name: qemu-system-x86 (pid 2771) has /dev/vfio/2 open"
    shown = picture(secondary(1, present=True, driver="vfio-pci", used_by=(user,)), secondary(2))
    monkeypatch.setenv("NO_COLOR", "1")
    for width in (80, 200):
        stream = Terminal()
        monkeypatch.setattr(render, "terminal_width", lambda width=width: width)
        monkeypatch.setattr("sys.stdout", stream)
        lines = list(functions.secondaries(shown))
        assert max(map(len, lines)) <= width
        assert user in " ".join(" ".join(lines).split())
        assert ("USED BY" in lines[0]) is (width == 200)


def test_a_terminal_that_hung_up_is_a_reader_that_has_left() -> None:
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as stream:
        os.close(master)
        assert not render.print_lines(["a line"], stream)
