"""Command lines on an emulated host, in this process."""

from __future__ import annotations

import io
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from nvmelm import cli
from tests.emulated.cli.changing import DOMAIN, Run, vmm


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command line on an emulated host; a verb about a VM finds one, if there is none."""
    monkeypatch.chdir(tmp_path)

    def line(host: Path, words: str, *more: str) -> tuple[int, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(DOMAIN.encode())))
        alone = words.startswith("vm ") and not (host / "qmp").exists()
        with vmm(host, holds=words.startswith("vm detach")) if alone else nullcontext():
            code = cli.main(["--host", f"emulated:{host}", *words.format(host=host).split(), *more])
        return code, capsys.readouterr().out

    return line
