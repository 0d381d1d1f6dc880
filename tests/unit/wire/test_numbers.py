"""A number in somebody else's text is read whole, in ASCII and within bounds, or not at all."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nvmelm
from nvmelm.desired.config import parse
from nvmelm.errors import UsageError
from nvmelm.host.local.claims import _address as address_of_claim
from nvmelm.numbers import decimal, hexadecimal, number
from nvmelm.vm.libvirt.domain_xml import _address as address_of_domain

NONSENSE = ("", " ", "²", "٣", "-1", "+1", "1_0", " 1", "1 ", "1\n", "0b1", "x", "0x", "1.0", "1e3", "9" * 5000)
PACKAGE = Path(nvmelm.__file__).parent


@pytest.mark.parametrize("text", NONSENSE)
def test_what_is_no_number_is_none(text: str) -> None:
    assert decimal(text, most=1 << 64) is None
    assert number(text, most=1 << 64) is None


@pytest.mark.parametrize("text", ["", "0x", "²", "٣", "-1", "1_0", "0x1_0", " 1", "g", "f" * 5000, "0x0x1"])
def test_what_is_no_hexadecimal_number_is_none(text: str) -> None:
    assert hexadecimal(text, most=1 << 64) is None


@given(st.integers(min_value=0, max_value=1 << 70), st.integers(min_value=0, max_value=1 << 64))
def test_a_number_is_itself_up_to_the_most_it_may_be(value: int, most: int) -> None:
    expected = value if value <= most else None
    assert decimal(str(value), most=most) == expected
    assert decimal(f"00{value}", most=most) == expected
    assert hexadecimal(f"{value:x}", most=most) == expected
    assert hexadecimal(f"{value:#X}", most=most) == expected
    assert number(hex(value), most=most) == expected


@given(st.text())
def test_no_text_raises(text: str) -> None:
    for read in (decimal, hexadecimal, number):
        assert read(text, most=0xFFFF) in (None, *range(0x10000))


def test_a_number_of_5000_digits_in_a_configuration_is_an_error_of_the_file() -> None:
    with pytest.raises(UsageError, match="is not TOML"):
        parse("f", f"[[pf]]\nserial = 'S'\nvfs = {'9' * 5000}\n")


@pytest.mark.parametrize("text", ["0x1f", "32", "-1", "²", "9" * 5000])
def test_a_place_in_somebody_elses_xml_that_is_no_address_is_none(text: str) -> None:
    parts = {"domain": "0", "bus": "1", "slot": text, "function": "0"}
    expected = "0000:01:1f.0" if text == "0x1f" else None
    assert address_of_claim(parts) == expected
    found = address_of_domain(parts)
    assert (str(found) if found else None) == expected


def calls(tree: ast.AST) -> list[tuple[int, str]]:
    """Return where a module reads numbers by itself: isdigit and its kin, and int or float of a text."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("isdigit", "isdecimal", "isnumeric"):
            found.append((node.lineno, node.func.attr))
        if isinstance(node.func, ast.Name) and node.func.id in ("int", "float"):
            first = node.args[0] if node.args else None
            if len(node.args) > 1 or not isinstance(first, ast.Attribute | ast.Call | ast.BoolOp | ast.BinOp):
                found.append((node.lineno, node.func.id))
    return found


#: Modules that read numbers by themselves, and why the text is bounded before.
BOUNDED = {
    "numbers.py": "is the helper",
    "cli/frame/progress.py": "what it computed",
    "cli/frame/render.py": "what it computed",
    "cli/reference/manpages.py": "exit codes",
    "cli/reference/pages.py": "exit codes",
    "cli/verbs/bug_report/verbs.py": "tells a port from a name, and reads none",
    "cli/verbs/explain.py": "ASCII, 5 digits at most",
    "cli/verbs/fixture.py": "tells a name from a number, and reads none",
    "cli/verbs/migrate/migration.py": "a rate it computed",
    "cli/verbs/watch.py": "exit codes",
    "compat/describe.py": "a pattern of 1 to 4 digits",
    "compat/dialects/parameters.py": "spans it made itself",
    "compat/fleet/assignment.py": "digits it made itself",
    "compat/fleet/index.py": "ASCII, 5 digits at most",
    "compat/rules.py": "ASCII, 5 digits at most; no longer than the largest value",
    "host/local/processes.py": "patterns over /proc",
    "host/recording/block.py": "a pattern of at most 8 digits",
    "host/recording/events.py": "exactly so many hexadecimal digits",
    "interposer/caller.py": "a pattern over /proc",
    "interposer/launch.py": "numbers of signals; the answer of its own child, as bytes: their isdigit() is ASCII",
    "interposer/service.py": "pids in names that it gave itself",
    "inventory/find.py": "controller ids: a pattern of 1 to 5 digits; exit codes",
    "inventory/pci.py": "addresses: a pattern of 1 to 8 hexadecimal digits",
    "migrate/report_page.py": "a constant",
    "prepare/check.py": "a pattern of 1 to 4 digits",
    "state/image/checks.py": "a flag's own value",
    "vm/check.py": "a version that QEMU says as numbers",
    "watch/metrics.py": "what it counted",
    "wire/layout.py": "its own tables",
    "wire/migration.py": "booleans",
    "wire/status.py": "patterns of at most 5 digits",
    "wire/tracking.py": "booleans",
}


def test_texts_of_others_are_read_by_the_helper_alone() -> None:
    readers = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name.startswith(("emulator/", "share/")) or name in BOUNDED:
            continue
        found = calls(ast.parse(path.read_text()))
        if found:
            readers[name] = found
    assert readers == {}


def test_no_module_is_excused_that_reads_no_number() -> None:
    readers = {name for name in BOUNDED if calls(ast.parse((PACKAGE / name).read_text()))}
    assert readers == set(BOUNDED)


def test_no_pattern_takes_the_digits_of_every_script() -> None:
    lax = [
        f"{path.relative_to(PACKAGE)}:{number}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not path.relative_to(PACKAGE).as_posix().startswith(("emulator/", "share/"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "\\d" in line
    ]
    assert lax == []
