"""Shell completion: each shell, given the packaged script and nothing else, completes verbs and options."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nvmelm.cli.frame.app import VERBS
from nvmelm.cli.reference import completions


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the scripts once."""
    directory = tmp_path_factory.mktemp("completions")
    completions.write(directory)
    return directory


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a program called nvmelm on the path: this one."""
    program = tmp_path / "nvmelm"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m nvmelm "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def run(*words: str) -> list[str]:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()


def bash(scripts: Path, *words: str) -> list[str]:
    """Return what bash offers for the last of the words."""
    script = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
    script += '_nvmelm_completion nvmelm; printf "%s\\n" "${COMPREPLY[@]}"'
    return run("bash", "--norc", "-c", script, "bash", str(scripts / completions.FILES["bash"]), "nvmelm", *words)


def fish(scripts: Path, line: str) -> list[str]:
    """Return what fish offers at the end of a line."""
    file = scripts / completions.FILES["fish"]
    return run("fish", "--no-config", "-c", f"source {file}; complete -C '{line}'")


@pytest.mark.usefixtures("on_path")
def test_bash_completes_every_word_a_verb_and_an_option(scripts: Path) -> None:
    assert bash(scripts, "") == list(VERBS)
    assert bash(scripts, "secondary", "allow-") == ["allow-migration", "allow-resume"]
    assert {"--vfs", "--json", "--dry-run"} <= set(bash(scripts, "sriov", "enable", "--"))


@pytest.mark.usefixtures("on_path")
@pytest.mark.skipif(shutil.which("fish") is None, reason="fish completes")
def test_fish_completes_a_verb_with_its_help(scripts: Path) -> None:
    offered = dict(line.split("\t", 1) for line in fish(scripts, "nvmelm secondary allow-"))
    assert set(offered) == {"allow-migration", "allow-resume"}
    assert "migratable" in offered["allow-migration"]


@pytest.mark.usefixtures("on_path")
@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh completes")
def test_zsh_completes_a_verb_at_the_first_tab(scripts: Path) -> None:
    directory = (scripts / completions.FILES["zsh"]).parent
    # What compinit and the first Tab do, with the completion system's own functions replaced by ones that print.
    script = f"fpath=({directory}); compdef() {{ : }}; _arguments() {{ print -r -- $1 }}; "
    script += "words=(nvmelm secondary allow-); CURRENT=3; autoload -U _nvmelm; _nvmelm"
    offered = "\n".join(run("zsh", "-f", "-c", script))
    assert "allow-migration" in offered
    assert "allow-resume" in offered


def test_zsh_finds_its_script_by_its_name_and_first_line(scripts: Path) -> None:
    text = (scripts / "zsh" / "_nvmelm").read_text()
    assert text.startswith("#compdef nvmelm\n")
