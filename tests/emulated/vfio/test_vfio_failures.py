"""Whatever fails, and wherever an agent is killed: one copy runs, and what is said of it is true.

The failures are ordered by their place: every command that an arc sends, and every record that it writes, each as often
as a move has it, which the last test counts. A command that is lost takes effect and times out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmelm.emulator.guest.migrating_vm import MigratingVm, MigrationFailedError, migrate
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.machine.faults import EmulatedCrash
from nvmelm.host import AdminCommand
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.vm_moves import Moves
from nvmelm.wire.opcodes import Opcode
from tests.emulated.vfio_world import PF, World, refusals, runs

SEND, RECEIVE = Opcode.MIGRATION_SEND, Opcode.MIGRATION_RECEIVE
SUSPEND, RESUME, SET = f"admin/{SEND:#x}/0", f"admin/{SEND:#x}/1", f"admin/{SEND:#x}/2"
GET = f"admin/{RECEIVE:#x}"
#: Who sends what in a move, and how often: the first Get State of a source is its estimate's.
COMMANDS = [("source", SUSPEND, 1), ("source", GET, 2), ("destination", SUSPEND, 2), ("destination", SET, 2),
            ("destination", GET, 5), ("destination", RESUME, 2)]  # fmt: skip
PLACES = [(side, f"{command}#{number}") for side, command, count in COMMANDS for number in range(1, count + 1)]
#: What is written down in a move, in the order of its names; each as often as an arc does.
WRITES = [("source", "hold", 4), ("source", "note", 1), ("destination", "hold", 4), ("destination", "note", 2),
          ("destination", "expect", 1), ("destination", "claim", 1)]  # fmt: skip
WRITTEN = [(side, name, number) for side, name, count in WRITES for number in range(1, count + 1)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def of(world: World, side: str, pair: tuple[MigratingVm, MigratingVm]) -> tuple[EmulatedHost, MigratingVm]:
    return (world.source, pair[0]) if side == "source" else (world.destination, pair[1])


def goes_on(vm: MigratingVm) -> bool:
    """Return whether a guest works on, its I/O and admin commands, and its memory is right."""
    vm.work(30)
    vm.rescan(2)
    report = vm.finish()
    assert report.clean, report
    return bool(report.verified) and runs(vm)


def said(host: EmulatedHost) -> str:
    with open_primary(host, PF) as pf:
        return pf.picture().secondaries[0].with_vm


def one_copy(source: MigratingVm, destination: MigratingVm, world: World) -> None:
    """Assert that a move which failed has left its VM at the source, and a destination that is free of it."""
    assert not runs(destination)
    world.end(destination)  # as a VMM ends that was told of a failure, or was ended with it
    assert not said(world.destination)
    if runs(source):
        assert "RUNNING since" in said(world.source)
        assert goes_on(source)
    else:  # QEMU's last resort is a reset: the guest is told by its controller, and nothing runs behind its back
        assert any(word in said(world.source) for word in ("RUNNING since", "ERROR since"))


@pytest.mark.parametrize("failure", ["status:0x4006", "lose", "errno:EIO"])
@pytest.mark.parametrize(("side", "place"), PLACES)
def test_whatever_command_fails_and_however_one_copy_runs(world: World, side: str, place: str, failure: str) -> None:
    source, destination = pair = world.running(), world.waiting()
    host, _ = of(world, side, pair)
    host.arm(f"{place}={failure}")
    try:
        migrate(source, destination)
    except MigrationFailedError:
        assert refusals(host)
        one_copy(source, destination, world)
    else:
        assert not runs(source)
        assert goes_on(destination)
    host.disarm()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("side", "place"), PLACES)
def test_an_agent_killed_beside_any_command_leaves_one_copy_to_its_successor(
    world: World, side: str, place: str, when: str
) -> None:
    source, destination = pair = world.running(), world.waiting()
    host, vm = of(world, side, pair)
    host.arm(f"{place}=raise-{when}")
    _killed_in_a_move(world, source, destination, vm, host.disarm)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("side", "name", "number"), WRITTEN)
def test_an_agent_killed_beside_any_record_leaves_one_copy_to_its_successor(
    world: World, monkeypatch: pytest.MonkeyPatch, side: str, name: str, number: int, when: str
) -> None:
    source, destination = pair = world.running(), world.waiting()
    host, vm = of(world, side, pair)
    with monkeypatch.context() as patched:
        struck = _kill_at(patched, host, name, number, when)
        _killed_in_a_move(world, source, destination, vm, patched.undo)
    assert struck[name], "the move has fewer records than this test believes"


def _kill_at(patched: pytest.MonkeyPatch, host: EmulatedHost, name: str, number: int, when: str) -> Counter[str]:
    """Have the agent of a host killed before or after it writes something for the n-th time."""
    write: Callable[..., Any] = getattr(Moves, name)
    seen: Counter[str] = Counter()
    struck: Counter[str] = Counter()

    def dying(moves: Moves, *words: Any, **more: Any) -> Any:
        mine = moves._host is host
        seen[name] += mine
        strikes = mine and seen[name] == number
        struck[name] += strikes
        if strikes and when == "before":
            raise EmulatedCrash(when)
        written = write(moves, *words, **more)
        if strikes:
            raise EmulatedCrash(when)
        return written

    patched.setattr(Moves, name, dying)
    return struck


def _killed_in_a_move(
    world: World, source: MigratingVm, destination: MigratingVm, vm: MigratingVm, disarm: Callable[[], None]
) -> None:
    """Move until the agent of one side dies, have another take up its VM, and look who runs."""
    try:
        migrate(source, destination)
    except EmulatedCrash:
        disarm()
        world.restart_agent(vm)
        _nobody_runs_twice(source, destination)
        world.end(destination)  # its VMM was told of a failure, or has ended with it
        source.go_on()
        assert "RUNNING since" in said(world.source)
        assert not said(world.destination)
        assert goes_on(source)
    else:
        disarm()
        assert not runs(source)
        assert goes_on(destination)


def _nobody_runs_twice(source: MigratingVm, destination: MigratingVm) -> None:
    assert not (runs(source) and runs(destination))
    for vm in (source, destination):
        answering = vm.answering
        assert answering is not None
        words = said(vm.host)
        assert f"{answering.state.name} since" in words, words
        if runs(vm) and vm is source:
            assert answering.state.name == "RUNNING", words


def test_these_are_all_the_commands_and_records_of_a_move(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is listed above is what a move does: a command or a record that comes new fails here."""
    source, destination = world.running(), world.waiting()
    sent: Counter[tuple[str, str]] = Counter()
    written: Counter[tuple[str, str]] = Counter()
    for side, host in (("source", world.source), ("destination", world.destination)):
        _count_commands(monkeypatch, host, side, sent)
    for name in ("hold", "note", "expect", "claim"):
        _count_records(monkeypatch, world, name, written)
    migrate(source, destination)
    assert sent == Counter({(side, command): count for side, command, count in COMMANDS})
    assert written == Counter({(side, name): count for side, name, count in WRITES})


def _count_commands(patched: pytest.MonkeyPatch, host: EmulatedHost, side: str, sent: Counter[tuple[str, str]]) -> None:
    open_queue = host.open_queue

    def counting(*words: Any, **more: Any) -> Any:
        queue = open_queue(*words, **more)
        submit = queue.submit

        def submitted(command: AdminCommand, *rest: Any, **options: Any) -> Any:
            if command.opcode in (SEND, RECEIVE):
                place = f"admin/{command.opcode:#x}"
                sent[side, place + (f"/{command.cdw10 & 0xFF}" if command.opcode == SEND else "")] += 1
            return submit(command, *rest, **options)

        patched.setattr(queue, "submit", submitted)
        return queue

    patched.setattr(host, "open_queue", counting)


def _count_records(patched: pytest.MonkeyPatch, world: World, name: str, written: Counter[tuple[str, str]]) -> None:
    write: Callable[..., Any] = getattr(Moves, name)

    def counting(moves: Moves, *words: Any, **more: Any) -> Any:
        written["source" if moves._host is world.source else "destination", name] += 1
        return write(moves, *words, **more)

    patched.setattr(Moves, name, counting)
