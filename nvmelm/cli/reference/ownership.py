"""The table of decisions as the pages show it: what two hosts do for each pair of states, and what one does alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from nvmelm.ownership.decisions import (
    DESTINATION_STATES,
    GIVE_UP,
    SOURCE_STATES,
    TAKE,
    UNANSWERED,
    WITHOUT_ASKING,
    Act,
    course,
)
from nvmelm.ownership.record import NEXT, State

_NOTHING = "\N{EN DASH}"
#: S is the source's copy, D the destination's; the numbers are those of the notes below the table.
_SHORT = {
    Act.NOTHING: _NOTHING,
    Act.CONTRADICT: "C",
    Act.RUN_AGAIN: "S runs",
    Act.RUN_IF_WHOLE: "S runs ¹",
    Act.RUN_STRICTLY: "S runs ³",
    Act.TAKE_BACK: "S runs ³",
    Act.TAKE_DOWN: "S is taken down",
    Act.GIVE_WAY: "C ²",
    Act.END_LOST: "C ²",
    Act.PUT_BACK: "D puts back",
    Act.RUN_HERE: "D runs ³",
    Act.RUN_ONLY_ONE: "D runs ³",
}
_UNKNOWN = "nothing: `session-unknown`"
_NEVER = "never heard of it"
_Cell = Callable[[State | None, State | None], str]


def pairs() -> Iterator[tuple[str, ...]]:
    """Return the head and the rows of what the two do, from every pair of states."""
    yield ("Source ↓ Destination →", *map(_name, DESTINATION_STATES))
    for sources, cells in _rows(_short):
        yield (", ".join(map(_name, sources)), *cells)


def alone() -> Iterator[tuple[str, ...]]:
    """Return the head and the rows of what a host does when nobody answers, and on an operator's word."""
    yield ("Here", "What `recover` does", "`--take` here", "`--give-up` here")
    for state in State:
        if NEXT[state]:
            yield (_name(state), _unanswered(state), _taken(state), _given_up(state))


def courses() -> Iterator[tuple[str, ...]]:
    """Return the head and the rows of what ``recover`` does, in words."""
    yield ("Source", "Destination", "What `recover` does")
    for sources, cells in _rows(_sentence):
        for sentence in dict.fromkeys(cells):
            if sentence != Act.NOTHING:
                destinations = (
                    state for state, cell in zip(DESTINATION_STATES, cells, strict=True) if cell == sentence
                )
                yield (", ".join(map(_name, sources)), ", ".join(map(_name, destinations)), sentence)


def _rows(cell: _Cell) -> Iterator[tuple[Sequence[State | None], tuple[str, ...]]]:
    """Return the source's states whose rows are the same, with that row."""
    sources = [*SOURCE_STATES[1:], None]
    for row, same in groupby(sources, lambda source: tuple(cell(source, theirs) for theirs in DESTINATION_STATES)):
        yield [*same], row


def _name(state: State | None) -> str:
    return f"`{state}`" if state else _NEVER


def _short(source: State | None, destination: State | None) -> str:
    acts = course(source, destination).acts
    if acts and acts[0] in (Act.GIVE_WAY, Act.END_LOST):
        return _SHORT[acts[0]]
    if acts == (Act.CONTRADICT,) and None in (source, destination):
        return _UNKNOWN
    text = ", then ".join(_SHORT[act] for act in acts) or _SHORT[Act.NOTHING]
    return f"{text} ⁴" if acts == (Act.CONTRADICT,) and destination in WITHOUT_ASKING else text


def _sentence(source: State | None, destination: State | None) -> str:
    acts = course(source, destination).acts
    if acts == (Act.CONTRADICT,) and None in (source, destination):
        return "nothing: who never heard of it lost its state directory, or is another host; exit 9"
    return "; then ".join(f"{act}; exit 9" if act is Act.CONTRADICT else act for act in acts) or Act.NOTHING


def _unanswered(state: State) -> str:
    act = WITHOUT_ASKING.get(state, UNANSWERED.get(state))
    if act is None:
        return "nothing, exit 9"
    if act is Act.RUN_IF_WHOLE:
        return "S runs, if it is still there"
    return "S runs ³" if state is State.RETURNING else _SHORT[act]


def _taken(state: State) -> str:
    if state not in TAKE:
        return _NOTHING
    if State.TAKING in NEXT[state]:
        return "S runs: `taking`, `taken` ³"
    return "D runs: `accepted`, `running` ³" if State.ACCEPTED in NEXT[state] else _SHORT[TAKE[state]]


def _given_up(state: State) -> str:
    match GIVE_UP.get(state):
        case Act.TAKE_DOWN:
            return "S is taken down: " + ("`done`" if State.DONE in NEXT[state] else "`given-away`, `done`")
        case Act.PUT_BACK:
            return "D puts back" + (": `abandoning`, `abandoned`" if State.ABANDONING in NEXT[state] else "")
        case _:
            return _NOTHING
