"""Bytes of unknown origin are bounded in number."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nvmelm.disk.bounded import read_file, what_is
from nvmelm.errors import HostError, MalformedError


def test_a_file_is_read_whole_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 100_000)
    assert read_file(path, 100_000) == b"x" * 100_000
    with pytest.raises(MalformedError, match="more than 99999 bytes"):
        read_file(path, 99_999)


def test_a_file_without_an_end_is_not_read_to_its_end() -> None:
    with pytest.raises(MalformedError):
        read_file("/dev/zero", 1000)


def test_a_file_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="No such file"):
        read_file(tmp_path / "none", 10)


def test_a_word_is_told_apart_as_a_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    named = [what_is(str(path)) for path in (tmp_path / "file", tmp_path / "pipe", tmp_path, tmp_path / "none")]
    assert named == ["file", "file", "directory", "nothing"]
    assert what_is("/dev/null") == "device"
    assert what_is("a\0b") == "nothing"
    assert what_is("x" * 5000) == "nothing"
