"""What a stranger wrote is shown in one line that no terminal obeys, whoever shows it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nvmelm
from nvmelm.cli.frame.render import plain
from nvmelm.harmless import harmless
from nvmelm.vm.qemu.monitor import printable
from nvmelm.wire.layout import Layout, Text

PACKAGE = Path(nvmelm.__file__).parent


class Model(Layout, size=8):
    mn = Text(0, 8, "Model Number")


@given(st.text() | st.binary())
def test_nothing_in_it_is_obeyed_and_nothing_is_left_out(text: str | bytes) -> None:
    shown = harmless(text)
    assert shown.isprintable()
    assert len(shown) >= len(text.decode("utf-8", "ignore") if isinstance(text, bytes) else text)


@pytest.mark.parametrize("text", ["\x1b[2J", "\n", "\u202e", "\u200b", "\U000e0001", "\x9b", "\ud800"])
def test_every_way_to_steer_a_terminal_is_written_out(text: str) -> None:
    assert harmless(text).isascii()
    assert harmless(text).startswith("\\")


@pytest.mark.parametrize("text", ["a\x1b[2J", "two\nlines", "\t\u200b"])
def test_who_shows_tables_and_who_quotes_a_vmm_write_it_alike(text: str) -> None:
    assert plain(text) == printable(text) == harmless(text)


@pytest.mark.parametrize(("raw", "shown"), [(b"A\x1b[2J   ", "A\\x1b[2J"), (b"\xe9\n\0\0", "\\xe9\\x0a")])
def test_a_device_speaks_ascii_alone(raw: bytes, shown: str) -> None:
    assert Model(raw.ljust(8, b" ")).mn == shown


def test_a_cut_text_says_that_it_is_cut() -> None:
    assert harmless("x" * 81, 80) == "x" * 80 + "…"
    assert harmless("x" * 80, 80) == "x" * 80


def test_nobody_else_takes_texts_apart_by_what_is_printable() -> None:
    """Others only ask whether a whole text is printable, to refuse it."""
    filters = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.GeneratorExp) and ".isprintable()" in ast.unparse(node):
                filters.add(path.relative_to(PACKAGE).as_posix())
    assert filters == {"harmless.py"}
