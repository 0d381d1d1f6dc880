"""What is said while a verb works: nobody waits for a terminal that was stopped, and on others nothing is lost."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import pytest

from nvmelm.cli.frame.aside import Aside
from nvmelm.cli.frame.progress import ProgressBar
from nvmelm.cli.verbs.migrate.migration import JsonProgress
from nvmelm.process.waiting import wait_until

_PIPE_BYTES = 1 << 16


@contextmanager
def stalled() -> Iterator[tuple[TextIO, int]]:
    """Yield a stream that takes nothing until somebody reads the other end."""
    reading, writing = os.pipe()
    os.write(writing, bytes(_PIPE_BYTES))
    with open(writing, "w", encoding="utf-8", closefd=False) as stream:
        yield stream, reading
    os.close(writing)
    os.close(reading)


def read_all(aside: Aside, reading: int) -> bytes:
    """Read until everything is out."""
    got = bytearray()
    os.set_blocking(reading, False)

    def out() -> bool:
        try:
            got.extend(os.read(reading, _PIPE_BYTES))
        except BlockingIOError:
            return aside.drain(0)
        return False

    wait_until(out, "everything to be out", deadline_s=20)
    return bytes(got[_PIPE_BYTES:])


def test_who_says_something_to_a_terminal_that_was_stopped_goes_on() -> None:
    aside = Aside()
    with stalled() as (stream, reading):
        for number in range(3):
            aside.write(stream, f"line {number}\n")
        assert not aside.drain(0.01)
        assert read_all(aside, reading) == b"line 0\nline 1\nline 2\n"
    assert all(thread.name != "aside" for thread in threading.enumerate())


def test_of_what_speaks_of_a_moment_the_last_is_written_and_what_is_no_news_is_left_out() -> None:
    aside = Aside()
    with stalled() as (stream, reading):
        aside.write(stream, "stuck\n")
        wait_until(lambda: not aside._waiting, "the thread to be stuck", deadline_s=20)
        for number in range(1000):
            aside.write(stream, f"{number}\n", passing=True)
        assert read_all(aside, reading) == b"stuck\n999\n"


def test_what_waits_is_bounded() -> None:
    aside = Aside()
    with stalled() as (stream, reading):
        for _ in range(2000):
            aside.write(stream, "x\n")
        assert len(read_all(aside, reading)) < 1000


def test_where_there_is_no_thread_less_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    aside = Aside()
    with stalled() as (stream, _):
        monkeypatch.setattr(threading.Thread, "start", none)
        aside.write(stream, "x")
        assert aside.drain(0)


def test_a_stream_in_memory_has_it_at_once() -> None:
    stream = io.StringIO()
    Aside().write(stream, "x")
    assert stream.getvalue() == "x"


class Stopped(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def test_a_bar_on_a_terminal_that_was_stopped_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    aside = Aside()
    monkeypatch.setattr("nvmelm.cli.frame.progress.ASIDE", aside)
    monkeypatch.setattr("nvmelm.cli.frame.progress._REDRAW_S", -1.0)
    with stalled() as (stream, reading):
        terminal = Stopped(open(stream.fileno(), "wb", buffering=0, closefd=False))  # noqa: SIM115
        with ProgressBar("moving", stream=terminal) as bar:
            for done in range(100):
                bar(done, 100)
        assert read_all(aside, reading).endswith(b"\r\x1b[K")  # it leaves no trace


def test_lines_of_progress_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    aside = Aside()
    monkeypatch.setattr("nvmelm.cli.verbs.migrate.migration.ASIDE", aside)
    with stalled() as (stream, reading):
        monkeypatch.setattr("sys.stderr", stream)
        said = JsonProgress()
        for done in (1, 50, 100):
            said(done * 100, 10_000)
        assert b'"bytes": 10000' in read_all(aside, reading)
