"""Paths that were typed and cannot be used: an error with cause and fix, and never a bug of nvmelm."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nvmelm.emulator.host import create

ROOT = Path(__file__).parents[3]
NOBODY = 65534


#: Runs a verb twice: on a host of its own, so that all it imports is there, and as another user on the host of root.
_PROGRAM = """
import os, sys
from nvmelm.cli import main
from nvmelm.cli.frame.report import catch_bugs
user, own, host, *verb = sys.argv[1:]
catch_bugs(verb)
main(["--host", f"emulated:{own}", *verb])
main(["--host", "emulated:/nowhere/at/all", *verb])
os.setgroups([])
os.setuid(int(user))
print("now", file=sys.stderr)
sys.exit(main(["--host", f"emulated:{host}", *verb]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("verb", ["list", "show nvme0", "source prepare nvme0 --vfs 1", "recover", "list --json"])
def test_a_host_that_another_user_made_is_refused_with_cause_and_fix(tmp_path: Path, verb: str) -> None:
    for name in ("own", "host"):
        create(tmp_path / name).close()
    (tmp_path / "host").chmod(0o700)
    words = [str(NOBODY), str(tmp_path / "own"), str(tmp_path / "host"), *verb.split()]
    call = [sys.executable, "-c", _PROGRAM, *words]
    done = subprocess.run(call, capture_output=True, text=True, timeout=60, cwd=ROOT)
    _, _, output = done.stderr.partition("now\n")
    assert done.returncode == 1, done.stderr
    assert "bug in nvmelm" not in output
    assert "Permission denied" in output
    assert "cause: " in output
    assert "fix:   " in output
