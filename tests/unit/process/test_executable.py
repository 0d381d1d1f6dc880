"""What is no program is said to be none, with the reason that the kernel's errno does not tell."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nvmelm.errors import BusyError, HostError, UsageError
from nvmelm.migrate.callouts import trusted
from nvmelm.process.child import run_program
from nvmelm.process.program import Program

Make = Callable[[Path], object]


def _file(text: bytes, mode: int = 0o755) -> Make:
    def make(path: Path) -> None:
        path.write_bytes(text)
        path.chmod(mode)

    return make


#: What stands where a program is named, and why it is none.
KINDS: dict[str, tuple[Make, str]] = {
    "missing": (lambda _: None, "there is no such file"),
    "directory": (Path.mkdir, "it is a directory"),
    "no permission": (_file(b"#!/bin/sh\n", 0o644), r"nobody may execute it \(mode 0644\)"),
    "no interpreter": (_file(b"#!/nowhere/sh\n"), "its #! line names /nowhere/sh, which is not there"),
    "no format": (_file(b"root:x:0:0\n"), "it is no binary of this machine, and has no #! line"),
    "empty": (_file(b""), "it is empty"),
    "socket": (lambda path: os.mkfifo(path, 0o755), "it is no regular file"),
    "loop": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_program_is_named_with_the_reason_and_root_is_none(tmp_path: Path, kind: str) -> None:
    make, why = KINDS[kind]
    path = tmp_path / "program"
    make(path)
    with pytest.raises(UsageError, match=f"cannot start: {path}: ") as typed:
        run_program([str(path)], limit=10, timeout_s=10, named=True)
    with pytest.raises(HostError, match="cannot start") as ours:
        run_program([str(path)], limit=10, timeout_s=10)
    with pytest.raises(HostError, match="cannot run") as later, Program([str(path)], b""):
        pass
    with pytest.raises(UsageError, match="is no executable file") as callout:
        trusted.program(str(path), fix="--exec PROGRAM")
    for error in (typed.value, ours.value, later.value, callout.value):
        assert re.match(why, error.cause), error.cause
        assert "root" not in error.cause + error.fix


def test_a_name_that_is_nowhere_in_path_says_where_was_looked() -> None:
    with pytest.raises(UsageError) as met:
        run_program(["no-such-program-of-anybody"], limit=10, timeout_s=10, named=True)
    assert met.value.cause == "no directory of PATH has a program of this name"


def test_a_program_that_somebody_writes_is_busy(tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(Path("/bin/true").read_bytes())
    path.chmod(0o755)
    with path.open("r+b"), pytest.raises(BusyError, match="Text file busy"):
        run_program([str(path)], limit=10, timeout_s=10, named=True)
    assert run_program([str(path)], limit=10, timeout_s=10).status == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to own what it places")
def test_a_callout_that_nobody_can_run_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("echo no #! line\n")
    (tmp_path / "hook").chmod(0o755)
    with pytest.raises(HostError, match="cannot run the callout") as met:
        trusted.programs(tmp_path)
    assert "has no #! line" in met.value.cause
