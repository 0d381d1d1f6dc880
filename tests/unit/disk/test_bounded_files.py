"""A file that was typed is read to its end or refused at once: nobody waits for a pipe that nobody writes into."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvmelm.disk import bounded
from nvmelm.errors import HostError, MalformedError, TimedOutError, UsageError


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """Fail a read that waits."""

    def late(*_about: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))


def _terminal(path: Path) -> None:
    path.symlink_to("/dev/ptmx")


@pytest.mark.parametrize("make", [os.mkfifo, _terminal])
def test_a_pipe_or_device_in_the_file_system_is_refused_at_once(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "file")
    with pytest.raises(UsageError, match="file is not a regular file"):
        bounded.read_file(tmp_path / "file", 100)


@pytest.mark.parametrize("make", [Path.mkdir, _socket])
def test_a_directory_or_socket_is_an_error_that_names_it(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "file")
    with pytest.raises(HostError, match=r"cannot read: .*file"):
        bounded.read_file(tmp_path / "file", 100)


def test_a_pipe_of_the_shell_is_read_to_its_end() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"one two")
    os.close(writing)
    try:
        assert bounded.read_file(f"/dev/fd/{reading}", 100) == b"one two"
    finally:
        os.close(reading)


def test_a_pipe_of_the_shell_that_says_nothing_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "_PIPE_S", 0.05)
    reading, writing = os.pipe()
    try:
        with pytest.raises(TimedOutError, match=f"nothing came out of /dev/fd/{reading}"):
            bounded.read_file(f"/dev/fd/{reading}", 100)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_byte_order_mark_is_no_content_and_the_empty_device_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text", encoding="utf-8-sig")
    assert bounded.read_file(tmp_path / "file", 100) == b"text"
    assert bounded.read_file("/dev/null", 100) == b""


def test_an_error_about_the_content_names_the_file(tmp_path: Path) -> None:
    def parse(_data: bytes) -> None:
        raise MalformedError("this is no manifest")

    (tmp_path / "file").write_text("{")
    with pytest.raises(MalformedError) as met:
        bounded.parsed(tmp_path / "file", 100, parse)
    assert met.value.message == f"{tmp_path / 'file'}: this is no manifest"
