"""Whatever breaks whenever: never two running copies, never none of the state, and ``recover`` ends it.

Each example is one migration under a few faults, then recoveries and an operator's words in some order, each of which
may be cut off or meet a device that refuses, and at last undisturbed recoveries on each host. After every admin command
and every record the invariants are looked at on both hosts.

An operator can bring two copies to run only by words on both hosts, or by taking one where the other host cannot be
asked, although it runs its copy or recovers while nobody answers it either. What is given up may be the last copy.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nvmelm.emulator.queue import EmulatedQueue
from nvmelm.errors import HostError, NvmelmError
from nvmelm.migrate.points import Points
from nvmelm.operations.ownership import DOUBTFUL, Sessions
from tests.emulated.two_hosts import Cut, Killed, World, copy

SEND, RECEIVE, MANAGE = "0x41", "0x42", "0x1c"
SIDES = ("source", "destination")
#: Faults that take the state of a controller away, so that no manager can keep it.
DESTROYS = ("reset", "lose")
OVER = {"done", "rolled-back", "returned", "taken", "running", "abandoned"}

sides = st.sampled_from(SIDES)
cuts = st.builds(Cut, side=sides, at=st.integers(0, 12), after=st.booleans(), kill=st.booleans())
places = st.sampled_from(
    ["admin/0x41/0", "admin/0x41/1", "admin/0x41/2", "admin/0x42", "admin/0x1c", "admin/0x06", "admin/*"]
)
actions = st.sampled_from(
    [
        "status:0x4006",  # Internal Error, do not retry
        "status:0x0006",
        "status:0x000c",  # Command Sequence Error
        "status:0x011f",
        "raise-before:killed",
        "raise-after:killed",
        "lose",
        "reset",
        "errno:EIO",
    ]
)


@st.composite
def device_faults(draw: st.DrawFn) -> tuple[str, str]:
    where, number, action = draw(places), draw(st.integers(1, 8)), draw(actions)
    return draw(sides), f"{where.replace('/*', '')}#{number}={action.replace(':killed', '')}"


#: What is done after the migration, where, and what goes wrong then; ALONE: the other host is not asked.
ALONE = "alone"
afterwards = st.tuples(
    st.sampled_from(["recover", "take", "give-up"]), sides, st.one_of(st.none(), st.just(ALONE), cuts, device_faults())
)
record_faults = st.tuples(sides, st.integers(0, 4), st.sampled_from(["full", "kill-before", "kill-after", "doubt"]))
points = st.tuples(
    sides,
    st.sampled_from(["compatible", "prepared", "before-suspend", "source-suspended", "before-give-away", "given-away"]),
    st.sampled_from(["fail", "ctrl-c", "kill"]),
)


#: A giving up of which the device refused a part: nobody ran the session any more, and nobody ended it.
GIVEN_UP_IN_PART: dict[str, Any] = {
    "cut": Cut("source", 8),
    "device": [],
    "record": None,
    "point": None,
    "afterwards": [("give-up", "destination", ("destination", "admin/0x1c#2=status:0x4006"))],
    "reconnect": False,
    "last": ["source", "destination"],
}
#: Where a migration is undecided on both hosts, each with what the operator's words begin from.
UNDECIDED: list[dict[str, Any]] = [
    {"record": ("source", 1, "kill-before")},  # suspending, loaded
    {"cut": Cut("source", 8)},  # given-away, loaded
    {"device": [("destination", "admin/0x41/1#1=raise-before")]},  # given-away, accepted; not resumed
    {"device": [("destination", "admin/0x41/1#1=raise-after")]},  # given-away, accepted; running
]


@st.composite
def stories(draw: st.DrawFn) -> dict[str, Any]:
    """Return what goes wrong in one example: anything, or what makes an operator speak."""
    story = draw(whatever())
    if draw(st.booleans()):
        story.update(cut=None, device=[], record=None, point=None, reconnect=False)
        story.update(draw(st.sampled_from(UNDECIDED)))
        story.update(afterwards=draw(st.lists(afterwards, min_size=1, max_size=4)))
    return story


@st.composite
def whatever(draw: st.DrawFn) -> dict[str, Any]:
    kinds = draw(st.lists(st.sampled_from(["cut", "device", "record", "point"]), min_size=1, max_size=2))
    return {
        "cut": draw(cuts) if "cut" in kinds else None,
        "device": draw(st.lists(device_faults(), min_size=1, max_size=2)) if "device" in kinds else [],
        "record": draw(record_faults) if "record" in kinds else None,
        "point": draw(points) if "point" in kinds else None,
        "afterwards": draw(st.lists(afterwards, max_size=4)),
        "reconnect": draw(st.booleans()),
        "last": draw(st.permutations(SIDES)),
    }


class Watcher:
    """Looks at both hosts after everything that could have changed who runs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.broken: list[str] = []
        self.destroyed = False
        self.spoke: set[str] = set()
        self.took_blindly = False
        self.untrue = False
        self.gave_up = False

    @property
    def dared(self) -> bool:
        """Return whether the operator said what can make two copies run."""
        return self.untrue or len(self.spoke) == len(SIDES)

    def look(self) -> None:
        world = self.world
        if world.runs("source") and world.runs("destination") and not self.dared:
            self.broken.append("two copies run")
        if not self.destroyed and not self.gave_up and not (world.holds("source") or world.holds("destination")):
            self.broken.append("no copy is left")


