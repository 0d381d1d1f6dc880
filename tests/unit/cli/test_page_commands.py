"""Every command of every page: run by a test as it stands, or read by the program that it calls and run elsewhere.

The consoles of README and of the pages in ``TRANSCRIBED`` that begin with ``$`` are run on emulated hosts, and what
they print is compared. Of every other fenced command this test has each call of nvmelm read by the real command line,
finds each target of make in the Makefile and each file of ``nvmelm share``, and knows who runs the rest.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from nvmelm.cli.frame import app
from nvmelm.cli.frame.options import CONTEXT
from nvmelm.cli.reference import pages
from tests.emulated.transcripts import TRANSCRIBED

ROOT = Path(__file__).parents[3]
_FENCE = re.compile(r"^( *)```(console|sh)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_PROMPT = re.compile(r"^(?:\$|#|source\$|destination\$|\(QMP\)) +", re.MULTILINE)
_SHARE = re.compile(r'\$\(nvmelm share ([a-z.]+)\)(?:"?(/[^\s"]*))?')


class Elsewhere(NamedTuple):
    """Who runs a command that is not of nvmelm: a file, and the word in it that shows so."""

    file: str
    word: str


#: By the words a command begins with. What prepares or cleans up the reader's own shell is run by nobody: None.
RUN_ELSEWHERE: dict[str, Elsewhere | None] = {
    "ansible-playbook": Elsewhere("tests/emulated/cli/test_ansible.py", "prepare_and_move_on_the_emulated_hosts"),
    "export ANSIBLE_COLLECTIONS_PATH": Elsewhere("tests/emulated/cli/test_ansible.py", "docs/ansible.md"),
    "apt install": Elsewhere("tests/emulated/cli/test_packages.py", "dpkg"),
    "apt-get install": Elsewhere("tests/lab/guest.py", "apt-get install"),
    "systemctl": Elsewhere("tests/lab/test_boot.py", "systemctl"),
    "udevadm": Elsewhere("tests/lab/test_boot.py", "udevadm"),
    "systemd-sysusers": Elsewhere("tests/unit/cli/test_docs_pages.py", "systemd-sysusers"),
    "visudo": Elsewhere("tests/unit/cli/test_docs_pages.py", "visudo"),
    "sed s|/usr/bin/nvmelm|": Elsewhere("tests/unit/cli/test_docs_pages.py", "sudoers.d"),
    "virsh dumpxml": Elsewhere("tests/lab/test_libvirt.py", "libvirt"),
    "migrate-set-capabilities": Elsewhere("tests/lab/vms.py", "migrate-set-capabilities"),
    "/opt/nvmelm/bin/pip install": Elsewhere("Makefile", "$(PIP) --editable"),
    "python3 -m venv": Elsewhere("Makefile", "-m venv"),
    **dict.fromkeys(("install", "ln -s", "echo", "ssh root@", "kill", "wait", "unset", "rm -r /tmp/"), None),
    **dict.fromkeys((". .venv/bin/activate", "jq", "QMP=", "for", "do", "done", "cat", "ls"), None),
}


def commands() -> Iterator[tuple[str, str]]:
    """Yield each fenced command that no transcript runs, with its page."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        if page.name in pages.pages() or page.name == "changelog.md":
            continue
        for _, kind, block in _FENCE.findall(page.read_text()):
            if kind == "console" and block.startswith("$ ") and page.name in {*TRANSCRIBED, "README.md"}:
                continue
            for line in _typed(kind, block.replace("\\\n", " ")):
                yield page.name, line


def _typed(kind: str, block: str) -> list[str]:
    if kind == "sh":
        return block.splitlines()
    assert _PROMPT.match(block), f"a console begins with a prompt: {block}"
    only_dollars = block.startswith("$ ")
    lines = [line for line in block.splitlines() if _PROMPT.match(line)]
    return [_PROMPT.sub("", line) for line in lines if not only_dollars or line.startswith("$ ")]


def parts(line: str) -> list[list[str]]:
    """Return the simple commands of a shell's line, in words."""
    lexer = shlex.shlex(re.sub(r"\s# .*$", "", line), posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set(";&|"):
            found.append([])
        else:
            found[-1].append(word)
    return [words[: words.index(">")] if ">" in words else words for words in found if words]


def read_by_nvmelm(words: list[str]) -> None:
    """Have the real command line read what stands behind ``nvmelm``; it says so when it does not take it."""
    command: Any = typer.main.get_command(app.app)
    if words[:1] == ["--version"]:
        return
    while words[0] in ("--host", "--record"):
        words = words[2:]
    while hasattr(command, "commands"):
        command = command.commands[words[0]]
        words = words[1:]
    command.make_context(command.name, [word for word in words if word != "--json"], **CONTEXT)


def runs(words: list[str]) -> Elsewhere | None:
    """Return who runs a command that is not of nvmelm; LookupError when nobody is known to."""
    typed = " ".join(words)
    for begin, where in RUN_ELSEWHERE.items():
        if typed == begin or typed.startswith((f"{begin} ", begin) if begin[-1] in "=/@|" else f"{begin} "):
            return where
        if begin.endswith("PATH") and typed.startswith(f"{begin}="):
            return where
    raise LookupError(f"who runs this command? {typed}")


COMMANDS = list(commands())


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{page}:{line[:60]}" for page, line in COMMANDS])
def test_a_command_that_no_transcript_runs_is_taken_by_its_program_and_run_elsewhere(page: str, line: str) -> None:
    for name, file in _SHARE.findall(line):
        assert list((ROOT / "nvmelm" / "share" / name).glob(file.strip("/") or "*")), line
    for words in parts(re.sub(r"\$\(nvmelm share [a-z.]+\)", "SHARED", line)):
        if "nvmelm" in words and words[0] in ("nvmelm", "ssh"):
            read_by_nvmelm(words[words.index("nvmelm") + 1 :])
        elif words[0] == "make":
            targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert {word for word in words[1:] if "=" not in word} <= set(targets)
        elif words[:3] == [".venv/bin/python", "-m", "tests.lab"]:
            text = (ROOT / "tests/lab/__main__.py").read_text()
            ours = words[3 : words.index("--")] if "--" in words else words[3:]
            assert all(f'"{word}"' in text for word in ours if word.startswith("--"))
        else:
            where = runs(words)
            assert where is None or where.word in (ROOT / where.file).read_text(), words


def test_what_the_command_line_does_not_take_and_what_nobody_runs_is_noticed() -> None:
    with pytest.raises(Exception, match=r"(?i)no such option"):
        read_by_nvmelm(["compat", "steps", "a", "b", "--nope"])
    with pytest.raises(KeyError):
        read_by_nvmelm(["compat", "stepps"])
    with pytest.raises(LookupError, match="who runs this"):
        runs(["mkfs", "/dev/sda"])
