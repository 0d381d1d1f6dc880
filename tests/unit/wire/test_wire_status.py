"""Status: codes are taken apart, named, explained and looked up; unknown ones never hurt."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.errors import UsageError
from nvmelm.wire.opcodes import Opcode
from nvmelm.wire.status import Status, StatusCode, lookup
from nvmelm.wire.status_table import ROWS
from tests.unit import golden


def test_no_code_and_no_name_repeats() -> None:
    assert len({row.code for row in ROWS}) == len(ROWS)
    assert len({row.name.lower() for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_says_why_and_what_to_do(row: object) -> None:
    for cause, fix in [(row.cause, row.fix), *row.in_command.values()]:
        assert cause
        assert fix
        assert not cause.endswith(".")
        # {cntlid} is the one placeholder, and it is always filled.
        assert set(re.findall(r"\{(.*?)\}", cause + fix)) <= {"cntlid"}
    assert set(row.in_command) <= set(Opcode)


@pytest.mark.parametrize("code", list(StatusCode), ids=lambda code: code.name)
def test_every_code_programs_compare_with_has_a_row(code: StatusCode) -> None:
    assert Status(code).known


#: Section 7.2 of the fact reference, typed: code, and the beginning of the name.
REFERENCE_CODES = [
    (0x001, "Invalid Command Opcode"),
    (0x002, "Invalid Field"),
    (0x004, "Data Transfer Error"),
    (0x005, "Commands Aborted due to Power Loss"),
    (0x006, "Internal Error"),
    (0x007, "Command Abort Requested"),
    (0x00B, "Invalid Namespace or Format"),
    (0x00C, "Command Sequence Error"),
    (0x013, "PRP Offset Invalid"),
    (0x01D, "Sanitize In Progress"),
    (0x020, "Namespace is Write Protected"),
    (0x021, "Command Interrupted"),
    (0x022, "Transient Transport Error"),
    (0x023, "Command Prohibited by Command and Feature Lockdown"),
    (0x024, "Admin Command Media Not Ready"),
    (0x105, "Asynchronous Event Request Limit Exceeded"),
    (0x10D, "Feature Identifier Not Saveable"),
    (0x10E, "Feature Not Changeable"),
    (0x11F, "Invalid Controller Identifier"),
    (0x120, "Invalid Secondary Controller State"),
    (0x121, "Invalid Number of Controller Resources"),
    (0x122, "Invalid Resource Identifier"),
    (0x137, "Invalid Controller Data Queue"),
    (0x138, "Not Enough Resources"),
    (0x139, "Controller Suspended"),
    (0x13A, "Controller Not Suspended"),
    (0x13B, "Controller Data Queue Full"),
    (0x370, "Host Pathing Error"),
    (0x371, "Command Aborted By Host"),
]


@pytest.mark.parametrize(("code", "name"), REFERENCE_CODES, ids=lambda value: str(value))
def test_codes_have_their_names(code: int, name: str) -> None:
    assert Status(code).name.startswith(name)


def test_bits_are_where_the_reference_says() -> None:
    bits = golden.constants("status_bits")
    for name, (shift, width) in bits.items():
        full = Status(((1 << width) - 1) << shift)
        assert int(getattr(full, name)) == (1 << width) - 1
        assert all(not getattr(full, other) for other in bits if other != name)


def test_a_status_with_all_its_bits() -> None:
    status = Status(0x793A)
    assert (status.sct, status.sc, status.crd, status.more, status.dnr) == (1, 0x3A, 3, True, True)
    assert (status.code, status.text, str(status)) == (0x13A, "1h/3Ah", "Controller Not Suspended (1h/3Ah)")
    assert status.reason == "controller-not-suspended"


def test_generic_and_command_specific_codes_are_told_apart() -> None:
    assert Status(0x01F).name == "Command Not Supported for Queue in CMB"
    assert Status(0x11F).name == "Invalid Controller Identifier"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1h/3Ah", 0x13A),
        ("1/3a", 0x13A),
        ("0x1/0x3A", 0x13A),
        ("0/2", 0x002),
        ("0x13a", 0x13A),
        ("0X13A", 0x13A),
        ("0x413a", 0x413A),
        ("413Ah", 0x413A),
        ("13Ah", 0x13A),
        ("13a", 0x13A),
        ("314", 0x13A),
        ("  314 ", 0x13A),
        ("0", 0),
        ("Controller Not Suspended", 0x13A),
        ("controller not suspended", 0x13A),
        ("controller-not-suspended", 0x13A),
        ("CONTROLLER_NOT_SUSPENDED", 0x13A),
        ("Invalid Field in Command", 0x002),
        ("invalid field", 0x002),
        ("invalid opcode", 0x001),
        ("7h/C5h", 0x7C5),
        ("0x7fff", 0x7FFF),
    ],
)
def test_people_may_write_a_status_in_many_ways(text: str, value: int) -> None:
    assert lookup(text) == Status(value)


@pytest.mark.parametrize("text", ["", "no such thing", "0x8000", "99999", "8/00", "1/100", "-1", "1h/", "\x1b[2J"])
def test_what_is_no_status_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        lookup(text)
    assert "1h/3Ah" in caught.value.fix
    assert "\x1b" not in caught.value.message


@given(st.integers(0, 0x7FFF))
def test_every_status_can_be_explained_and_found_by_its_text(value: int) -> None:
    status = Status(value)
    assert all([status.name, status.cause, status.fix, status.reason])
    assert "{" not in status.cause + status.fix
    assert lookup(status.text) == Status(status.code)
    assert lookup(f"0x{value:x}") == status
    assert lookup(status.reason) == Status(status.code)


@given(st.text(max_size=30))
def test_any_text_is_a_status_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert 0 <= lookup(text).value <= 0x7FFF


def test_unknown_codes_are_shown_as_numbers() -> None:
    assert str(Status(0x7C5)) == "status 7h/C5h"
    assert not Status(0x7C5).known


def test_the_controller_is_named_where_it_is_known() -> None:
    assert "0x0041" in Status(0x13A).explain(cntlid=0x41)[0]
    assert "CNTLID" in Status(0x13A).fix


def test_a_command_may_give_a_code_its_own_meaning() -> None:
    general, special = Status(0x138).explain(), Status(0x138).explain(opcode=Opcode.TRACK_SEND)
    assert general != special
    assert "ranges of memory" in special[0]


def test_statuses_that_the_driver_made_are_known_as_such() -> None:
    assert [code for code in range(0x800) if Status(code).by_driver] == [0x370, 0x371]
