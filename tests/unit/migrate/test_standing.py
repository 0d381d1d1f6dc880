"""How a copy stands that a session counts on: whole, lost for certain, or nobody can say."""

from __future__ import annotations

from itertools import combinations_with_replacement

import pytest

from nvmelm.migrate.recovery.standing import Standing, lost, whole

WHOLE = {Standing.SUSPENDED, Standing.UNCHANGED, Standing.RUNS, Standing.UNTOLD}
GONE = {Standing.GONE, Standing.OFFLINE}


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_copy_is_whole_when_each_of_its_controllers_is(number: int) -> None:
    for standings in combinations_with_replacement(Standing, number):
        assert whole(dict(enumerate(standings))) is all(standing in WHOLE for standing in standings), standings


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_copy_is_lost_for_certain_when_a_controller_is_and_none_may_run(number: int) -> None:
    for standings in combinations_with_replacement(Standing, number):
        nothing_runs = all(standing in GONE | {Standing.SUSPENDED} for standing in standings)
        expected = nothing_runs and any(standing in GONE for standing in standings)
        assert lost(dict(enumerate(standings))) is expected, standings
