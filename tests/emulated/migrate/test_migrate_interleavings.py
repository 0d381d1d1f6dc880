"""Whatever breaks whenever: never two running copies, never none of the state, and ``recover`` ends it.

Each example is one migration under a few faults, then recoveries and an operator's words in some order, each of which
may be cut off or meet a device that refuses, and at last undisturbed recoveries on each host. After every admin command
and every record the invariants are looked at on both hosts.

An operator can bring two copies to run only by words on both hosts, or by taking one where the other host cannot be
asked, although it runs its copy or recovers while nobody answers it either. What is given up may be the last copy.

The guest has I/O queues, or none, as in its firmware. Other verbs are tried on the controllers of an undecided session,
and what a move rests on is replaced under it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nvmelm.emulator.kernel.ioctl import EmulatedQueue
from nvmelm.errors import HostError, NvmelmError, RecordInDoubtError
from nvmelm.inventory.opened import open_primary
from nvmelm.migrate.callouts.points import Points
from nvmelm.ownership.sessions import Sessions
from nvmelm.state import verbs
from tests.emulated.answers import agree
from tests.emulated.migrate.test_records_replaced import DATABASE, REPLACED, keep
from tests.emulated.two_hosts import FIRST, PF, Cut, Killed, World, copy

SEND, RECEIVE, MANAGE = "0x41", "0x42", "0x1c"
SIDES = ("source", "destination")
#: Verbs outside the move, which must leave an undecided copy alone.
VERBS = ("resume", "suspend", "save", "restore")
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
    st.sampled_from(["recover", "take", "give-up", *VERBS]),
    sides,
    st.one_of(st.none(), st.just(ALONE), cuts, device_faults()),
)
record_faults = st.tuples(sides, st.integers(0, 4), st.sampled_from(["full", "kill-before", "kill-after", "doubt"]))
points = st.tuples(
    sides,
    st.sampled_from(["compatible", "prepared", "before-suspend", "source-suspended", "before-give-away", "given-away"]),
    st.sampled_from(["fail", "ctrl-c", "kill"]),
)


#: What is replaced, where, and when: before anything is given away.
replaced = st.tuples(
    sides,
    st.sampled_from(["prepared", "before-suspend", "source-suspended", "before-give-away"]),
    st.sampled_from([*REPLACED, *DATABASE]),
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
    "replaced": None,
    "idle": False,
}
_QUIET = {**GIVEN_UP_IN_PART, "cut": None, "afterwards": []}
#: The source runs again, and neither its disk nor the destination hears of that: its guest has no I/O queues.
RUNS_UNHEARD = {
    **_QUIET,
    "idle": True,
    "cut": Cut("source", 8),
    "point": ("source", "before-give-away", "fail"),
    "record": ("source", 1, "full"),
    "afterwards": [("take", "destination", None)],
}
#: The destination runs, and its disk does not hear of that.
RUNS_UNWRITTEN = {**_QUIET, "idle": True, "record": ("destination", 2, "full")}
#: The source loses its copy when the destination has every state, and before it hears so; or in `recover`.
LOST_UNHEARD = {
    **_QUIET,
    "device": [("source", "admin/0x41/1#1=reset")],
    "cut": Cut("destination", 3),
    "reconnect": True,
}
LOST_IN_RECOVER = {
    **_QUIET,
    "record": ("source", 1, "kill-before"),
    "afterwards": [("recover", "source", ("source", "admin/0x41/1#1=reset"))],
}
#: Another verb resumes, or copies, what a session has not decided about.
RESUMED_BESIDE = {**_QUIET, "record": ("source", 1, "kill-before"), "afterwards": [("resume", "source", None)]}
COPIED_BESIDE = {
    **_QUIET,
    "device": [("destination", "admin/0x41/1#1=raise-before")],
    "afterwards": [("save", "source", None)],
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
        story.update(cut=None, device=[], record=None, point=None, reconnect=False, replaced=None)
        story.update(draw(st.sampled_from(UNDECIDED)))
        story.update(afterwards=draw(st.lists(afterwards, min_size=1, max_size=4)))
    return story


@st.composite
def whatever(draw: st.DrawFn) -> dict[str, Any]:
    kinds = draw(st.lists(st.sampled_from(["cut", "device", "record", "point", "replaced"]), min_size=1, max_size=3))
    return {
        "cut": draw(cuts) if "cut" in kinds else None,
        "device": draw(st.lists(device_faults(), min_size=1, max_size=2)) if "device" in kinds else [],
        "record": draw(record_faults) if "record" in kinds else None,
        "point": draw(points) if "point" in kinds else None,
        "replaced": draw(replaced) if "replaced" in kinds else None,
        "idle": draw(st.booleans()),
        "afterwards": draw(st.lists(afterwards, max_size=4)),
        "reconnect": draw(st.booleans()),
        "last": draw(st.permutations(SIDES)),
    }


class Watcher:
    """Looks at both hosts after everything that could have changed who runs."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.broken: list[str] = []
        self.destroyed: set[str] = set()
        self.idle = False
        self.held: set[str] = set()
        self.spoke: set[str] = set()
        self.took_blindly = False
        self.untrue = False
        self.gave_up = False

    @property
    def dared(self) -> bool:
        """Return whether the operator said what can make two copies run."""
        return self.untrue or len(self.spoke) == len(SIDES)

    def runs(self, side: str) -> bool:
        """Return whether a copy runs there; of a guest without queues, a target that took nothing looks the same."""
        if not self.idle:
            return self.world.runs(side)
        controller = self.world.controller(side)
        taken = side == "source" or {*self.world.states(side)} & {"accepted", "running"}
        return bool(controller["online"] and not controller["suspended"] and taken)

    def look(self) -> None:
        if self.runs("source") and self.runs("destination") and not self.dared:
            self.broken.append("two copies run")
        if self.idle or self.gave_up:
            return
        now = {side for side in SIDES if self.world.holds(side)}
        if not now and not self.destroyed:
            self.broken.append("no copy is left")
        if not now and self.held - self.destroyed:
            self.broken.append("the last copy was taken down, although nothing but the other one was lost")
        if not self.destroyed or {*states(self.world, "destination")} <= {"loaded", "accepted", "running"}:
            self.held = now


