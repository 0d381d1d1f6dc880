"""Locks are files that others may remove; whoever makes one anew looks for the holder of its name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nvmelm.disk.locks import FileLocks


def test_a_process_that_ends_while_holders_are_looked_for_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    listed = os.listdir
    monkeypatch.setattr(
        os, "listdir", lambda path: [str(ended.pid), *listed(path)] if str(path) == "/proc" else listed(path)
    )
    with FileLocks(tmp_path / "locks").hold("0000:01:00.0", timeout_s=1.0):
        assert (tmp_path / "locks" / "0000:01:00.0.lock").exists()
