"""Bytes of unknown origin are bounded: in number, and in the time they may take."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from nvmelm.disk.bounded import read_file, run_program, what_is
from nvmelm.errors import HostError, MalformedError, TimedOutError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


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


def test_a_program_is_run_without_a_shell_and_leaves_what_it_printed() -> None:
    code = "import sys; print(sys.argv[1]); print('told', file=sys.stderr); sys.exit(3)"
    printed = run_program([*python(code), "$(id) ; a"], limit=100, timeout_s=60)
    assert printed == (3, b"$(id) ; a\n", b"told\n")


def test_a_program_that_prints_too_much_is_ended() -> None:
    with pytest.raises(MalformedError, match="more than 1000 bytes"):
        run_program(python("while True: print('x' * 4096)"), limit=1000, timeout_s=60)


def test_a_program_that_complains_without_end_is_not_kept_in_memory() -> None:
    code = "import sys; sys.stderr.write('y' * 1_000_000); print('done')"
    printed = run_program(python(code), limit=1000, timeout_s=60)
    assert printed.output == b"done\n"
    assert len(printed.messages) <= 64 * 1024


@pytest.mark.parametrize(
    "code",
    [
        "import threading; threading.Event().wait()",
        "import sys\nwhile True: print('x', file=sys.stderr)",
        "import os, threading; os.close(1); os.close(2); threading.Event().wait()",
    ],
    ids=["silent", "talking", "closed"],
)
def test_a_program_that_does_not_end_is_ended(code: str) -> None:
    with pytest.raises(TimedOutError, match="did not end within"):
        run_program(python(code), limit=10, timeout_s=0.2)


def test_a_program_that_is_not_there_is_an_error_that_names_it() -> None:
    with pytest.raises(HostError, match="cannot start"):
        run_program(["/no/such/program"], limit=10, timeout_s=1)
    with pytest.raises(HostError):
        run_program(["echo", "a\0b"], limit=10, timeout_s=1)
