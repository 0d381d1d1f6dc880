"""The matrix: a row of the page is one boot, and stands once."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from tests.lab import matrix
from tests.lab.matrix import Cell, Outcome

ROOT = Path(__file__).parents[3]
TODAY = date(2026, 1, 2)
PAGE = f"# Page\n\n{matrix.BEGIN}{matrix.END}\nMore.\n"


def line(release: str, qemu: str, passed: int) -> str:
    return f"| {release} | {qemu} | 2.3 | host | {passed} | 0 | 1 | 2026-01-02 |\n"


def test_the_page_of_the_documentation_has_a_place_for_it() -> None:
    assert matrix.written((ROOT / matrix.PAGE).read_text(), line("6.1.0-9", "7.2", 3)).count("| 6.1.0-9 | 7.2 |") == 1


def test_a_page_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="make matrix"):
        matrix.written("# Page\n", line("6.1.0-9", "7.2", 3))


def test_a_cell_that_is_run_again_replaces_its_row_and_no_other() -> None:
    page = PAGE
    for new in (line("6.1.0-9", "7.2", 3), line("6.12.1", "7.2", 4), line("6.1.0-9", "7.2", 5)):
        page = matrix.written(page, new)
    rows = page.partition(matrix.BEGIN)[2].partition(matrix.END)[0].removeprefix(matrix.HEAD)
    assert rows == line("6.1.0-9", "7.2", 5) + line("6.12.1", "7.2", 4)
    assert page.endswith(f"{matrix.END}\nMore.\n")


def test_rows_stand_by_version_not_by_letter() -> None:
    page = PAGE
    for release, qemu in (("6.12.1", "7.2"), ("6.1.0-9", "10.0"), ("6.1.0-9", "7.2"), ("7.2.13", "7.2")):
        page = matrix.written(page, line(release, qemu, 1))
    rows = [row.split(" | ")[:2] for row in page.splitlines() if row.startswith(("| 6", "| 7"))]
    assert rows == [["| 6.1.0-9", "7.2"], ["| 6.1.0-9", "10.0"], ["| 6.12.1", "7.2"], ["| 7.2.13", "7.2"]]


def test_an_error_in_a_fixture_counts_as_a_failure() -> None:
    report = '<testsuites><testsuite tests="9" failures="1" errors="2" skipped="3"/></testsuites>'
    assert matrix.outcome(report) == Outcome(passed=3, failed=3, skipped=3)


def test_a_row_names_versions_tests_and_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix.vmm, "version_of", lambda _: (10, 0))
    monkeypatch.setattr(matrix, "has_hmlms", lambda _: True)
    monkeypatch.setattr(matrix, "nvme_version", lambda _: "3.1")
    cell = Cell(Path("root/boot/vmlinuz-6.12.117+deb12-amd64"), "qemu", Path("bin"))
    new = matrix.row(cell, ["tests/lab/test_host.py", "tests/lab/test_steps.py"], Outcome(5, 0, 2), TODAY)
    fields = "6.12.117+deb12-amd64 | 10.0 with live migration | 3.1 | host, steps | 5 | 0 | 2 | 2026-01-02"
    assert new == f"| {fields} |\n"
