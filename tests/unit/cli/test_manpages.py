"""Man pages: nothing is left out, and nothing in a help text can be taken for a request of the formatter."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

import nvmelm
from nvmelm.cli.frame import app, logs
from nvmelm.cli.frame.app import VERBS
from nvmelm.cli.frame.options import CONTEXT
from nvmelm.cli.reference import manpages, tree
from nvmelm.cli.reference.examples import EXAMPLES
from nvmelm.cli.reference.places import ENVIRONMENT, FILES
from nvmelm.errors import ExitCode


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return manpages.pages()


def test_there_is_one_page_for_nvmelm_and_one_for_each_word_behind_it(pages: dict[str, str]) -> None:
    assert {name.rpartition(".")[0] for name in pages} == {"nvmelm", *(f"nvmelm-{name}" for name in VERBS)}


def test_what_needs_root_is_in_section_8_and_says_so_in_its_title(pages: dict[str, str]) -> None:
    assert {"nvmelm.8", "nvmelm-migrate.8", "nvmelm-state.8", "nvmelm-explain.1", "nvmelm-demo.1"} <= set(pages)
    for name, page in pages.items():
        assert page.split("\n")[0].split('" ')[1].startswith(f"{name[-1]} "), name


def test_each_verb_has_an_example_that_its_command_line_takes() -> None:
    verbs = [verb for topic in tree.topics() for verb in topic.verbs]
    assert {verb.name for verb in verbs} == set(EXAMPLES)
    for verb in verbs:
        words = shlex.split(EXAMPLES[verb.name].typed.partition(" < ")[0].removeprefix("ssh other "))
        assert words[: len(verb.words) + 1] == ["nvmelm", *verb.words]
        command: Any = typer.main.get_command(app.app)
        for word in verb.words:
            command = command.commands[word]
        command.make_context(verb.name, words[len(verb.words) + 1 :], **CONTEXT)


def test_each_page_says_every_exit_code_and_shows_the_example_of_each_verb(pages: dict[str, str]) -> None:
    for topic in tree.topics():
        page = pages[f"nvmelm-{topic.name}.{manpages.section(topic.name)}"]
        assert all(f".TP\n.B {code.value}\n" in page for code in ExitCode)
        assert all(manpages.escape(EXAMPLES[verb.name].typed) in page for verb in topic.verbs)


def test_each_page_has_every_verb_argument_and_option_of_its_word(pages: dict[str, str]) -> None:
    for topic in tree.topics():
        page = pages[f"nvmelm-{topic.name}.{manpages.section(topic.name)}"]
        for verb in topic.verbs:
            assert manpages.escape(f"nvmelm {verb.name}") in page
            for row in (*verb.arguments, *verb.options):
                assert f".TP\n.B {manpages.escape(row.typed)}\n{manpages.escape(row.about)}\n" in page, verb.name


def test_the_overview_has_every_verb_exit_code_and_variable(pages: dict[str, str]) -> None:
    overview = pages["nvmelm.8"]
    for topic in tree.topics():
        assert all(f".B {manpages.escape(verb.name)}" in overview for verb in topic.verbs)
        assert f"nvmelm\\-{manpages.escape(topic.name)} ({manpages.section(topic.name)})" in overview
    assert all(f".TP\n.B {code.value}\n" in overview for code in ExitCode)
    assert all(f".TP\n.B {variable.name}\n" in overview for variable in ENVIRONMENT)


def test_every_variable_of_its_own_that_nvmelm_reads_is_in_the_table() -> None:
    known = {variable.name for variable in ENVIRONMENT}
    fields = set(re.findall(r"``(NVMELM_[A-Z_]+)``", logs.__doc__ or ""))
    for file in sources():
        text = file.read_text()
        assert set(re.findall(r"""["'](NVMELM_[A-Z_]+)["']""", text)) <= known | fields, file
        read = set(re.findall(r"""environ(?:\.get\(|\[)["']([A-Z_]+)["']""", text))
        assert read <= known | {"TERM"}, file


def test_every_place_of_its_own_that_nvmelm_knows_is_in_the_table() -> None:
    known = {file.name.rstrip("/") for file in FILES}
    for file in sources():
        named = set(re.findall(r"""["'](/(?:etc|var|run)/nvmelm[^"'\s]*|/var/lib/nvmelm)["']""", file.read_text()))
        assert {name.rstrip("/") for name in named} <= known, file


def sources() -> list[Path]:
    """Return the modules of nvmelm; those for Ansible are run by Ansible."""
    return [file for file in Path(nvmelm.__file__).parent.rglob("*.py") if "ansible" not in file.parts]


def test_the_pages_are_ascii_and_have_only_requests_of_the_man_macros(pages: dict[str, str]) -> None:
    known = {".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".BR", ".br", ".nf", ".fi"}
    for name, page in pages.items():
        assert page.isascii(), name
        assert {line.split()[0] for line in page.splitlines() if line.startswith((".", "'"))} <= known


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1))
def test_no_text_can_begin_a_request_or_an_escape_of_its_own(text: str) -> None:
    escaped = manpages.escape(text)
    assert escaped.isascii()
    assert not escaped.startswith((".", "'"))
    assert re.fullmatch(r"(?:[^\\\"'`^~-]|\\(?:&|e|-|\((?:aq|ga|dq|ha|ti)|\[u[0-9A-F]{4,6}\]))*", escaped)


def test_what_is_written_is_complete_and_pages_of_words_that_are_gone_are_removed(tmp_path: Path) -> None:
    for name in ("man8", "man1"):
        (tmp_path / name).mkdir()
    (tmp_path / "man8" / "nvmelm-gone.8").write_text("")
    (tmp_path / "man1" / "other.1").write_text("")
    manpages.write(tmp_path)
    assert {page.name for page in tmp_path.glob("man?/*")} == {"other.1", *manpages.pages()}


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff formats the pages")
def test_groff_formats_every_page_without_a_warning(tmp_path: Path) -> None:
    manpages.write(tmp_path)
    files = sorted(map(str, tmp_path.glob("man?/*")))
    done = subprocess.run(["groff", "-man", "-ww", "-Tutf8", *files], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    shown = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout)
    assert "--dry-run" in shown


@pytest.mark.skipif(shutil.which("man") is None, reason="man reads the pages")
def test_man_shows_the_overview_without_a_warning(tmp_path: Path) -> None:
    manpages.write(tmp_path)
    words = ["man", "--warnings", "-l", str(tmp_path / "man8" / "nvmelm.8")]
    environment = {**os.environ, "MANWIDTH": "80", "LC_ALL": "C.UTF-8", "MANPAGER": "cat"}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""
    assert "NVMELM_STATE_DIR" in done.stdout
