"""The table of decisions, held against rows typed by hand, and walked from every pair to its end."""

from __future__ import annotations

import pytest

from nvmelm.ownership.decisions import (
    DECISIONS,
    DESTINATION_STATES,
    GIVE_UP,
    SOURCE_STATES,
    TAKE,
    UNANSWERED,
    WITHOUT_ASKING,
    Act,
    course,
    decide,
    written,
)
from nvmelm.ownership.record import NEXT, NOT_OURS, Side, State

#: -: nothing; C: the two contradict each other; S: the source runs again (w: if its copy is whole, s: if it still was
#: suspended, r: returning is written before); g: it gives way if its copy is lost (d: and takes it down); down: it
#: takes its copy down; D: the destination runs them (o: the only copy); B: it puts its targets back.
SOURCE = """
               never  preparing  loaded  accepted  running  abandoning  abandoned
open           S      S          Sw      g         gd       -           S
suspending     S      S          Sw      g         gd       -           S
rolling-back   S      S          Sw      g         gd       -           S
given-away     C      C          -       -         down     -           Sr
done           -      C          -       -         -        C           C
returning      S      S          Ss      C         C        -           S
taking         S      S          Ss      C         C        -           S
rolled-back    -      -          -       C         C        -           -
returned       -      -          -       C         C        -           -
taken          -      -          -       C         C        -           -
"""
DESTINATION = """
            never open suspending rolling-back given-away done returning taking rolled-back returned taken
preparing   B     B    B          B            C          C    B         B      B           B        B
loaded      C     -    -          -            D          Do   -         -      B           B        B
accepted    C     -    -          -            D          Do   C         C      C           C        C
running     -     -    -          -            -          -    C         C      C           C        C
abandoning  B     B    B          B            B          B    B         B      B           B        B
abandoned   -     -    -          -            -          -    -         -      -           -        -
"""
LETTERS = {
    "-": Act.NOTHING,
    "C": Act.CONTRADICT,
    "S": Act.RUN_AGAIN,
    "Sw": Act.RUN_IF_WHOLE,
    "Ss": Act.RUN_STRICTLY,
    "Sr": Act.TAKE_BACK,
    "g": Act.GIVE_WAY,
    "gd": Act.END_LOST,
    "down": Act.TAKE_DOWN,
    "D": Act.RUN_HERE,
    "Do": Act.RUN_ONLY_ONE,
    "B": Act.PUT_BACK,
}
#: In these a host runs the controllers, or may as soon as it acts by itself.
RUNS = {
    State.OPEN,
    State.ROLLED_BACK,
    State.RETURNING,
    State.RETURNED,
    State.TAKING,
    State.TAKEN,
    State.ACCEPTED,
    State.RUNNING,
}
PAIRS = [(source, destination) for source in SOURCE_STATES for destination in DESTINATION_STATES]


@pytest.mark.parametrize(("side", "grid"), [(Side.SOURCE, SOURCE), (Side.DESTINATION, DESTINATION)])
def test_the_table_is_the_one_that_was_agreed_on(side: Side, grid: str) -> None:
    head, *rows = grid.strip().splitlines()
    columns = [None if word == "never" else State(word) for word in head.split()]
    typed = {
        (side, State(ours), theirs): LETTERS[letter]
        for ours, *letters in (row.split() for row in rows)
        for theirs, letter in zip(columns, letters, strict=True)
    }
    assert typed == {pair: decision.act for pair, decision in DECISIONS.items() if pair[0] is side}


@pytest.mark.parametrize(("source", "destination"), PAIRS)
def test_no_course_makes_a_second_copy_that_runs(source: State | None, destination: State | None) -> None:
    walked = course(source, destination)
    if walked.source in RUNS and walked.destination in RUNS:  # words on both hosts have led there before
        assert walked == ((Act.CONTRADICT,), source, destination)


@pytest.mark.parametrize(("source", "destination"), PAIRS)
def test_a_course_that_is_no_contradiction_ends_with_one_copy(source: State | None, destination: State | None) -> None:
    """The last copy of what was given away is never let go by the table, only by a word."""
    walked = course(source, destination)
    if source is None or destination is None or Act.CONTRADICT in walked.acts or destination is State.ABANDONING:
        return
    assert (walked.source in RUNS) != (walked.destination in RUNS)


def test_what_is_written_after_an_act_may_follow() -> None:
    words = [(side, ours, decision.act) for (side, ours, _), decision in DECISIONS.items()]
    alone = [(None, ours, act) for table in (WITHOUT_ASKING, UNANSWERED, TAKE, GIVE_UP) for ours, act in table.items()]
    for _, ours, act in [*words, *alone]:
        seen = {ours}
        while written(ours, act) not in seen and (follow := {after for state in seen for after in NEXT[state]}) - seen:
            seen |= follow
        assert written(ours, act) in seen, (ours, act)


def test_without_a_word_of_the_other_host_nothing_is_run_that_it_may_run() -> None:
    """Where the destination may hold the states, an act without an answer rests on what was written here before."""
    for ours, act in {**WITHOUT_ASKING, **UNANSWERED}.items():
        assert ours not in (State.GIVEN_AWAY, State.LOADED), (ours, act)
    assert {ours for ours in TAKE if ours in NOT_OURS} == set(TAKE)


@pytest.mark.parametrize("theirs", [State.OPEN, State.GIVEN_AWAY, State.TAKEN])
def test_a_state_that_the_other_side_never_has_contradicts_everything(theirs: State) -> None:
    assert decide(Side.SOURCE, State.SUSPENDING, theirs).act is Act.CONTRADICT
    assert decide(Side.DESTINATION, State.LOADED, State.RUNNING).act is Act.CONTRADICT
