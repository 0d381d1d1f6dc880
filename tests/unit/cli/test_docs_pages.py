"""The documentation: what is made from the code is current, every page is in the site, every link leads somewhere."""

from __future__ import annotations

import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nvmelm.cli import verbs
from nvmelm.cli.reference import completions, manpages, pages
from nvmelm.cli.reference.examples import EXAMPLES
from nvmelm.errors import ExitCode
from tests.emulated.transcripts import TRANSCRIBED

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """Return a page without its code blocks and code spans, in which nothing is a link."""
    text = re.sub(r"^( *)(```|~~~).*?^ *\2 *$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`[^`\n]*`", "code", text)


def anchors(page: Path) -> set[str]:
    """Return the names of a page's headings, as the site makes them."""
    text = re.sub(r"^( *)(```|~~~).*?^ *\2 *$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("name", ["verbs.md", "codes.md", "documents.md", "facts.md"])
def test_the_pages_that_are_made_from_the_code_are_current(name: str) -> None:
    assert (DOCS / name).read_text() == pages.pages()[name], f"docs/{name}: run `make pages`"


def test_the_order_of_verbs_does_not_rest_on_which_module_is_imported_first() -> None:
    modules = [module.name for module in pkgutil.walk_packages(verbs.__path__, f"{verbs.__name__}.")]
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "from nvmelm.cli.reference import pages\n"
        "sys.stdout.write(pages.pages()['verbs.md'])"
    )
    command = [sys.executable, "-c", program, *reversed(modules)]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert made.stdout == (DOCS / "verbs.md").read_text()


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_the_tables_of_exit_codes_are_one_table(page: Path) -> None:
    text = page.read_text()
    assert text == pages.refreshed(text), f"{page.name}: run `make pages`"


@pytest.mark.parametrize("name", ["README.md", "docs/cli.md", "docs/codes.md"])
def test_a_page_that_lists_exit_codes_lists_each_of_them(name: str) -> None:
    text = (ROOT / name).read_text()
    assert [code for code in ExitCode if f"\n| `{code.value}` | " not in text] == []


def test_the_page_about_a_move_says_of_every_exit_code_what_is_true_then() -> None:
    _, _, table = (ROOT / "docs" / "source-guide.md").read_text().partition("| exit | what is true | do |")
    rows = re.findall(r"^\| ([\d, ]+) \|", table.split("\n\n")[0], flags=re.MULTILINE)
    assert sorted(int(code) for row in rows for code in row.split(",")) == sorted(ExitCode)


def navigation() -> dict[str, list[str]]:
    """Return the pages of each part of the site's navigation."""
    _, _, nav = (DOCS / "site" / "mkdocs.yml").read_text().partition("\nnav:\n")
    parts = re.split(r"^  - ([^:\n]+):\n", nav, flags=re.MULTILINE)[1:]
    return {title: re.findall(r": (\S+\.md)$", below, flags=re.MULTILINE) for title, below in pairs(parts)}


def test_every_page_is_in_the_navigation_once_and_nothing_else_is() -> None:
    named = ["index.md", *(name for part in navigation().values() for name in part)]
    assert sorted(named) == [page.name for page in PAGES], "docs/site/mkdocs.yml: one line for each page"


def test_the_first_page_has_the_parts_and_pages_of_the_sites_navigation_in_its_order() -> None:
    parts = re.split(r"^## (.*)$", prose(DOCS / "index.md"), flags=re.MULTILINE)[1:]
    rows = {title: re.findall(r"^\|.*\]\((\S+\.md)\) \|$", below, flags=re.MULTILINE) for title, below in pairs(parts)}
    assert [(title, names) for title, names in rows.items() if names] == list(navigation().items())


def pairs(parts: list[str]) -> list[tuple[str, str]]:
    return list(zip(parts[::2], parts[1::2], strict=True))


def test_the_glossary_has_each_word_once_in_order() -> None:
    words = re.findall(r"^\| ([^|]+?) \|", (DOCS / "glossary.md").read_text(), flags=re.MULTILINE)
    words = [word.strip("`*").lower() for word in words if word not in ("Word", "---")]
    assert len(words) > 20
    assert words == sorted(set(words))