def states(world: World, side: str) -> list[str]:
    """Return what a side has written, as far as that can be read: somebody may have replaced it."""
    with suppress(NvmelmError):
        return world.states(side)
    return []


@contextmanager
def watched(world: World, story: dict[str, Any], patch: pytest.MonkeyPatch) -> Iterator[Watcher]:
    watcher = Watcher(world)
    submit, write = EmulatedQueue.submit, Sessions.move
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
        done = write(sessions, record, to, note)
        watcher.look()
        if strikes and fault[2] == "doubt":
            raise RecordInDoubtError("disk I/O error", path="sessions.db", cause="", fix="")
        if strikes and fault[2] == "kill-after":
            raise Killed
        return done

    patch.setattr(EmulatedQueue, "submit", submitted)
    patch.setattr(Sessions, "move", moved)
    try:
        yield watcher
    finally:
        patch.undo()


def point_runner(world: World, story: dict[str, Any], side: str) -> Points:
    def run(point: str, about: Any) -> None:
        if side == "source" and point == "compatible" and story["replaced"] is not None:
            for which in SIDES:
                keep(world.host(which))
        if story["replaced"] is not None and (side, point) == story["replaced"][:2]:
            with suppress(OSError):
                {**REPLACED, **DATABASE}[story["replaced"][2]](world.host(side))
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
        watcher.destroyed |= {side} if line.endswith(DESTROYS) else set()
    with suppress(NvmelmError, Killed, KeyboardInterrupt):
        world.migrate(story["cut"], points=lambda side: point_runner(world, story, side), reconnect=story["reconnect"])
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
            watcher.destroyed |= {trouble[0]} if trouble[1].endswith(DESTROYS) else set()
        if word in VERBS:
            beside(world, word, side, watcher)
            disarm(world)
            continue
        if word != "recover" and states(world, side):
            watcher.spoke.add(side)
            watcher.took_blindly |= word == "take" and silent
            watcher.untrue |= word == "take" and silent and watcher.runs(other)
            watcher.gave_up |= word == "give-up"
        watcher.untrue |= watcher.took_blindly and word == "recover" and silent
        with suppress(NvmelmError, Killed):
            if word == "recover":
                world.recover(side, cut=cut, alone=alone)
            elif states(world, side):
                world.word(word, side, cut=cut, alone=alone)
        disarm(world)


