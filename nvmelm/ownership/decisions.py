"""What becomes of a session that was cut off: for each pair of (this host's record, the other's answer), one act.

This is the only place where it is decided. :mod:`nvmelm.migrate.recovery.settle` carries the acts out,
``docs/ownership.md`` and ``docs/recovery.md`` are printed from here, and a test walks from every pair to its end: no
walk ends with two copies that run.

Each host acts on its own controllers only. So an act of a source is decided by its own state and what the destination
answers, and the other way round; what the two do together is :func:`course`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

from nvmelm.ownership.record import Side, State


class Act(StrEnum):
    """What a host does with its own controllers; the text completes "recover: ...".

    Of those that look first: what they find decides only between the act and an error that changes nothing.
    """

    NOTHING = "nothing"
    CONTRADICT = "nothing: the two contradict each other"
    RUN_AGAIN = "the source runs again"
    RUN_IF_WHOLE = "the source runs again, if its copy is whole"
    RUN_STRICTLY = "the source runs again, if its copy still was suspended"
    TAKE_BACK = "the source writes returning, and runs again"
    TAKE_DOWN = "the source takes its copy down"
    GIVE_WAY = "the source gives the controllers away, if its copy is lost"
    END_LOST = "the source takes its copy down, if that is lost"
    PUT_BACK = "the destination puts its targets back"
    RUN_HERE = "the destination takes and runs them, if it still holds the states"
    RUN_ONLY_ONE = "the destination takes and runs them, whether or not its guest's driver is there"


class Decision(NamedTuple):
    """An act, and why the two records contradict each other where they do."""

    act: Act
    why: str = ""


_WAIT = Decision(Act.NOTHING)
_RUN = Decision(Act.RUN_AGAIN)
_WHOLE = Decision(Act.RUN_IF_WHOLE)
_STRICT = Decision(Act.RUN_STRICTLY)
_BACK = Decision(Act.PUT_BACK)
_HERE = Decision(Act.RUN_HERE)
_ONLY = Decision(Act.RUN_ONLY_ONE)
_YIELD = Decision(Act.GIVE_WAY)
_LOST = Decision(Act.END_LOST)
_DOWN = Decision(Act.TAKE_DOWN)
_RETURN = Decision(Act.TAKE_BACK)
_BOTH = Decision(Act.CONTRADICT, "both hosts run the controllers, or are about to")
_NONE = Decision(Act.CONTRADICT, "the source took its copy down, and the destination has none")
_UNTOLD = Decision(Act.CONTRADICT, "the destination does not know that it holds the states")
_EARLY = Decision(Act.CONTRADICT, "the source gave away what had not arrived")
_UNKNOWN = Decision(Act.CONTRADICT, "the source does not know the session")
_ALIEN = Decision(Act.CONTRADICT, "the other host named a state that its side never has")

#: The order of the columns below; None: the other host never heard of the session.
DESTINATION_STATES = (
    None,
    State.PREPARING,
    State.LOADED,
    State.ACCEPTED,
    State.RUNNING,
    State.ABANDONING,
    State.ABANDONED,
)
SOURCE_STATES = (
    None,
    State.OPEN,
    State.SUSPENDING,
    State.ROLLING_BACK,
    State.GIVEN_AWAY,
    State.DONE,
    State.RETURNING,
    State.TAKING,
    State.ROLLED_BACK,
    State.RETURNED,
    State.TAKEN,
)

# While the destination is abandoning, the source waits: of accepted ones it is not known whether they run, until they
# were put back.
# fmt: off
_SOURCE = {
    #                    never heard  preparing  loaded   accepted  running  abandoning  abandoned
    State.OPEN:         (_RUN,        _RUN,      _WHOLE,  _YIELD,   _LOST,   _WAIT,      _RUN),
    State.SUSPENDING:   (_RUN,        _RUN,      _WHOLE,  _YIELD,   _LOST,   _WAIT,      _RUN),
    State.ROLLING_BACK: (_RUN,        _RUN,      _WHOLE,  _YIELD,   _LOST,   _WAIT,      _RUN),
    State.GIVEN_AWAY:   (_UNTOLD,     _UNTOLD,   _WAIT,   _WAIT,    _DOWN,   _WAIT,      _RETURN),
    State.DONE:         (_WAIT,       _NONE,     _WAIT,   _WAIT,    _WAIT,   _NONE,      _NONE),
    State.RETURNING:    (_RUN,        _RUN,      _STRICT, _BOTH,    _BOTH,   _WAIT,      _RUN),
    State.TAKING:       (_RUN,        _RUN,      _STRICT, _BOTH,    _BOTH,   _WAIT,      _RUN),
    State.ROLLED_BACK:  (_WAIT,       _WAIT,     _WAIT,   _BOTH,    _BOTH,   _WAIT,      _WAIT),
    State.RETURNED:     (_WAIT,       _WAIT,     _WAIT,   _BOTH,    _BOTH,   _WAIT,      _WAIT),
    State.TAKEN:        (_WAIT,       _WAIT,     _WAIT,   _BOTH,    _BOTH,   _WAIT,      _WAIT),
}
# A loaded destination puts nothing back before the source has written that it runs: the source's copy may be lost.
_DESTINATION = {
    #                  never heard open   suspend. rolling given   done   returning taking rolled returned taken
    State.PREPARING:  (_BACK,    _BACK,  _BACK,  _BACK,  _EARLY, _EARLY, _BACK,   _BACK,  _BACK,  _BACK,  _BACK),
    State.LOADED:     (_UNKNOWN, _WAIT,  _WAIT,  _WAIT,  _HERE,  _ONLY,  _WAIT,   _WAIT,  _BACK,  _BACK,  _BACK),
    State.ACCEPTED:   (_UNKNOWN, _WAIT,  _WAIT,  _WAIT,  _HERE,  _ONLY,  _BOTH,   _BOTH,  _BOTH,  _BOTH,  _BOTH),
    State.RUNNING:    (_WAIT,    _WAIT,  _WAIT,  _WAIT,  _WAIT,  _WAIT,  _BOTH,   _BOTH,  _BOTH,  _BOTH,  _BOTH),
    State.ABANDONING: (_BACK,    _BACK,  _BACK,  _BACK,  _BACK,  _BACK,  _BACK,   _BACK,  _BACK,  _BACK,  _BACK),
    State.ABANDONED:  (_WAIT,    _WAIT,  _WAIT,  _WAIT,  _WAIT,  _WAIT,  _WAIT,   _WAIT,  _WAIT,  _WAIT,  _WAIT),
}
# fmt: on

#: By this host's state and the other's.
DECISIONS: Mapping[tuple[Side, State, State | None], Decision] = {
    (side, ours, theirs): decision
    for side, rows, columns in (
        (Side.SOURCE, _SOURCE, DESTINATION_STATES),
        (Side.DESTINATION, _DESTINATION, SOURCE_STATES),
    )
    for ours, decisions in rows.items()
    for theirs, decision in zip(columns, decisions, strict=True)
}
#: What is right whatever the other host has written: it never said loaded, or has abandoned them for good.
WITHOUT_ASKING: Mapping[State, Act] = {
    State.PREPARING: Act.PUT_BACK,
    State.ABANDONING: Act.PUT_BACK,
    State.RETURNING: Act.RUN_AGAIN,
}
#: What is right as long as no operator spoke at the other host, which does not answer.
UNANSWERED: Mapping[State, Act] = {
    State.OPEN: Act.RUN_AGAIN,
    State.SUSPENDING: Act.RUN_IF_WHOLE,
    State.ROLLING_BACK: Act.RUN_IF_WHOLE,
    State.TAKING: Act.RUN_STRICTLY,
    State.ACCEPTED: Act.RUN_HERE,
}
#: What an operator's ``recover --take`` does here, and where there is nothing to be taken it is not said.
TAKE: Mapping[State, Act] = {
    State.GIVEN_AWAY: Act.TAKE_BACK,
    State.LOADED: Act.RUN_HERE,
    State.ACCEPTED: Act.RUN_HERE,
}
#: What an operator's ``recover --give-up`` does here.
GIVE_UP: Mapping[State, Act] = {
    State.SUSPENDING: Act.TAKE_DOWN,
    State.ROLLING_BACK: Act.TAKE_DOWN,
    State.GIVEN_AWAY: Act.TAKE_DOWN,
    State.RETURNING: Act.TAKE_DOWN,
    State.TAKING: Act.TAKE_DOWN,
    State.PREPARING: Act.PUT_BACK,
    State.LOADED: Act.PUT_BACK,
    State.ACCEPTED: Act.PUT_BACK,
    State.ABANDONING: Act.PUT_BACK,
}


def decide(side: Side, ours: State, theirs: State | None) -> Decision:
    """Return what a host does; a state that the other side never has contradicts everything."""
    return DECISIONS.get((side, ours, theirs), _ALIEN)


def written(ours: State, act: Act) -> State:
    """Return the state a host is in once it has done an act."""
    match act:
        case Act.NOTHING | Act.CONTRADICT:
            return ours
        case Act.RUN_AGAIN | Act.RUN_IF_WHOLE | Act.RUN_STRICTLY:
            return {State.RETURNING: State.RETURNED, State.TAKING: State.TAKEN}.get(ours, State.ROLLED_BACK)
        case Act.TAKE_BACK:
            return State.RETURNED
        case Act.TAKE_DOWN | Act.END_LOST:
            return State.DONE
        case Act.GIVE_WAY:
            return State.GIVEN_AWAY
        case Act.PUT_BACK:
            return State.ABANDONED
        case Act.RUN_HERE | Act.RUN_ONLY_ONE:
            return State.RUNNING


class Course(NamedTuple):
    """What the two hosts do, one after the other, and where they stand then."""

    acts: tuple[Act, ...]
    source: State | None
    destination: State | None


def course(source: State | None, destination: State | None) -> Course:
    """Follow two hosts that ask each other until neither has anything to do."""
    acts: list[Act] = []
    while True:
        act = Act.NOTHING
        if source is not None:
            act = decide(Side.SOURCE, source, destination).act
            source = written(source, act)
        if act in (Act.NOTHING, Act.CONTRADICT) and destination is not None:
            other = decide(Side.DESTINATION, destination, source).act
            destination = written(destination, other)
            act = Act.CONTRADICT if Act.CONTRADICT in (act, other) and other is not Act.PUT_BACK else other
        if act in (Act.NOTHING, Act.CONTRADICT):
            return Course((*acts, act) if act is Act.CONTRADICT else tuple(acts), source, destination)
        acts.append(act)
