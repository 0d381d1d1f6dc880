"""A mark ends at its second and not one before, and says who gave it if that is a name."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

import pytest

from nvmelm.inventory import marks
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Mark, Role
from nvmelm.prepare import sequence
from tests.emulated.answers import agree
from tests.emulated.conftest import MakeHost

PF = "0000:01:00.0"
GIVEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Clock(datetime):
    """A clock that stands where a test puts it."""

    at = GIVEN

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Clock:
        return cls.fromtimestamp(cls.at.timestamp(), tz)


def given(make_host: MakeHost, later: timedelta, monkeypatch: pytest.MonkeyPatch) -> Mark | None:
    """Return a mark of 60 s as it is seen that much later."""
    host = make_host()
    with open_primary(host, PF, change=True) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 1, confirm=agree)
        monkeypatch.setattr(marks, "datetime", Clock)
        picture = pf.picture()
        marks.give(host, picture, picture.secondaries[0], Role.MIGRATABLE, valid_s=60)
        monkeypatch.setattr(Clock, "at", GIVEN + later)
        return marks.look(host, picture, picture.secondaries[0])


@pytest.mark.parametrize(("seconds", "holds"), [(59.999, True), (60, False), (61, False)])
def test_a_mark_holds_up_to_the_second_it_ends_at(
    seconds: float, holds: bool, make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = given(make_host, timedelta(seconds=seconds), monkeypatch)
    assert mark
    assert mark.holds is holds


@pytest.mark.parametrize(("length", "kept"), [(1, True), (32, True), (33, False), (0, False)])
def test_a_mark_names_the_user_behind_sudo_in_up_to_32_characters(
    length: int, kept: bool, make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "u" * length)
    mark = given(make_host, timedelta(), monkeypatch)
    assert mark
    assert (mark.given_by == "u" * length) is kept