def disarm(world: World) -> None:
    for side in SIDES:
        world.host(side).disarm()


def beside(world: World, verb: str, side: str, watcher: Watcher) -> None:
    """Try a verb outside the move on the controller of a session that is not over: it must be refused."""
    if {*states(world, side)} <= OVER:
        return
    image = world.place / "image"
    try:
        with open_primary(world.host(side), PF, change=True) as pf:
            if verb == "resume":
                verbs.resume(pf, FIRST, confirm=agree)
            elif verb == "suspend":
                verbs.suspend(pf, FIRST, confirm=agree)
            elif verb == "save":
                verbs.save(pf, FIRST, image)
            else:
                verbs.restore(pf, FIRST, image, confirm=agree)
    except (NvmelmError, Killed):  # what strikes may strike this verb as well
        return
    watcher.broken.append(f"state {verb} at the {side} in an undecided session")


def play(story: dict[str, Any], world: World) -> None:
    """Play a story to its end, and look whether all that must hold held."""
    try:
        if not story["idle"]:
            world.start_guest(depth=4, records=8, io_bytes=4096)
        with pytest.MonkeyPatch.context() as patch, watched(world, story, patch) as watcher:
            watcher.idle = story["idle"]
            tell(world, story, watcher)
            for side in story["last"] * 2:
                with suppress(NvmelmError) if told_otherwise(story) else nullcontext():
                    world.recover(side)
        assert not watcher.broken
        if told_otherwise(story):
            return  # nobody can know any more what was written
        states = {side: world.states(side) for side in SIDES}
        if not watcher.destroyed and not watcher.dared and not watcher.took_blindly:
            assert {*states["source"], *states["destination"]} <= OVER, states
        if not watcher.destroyed and not watcher.spoke:
            assert watcher.runs("source") != watcher.runs("destination")
            if "given-away" not in str(states) and "done" not in states["source"]:
                assert watcher.runs("source"), "a move that gave nothing away leaves the source running"
            assert story["idle"] or world.guest_lost_nothing()
    finally:
        world.close()


def told_otherwise(story: dict[str, Any]) -> bool:
    """Return whether the sessions of a host were replaced."""
    return story["replaced"] is not None and story["replaced"][2] in DATABASE


# No clock is in any decision: times are written for people only.
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(story=stories())
@example(story=GIVEN_UP_IN_PART)
@example(story=RUNS_UNHEARD)
@example(story=RUNS_UNWRITTEN)
@example(story=LOST_UNHEARD)
@example(story=LOST_IN_RECOVER)
@example(story=RESUMED_BESIDE)
@example(story=COPIED_BESIDE)
def test_no_interleaving_runs_two_copies_or_loses_the_last(
    story: dict[str, Any], two_hosts: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    play(story, copy(two_hosts, tmp_path_factory.mktemp("story") / "world"))


@pytest.mark.parametrize("idle", [False, True], ids=["queues", "idle"])
@pytest.mark.parametrize("how", [None, ALONE])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("word", ["take", "give-up"])
@pytest.mark.parametrize("undecided", UNDECIDED, ids=["suspending", "given-away", "accepted", "runs"])
def test_one_word_on_one_host_never_runs_two_copies(
    undecided: dict[str, Any], word: str, side: str, how: str | None, idle: bool, two_hosts: Path, tmp_path: Path
) -> None:
    story = {**_QUIET, "last": SIDES, **undecided, "afterwards": [(word, side, how)], "idle": idle}
    play(story, copy(two_hosts, tmp_path / "world"))
