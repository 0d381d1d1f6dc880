"""A watch tells which VM holds which function, and where that stands; its metrics do as numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nvmelm.emulator.guest.migrating_vm import migrate
from nvmelm.inventory.vm_moves import Moves
from nvmelm.vfio.seam import Refusal
from nvmelm.watch import metrics
from nvmelm.watch.lines import Body, ControllerPart, PrimaryPart
from nvmelm.watch.survey import Looks
from tests.emulated.vfio_world import FIRST, PF, VF, World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def first_look(world: World) -> Looks:
    looks = Looks(world.source)
    list(looks.whole())
    return looks


def standings(bodies: list[Body]) -> list[tuple[int, object]]:
    """Return what is said of functions that move with their VMs, and nothing else may be."""
    parts = [body for body in bodies if isinstance(body, ControllerPart)]
    assert len(parts) == len(bodies)
    assert all(part.after.keys() == {"with_vm"} for part in parts)
    return [(part.cntlid, part.after["with_vm"]) for part in parts]


def test_a_watch_that_begins_tells_who_holds_what(world: World) -> None:
    world.running()
    (first,) = Looks(world.source).whole()
    assert isinstance(first, PrimaryPart)
    standing = {row.cntlid: row.with_vm for row in first.controllers}
    assert "with db1" in standing[FIRST]
    assert "RUNNING since" in standing[FIRST]
    assert "RUNNING to RUNNING took" not in standing[FIRST]
    assert not standing[FIRST + 1]


def test_each_state_is_said_once_and_the_departure_at_the_end(world: World) -> None:
    looks = first_look(world)
    assert list(looks.remembered()) == []
    source, destination = world.running(), world.waiting()
    ((cntlid, opened),) = standings(list(looks.remembered()))
    assert cntlid == FIRST
    assert "with db1" in str(opened)
    source.stop()
    ((_, stopped),) = standings(list(looks.remembered()))
    assert "STOP since" in str(stopped)
    assert " took " in str(stopped)
    assert list(looks.remembered()) == []
    source.start()
    migrate(source, destination)
    world.end(source)
    ((_, left),) = standings(list(looks.remembered()))
    assert "left with its VM db1" in str(left)
    assert list(looks.whole(again=False)) == []


def test_a_vm_that_ended_without_a_word_is_not_said_to_hold_anything(world: World) -> None:
    world.running()
    looks = first_look(world)
    assert len(looks.vms.held) == 1
    moves = Moves(world.source)
    held = moves.held(VF)
    assert held is not None
    moves.hold(replace(held, start=held.start - 1))  # its process is another one's
    assert standings(list(looks.remembered())) == [(FIRST, "")]
    assert looks.vms.held == ()


def test_what_is_known_survives_a_look_at_the_function_alone(world: World) -> None:
    world.running()
    looks = first_look(world)
    assert list(looks.at({PF})) == []
    assert looks.functions[PF].picture.secondaries[0].with_vm


def test_metrics_have_state_arc_and_refusal_of_each_function(world: World) -> None:
    vm = world.running(name='a "vm"\x1b')
    looks = first_look(world)
    vm.stop()
    list(looks.remembered())
    text = metrics.of_host(looks)
    who = f'primary="{PF}",address="{VF}",vm="a \\"vm\\"\\\\x1b"'
    assert f'nvmelm_vm_functions{{{who},state="STOP"}} 1' in text
    assert f'nvmelm_vm_last_arc_seconds{{{who},arc="RUNNING_P2P to STOP"}} 0.' in text
    assert f"nvmelm_vm_refused{{{who}}} 0" in text
    world.source.arm("admin/0x41/1=status:0x4006")
    with pytest.raises(Refusal, match="Internal Error"):
        vm.start()
    list(looks.remembered())
    assert f"nvmelm_vm_refused{{{who}}} 1" in metrics.of_host(looks)
