"""What a plain install can do: without the extras, and asked where its files for other programs are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nvmelm.cli import main

ROOT = Path(__file__).parents[3]


def test_the_demo_runs_without_the_package_that_speaks_qmp(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden" / "qemu" / "qmp"
    hidden.mkdir(parents=True)
    (hidden.parent / "__init__.py").write_text("")
    (hidden / "__init__.py").write_text("raise ImportError('not installed')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "hidden")}
    words = [sys.executable, "-m", "nvmelm", "demo"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "pass to a VM" in done.stdout


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ansible", "ansible_collections/nvmelm/fleet/galaxy.yml"),
        ("libvirt", "nvmelm"),
        ("systemd", "nvmelm-apply@.service"),
        ("tmpfiles.d", "nvmelm.conf"),
        ("man", "man8/nvmelm-migrate.8"),
        ("completions", "zsh/_nvmelm"),
        ("docs", "index.md"),
        ("schemas", "nvmelm.list.json"),
    ],
)
def test_nvmelm_says_where_its_files_for_other_programs_are(
    name: str, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["share", name]) == 0
    assert (Path(capsys.readouterr().out.rstrip("\n")) / file).is_file()


def test_what_does_not_come_with_nvmelm_is_refused_with_what_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["share", "../cli"]) == 2
    assert "ansible" in capsys.readouterr().err


def test_no_text_tells_to_install_a_package_by_a_name_that_is_not_ours() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "nvmelm").rglob("*.py")]
    names = [page.name for page in pages if re.search(r"pip install ['\"]?nvmelm", page.read_text())]
    assert names == []