def test_what_is_written_by_hand_stays_short() -> None:
    assert sum(words_by_hand().values()) <= 25_000, sorted(words_by_hand().items(), key=lambda item: -item[1])


def words_by_hand() -> dict[str, int]:
    """Return how many words of each page people wrote.

    Left out are pages and tables that are made from the code, what transcripts print, and the list of changes.
    """
    names = [page.name for page in PAGES if page.name not in {*pages.pages(), "changelog.md"}]
    return {name: len(by_hand(name).split()) for name in names}


def by_hand(name: str) -> str:
    """Return a page without its made tables, and its consoles that a program writes with their commands alone."""
    text = re.sub(r"<!-- [^>]*made by.*?<!-- end -->", "", (DOCS / name).read_text(), flags=re.DOTALL)
    if name not in TRANSCRIBED:
        return text
    consoles = re.compile(r"^```console\n(?=\$ )(.*?)^```$", re.DOTALL | re.MULTILINE)
    return consoles.sub(lambda block: "\n".join(re.findall(r"^\$ .*$", block[1], re.MULTILINE)), text)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_links_to_what_the_site_has_not(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        assert not link.startswith(("../", "/")), link


def test_a_page_made_from_the_code_has_every_verb_and_no_hidden_option() -> None:
    from nvmelm.cli.reference import tree

    text = pages.pages()["verbs.md"]
    for topic in tree.topics():
        for verb in topic.verbs:
            assert f"```text\n{verb.usage}\n\n{EXAMPLES[verb.name].typed}  " in text
    assert "install-completion" not in text


@pytest.mark.skipif(shutil.which("systemd-tmpfiles") is None, reason="systemd-tmpfiles reads the snippet")
def test_the_snippet_for_tmpfiles_makes_a_directory_that_nvmelm_takes(tmp_path: Path) -> None:
    snippet = ROOT / "nvmelm" / "share" / "tmpfiles.d" / "nvmelm.conf"
    assert snippet.read_text().splitlines()[-1] == "d /var/lib/nvmelm 0700 root root -"
    words = ["systemd-tmpfiles", "--create", f"--root={tmp_path}", str(snippet)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    made = tmp_path / "var" / "lib" / "nvmelm"
    assert made.is_dir(), done.stderr
    assert made.stat().st_mode & 0o777 == 0o700


def test_mkdocs_builds_the_site_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    words = ["build", "--strict", "--quiet", "-f", str(DOCS / "site" / "mkdocs.yml"), "-d", str(tmp_path / "site")]
    done = subprocess.run([sys.executable, "-m", "mkdocs", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in PAGES:
        assert (tmp_path / "site" / f"{page.stem}.html").is_file()


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="systemd-sysusers reads the snippet")
def test_the_snippet_for_sysusers_makes_an_account_without_a_password(tmp_path: Path) -> None:
    snippet = ROOT / "nvmelm" / "share" / "sysusers.d" / "nvmelm.conf"
    (tmp_path / "etc").mkdir()
    words = ["systemd-sysusers", f"--root={tmp_path}", str(snippet)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    (account,) = (tmp_path / "etc" / "passwd").read_text().splitlines()
    assert account.split(":")[0] == "nvmelm"
    assert account.split(":")[5:] == ["/var/lib/nvmelm-login", "/bin/sh"]
    assert (tmp_path / "etc" / "shadow").read_text().split(":")[1].startswith("!")


@pytest.mark.skipif(shutil.which("visudo") is None, reason="visudo reads the snippet")
def test_the_snippet_for_sudoers_is_one_that_sudo_understands() -> None:
    snippet = ROOT / "nvmelm" / "share" / "sudoers.d" / "nvmelm"
    done = subprocess.run(["visudo", "-cf", str(snippet)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_man_pages_that_are_installed_are_current() -> None:
    installed = {page.name: page.read_text() for page in (ROOT / "nvmelm/share/man").glob("man?/*")}
    assert installed == manpages.pages(), "run `make pages`"


def test_the_completion_scripts_that_are_installed_ask_nvmelm_itself() -> None:
    for name in completions.FILES.values():
        assert "_NVMELM_COMPLETE" in (ROOT / "nvmelm/share/completions" / name).read_text(), "run `make man`"