@contextmanager
def watched(world: World, story: dict[str, Any], patch: pytest.MonkeyPatch) -> Iterator[Watcher]:
    watcher = Watcher(world)
    submit, move = EmulatedQueue.submit, Sessions.move
    written = {side: itertools.count() for side in SIDES}

    def submitted(queue: EmulatedQueue, command: Any) -> Any:
        try:
            return submit(queue, command)
        finally:
            watcher.look()

    def moved(sessions: Sessions, record: Any, to: Any, note: str = "") -> Any:
        number, fault = next(written[record.side]), story["record"]
        strikes = fault is not None and (record.side, number) == (fault[0], fault[1])
        if strikes and fault[2] == "full":
            raise HostError("database or disk is full", reason="sessions-unwritable")
        if strikes and fault[2] == "kill-before":
            raise Killed
        done = move(sessions, record, to, note)
        watcher.look()
        if strikes and fault[2] == "doubt":
            raise HostError("disk I/O error", reason=DOUBTFUL)
        if strikes and fault[2] == "kill-after":
            raise Killed
        return done

    patch.setattr(EmulatedQueue, "submit", submitted)
    patch.setattr(Sessions, "move", moved)
    try:
        yield watcher
    finally:
        patch.undo()


def point_runner(story: dict[str, Any], side: str) -> Points:
    def run(point: str, told: Any) -> None:
        fault = story["point"]
        if fault is None or (side, point) != (fault[0], fault[1]):
            return
        if fault[2] == "kill":
            raise Killed
        if fault[2] == "ctrl-c":
            raise KeyboardInterrupt
        raise NvmelmError("a callout failed")

    return Points(run, side)


def tell(world: World, story: dict[str, Any], watcher: Watcher) -> None:
    """Migrate under the story's faults, and recover as it says."""
    for side, line in story["device"]:
        world.host(side).arm(line)
        watcher.destroyed |= line.endswith(DESTROYS)
    with suppress(NvmelmError, Killed, KeyboardInterrupt):
        world.migrate(story["cut"], points=lambda side: point_runner(story, side), reconnect=story["reconnect"])
    for side in SIDES:
        world.host(side).disarm()
    story["record"] = None
    for word, side, trouble in story["afterwards"]:
        cut = trouble if isinstance(trouble, Cut) else None
        alone = trouble == ALONE
        silent = alone or cut is not None or "raise" in str(trouble)  # it may be that nobody answers
        other = SIDES[1 - SIDES.index(side)]
        if isinstance(trouble, tuple):
            world.host(trouble[0]).arm(trouble[1])
            watcher.destroyed |= trouble[1].endswith(DESTROYS)
        if word != "recover" and world.states(side):
            watcher.spoke.add(side)
            watcher.took_blindly |= word == "take" and silent
            watcher.untrue |= word == "take" and silent and world.runs(other)
            watcher.gave_up |= word == "give-up"
        watcher.untrue |= watcher.took_blindly and word == "recover" and silent
        with suppress(NvmelmError, Killed):
            if word == "recover":
                world.recover(side, cut=cut, alone=alone)
            elif world.states(side):
                world.word(word, side, cut=cut, alone=alone)
        for one in SIDES:
            world.host(one).disarm()


def play(story: dict[str, Any], world: World) -> None:
    """Play a story to its end, and look whether all that must hold held."""
    try:
        world.start_guest(depth=4, records=8, io_bytes=4096)
        with pytest.MonkeyPatch.context() as patch, watched(world, story, patch) as watcher:
            tell(world, story, watcher)
            for side in story["last"] * 2:
                world.recover(side)
        assert not watcher.broken
        states = {side: world.states(side) for side in SIDES}
        if not watcher.destroyed and not watcher.dared and not watcher.took_blindly:
            assert {*states["source"], *states["destination"]} <= OVER, states
        if not watcher.destroyed and not watcher.spoke:
            assert world.runs("source") != world.runs("destination")
            if "given-away" not in str(states) and "done" not in states["source"]:
                assert world.runs("source"), "a move that gave nothing away leaves the source running"
            assert world.guest_lost_nothing()
    finally:
        world.close()


# No clock is in any decision: times are written for people only.
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(story=stories())
@example(story=GIVEN_UP_IN_PART)
def test_no_interleaving_runs_two_copies_or_loses_the_last(
    story: dict[str, Any], two_hosts: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    play(story, copy(two_hosts, tmp_path_factory.mktemp("story") / "world"))


@pytest.mark.parametrize("how", [None, ALONE])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("word", ["take", "give-up"])
@pytest.mark.parametrize("undecided", UNDECIDED, ids=["suspending", "given-away", "accepted", "runs"])
def test_one_word_on_one_host_never_runs_two_copies(
    undecided: dict[str, Any], word: str, side: str, how: str | None, two_hosts: Path, tmp_path: Path
) -> None:
    nothing: dict[str, Any] = {
        "cut": None,
        "device": [],
        "record": None,
        "point": None,
        "reconnect": False,
        "last": SIDES,
    }
    play({**nothing, **undecided, "afterwards": [(word, side, how)]}, copy(two_hosts, tmp_path / "world"))
