"""A VM moves with its function between two emulated hosts, in QEMU's order, and its guest does not notice."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmelm import cli
from nvmelm.compat.policy import Policy
from nvmelm.emulator.guest.guest import Guest
from nvmelm.emulator.guest.migrating_vm import MigratingVm, MigrationFailedError, MigrationState, migrate
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.kernel.bar import BUS_MASTER, MEMORY_DECODE
from nvmelm.emulator.machine.faults import EmulatedCrash
from nvmelm.emulator.machine.generations import NVME_2_1, TP4159, NamespaceRow
from nvmelm.errors import BusyError, HostError, MalformedError
from nvmelm.inventory import marks
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.inventory.vm_moves import Moves
from nvmelm.migrate.gate import choose
from nvmelm.prepare import release
from nvmelm.state import restore as state_restore
from nvmelm.state import verbs
from nvmelm.vfio.functions import HostFunctions
from nvmelm.vfio.loading import Loader
from nvmelm.vfio.options import Options
from nvmelm.vfio.seam import Refusal
from nvmelm.wire.opcodes import Opcode
from tests.emulated.answers import agree
from tests.emulated.vfio_world import FIRST, PF, SECOND, VF, World, events, refusals, runs, untouched

_OTHER_FIRMWARE = """
schema = "nvmelm.policy"
version = 1
[[pin]]
fact = "identity.firmware"
values = ["9.9"]
why = "a test"
"""

Make = Callable[..., World]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make worlds; each is closed at the end."""
    made: list[World] = []

    def new(*args: Any, **values: Any) -> World:
        made.append(World(tmp_path / f"{len(made)}", *args, **values))
        return made[-1]

    yield new
    for world in made:
        world.close()


@pytest.fixture
def world(make: Make) -> World:
    return make()


def carry(source: MigratingVm, destination: MigratingVm) -> None:
    """Copy the guest's memory."""
    assert source.guest is not None
    source.guest.freeze()
    destination.function.memory.write(0, source.function.memory.read(0, source.function.memory.size))


def taken_over(source: MigratingVm, destination: MigratingVm) -> None:
    """Have the guest run at the destination."""
    destination.guest, source.guest = Guest.thaw(destination.host, destination.function), None


def goes_on(vm: MigratingVm) -> bool:
    """Return whether a guest works on without having noticed anything: I/O, admin commands, its memory."""
    vm.work(30)
    vm.rescan(3)
    report = vm.finish()
    assert report.clean, report
    return bool(report.verified) and runs(vm)


def load(source: MigratingVm, destination: MigratingVm, *, with_memory: bool = False) -> None:
    """Have the destination take the state of a source that leaves, and its guest's memory where that is wanted."""
    source.begin()
    data = source.save()
    destination.reset()
    if with_memory:
        carry(source, destination)
    destination.load(data, source.configuration)


def fails(source: MigratingVm, destination: MigratingVm) -> str:
    with pytest.raises(MigrationFailedError) as failure:
        migrate(source, destination)
    return str(failure.value)


@pytest.mark.parametrize(("sq", "cq"), [(32, 32), (64, 256), (16, 64), (64, 16), (31, 32), (33, 17)])
@pytest.mark.parametrize("commands", [0, 7, 40, 150])
def test_the_guest_s_driver_goes_on_where_its_admin_queue_was(make: Make, sq: int, cq: int, commands: int) -> None:
    world = make()
    source, destination = world.running(admin=(sq, cq)), world.waiting()
    source.rescan(commands)
    migrate(source, destination)
    assert goes_on(destination)


def test_an_event_after_the_move_comes_under_the_identifier_it_was_asked_for_with(world: World) -> None:
    source, destination = world.running(events=3), world.waiting()
    migrate(source, destination)
    for number in (1, 2, 3):
        destination.bar.event(number)
    destination.reap()
    assert destination.admin.events == [1, 2, 3]
    assert sorted(destination.admin.sent) == ["31", "32", "33"]
    assert goes_on(destination)


def test_more_event_requests_than_the_destination_keeps_are_refused_before_it_is_touched(make: Make) -> None:
    one_alone = tuple((at, "0300" if at == 258 else raw) for at, raw in NVME_2_1.identify)
    world = make(NVME_2_1, there=NVME_2_1.with_(identify=one_alone))
    source, destination = world.running(events=3), world.waiting()
    assert "3 event requests outstanding" in fails(source, destination)
    assert goes_on(source)
    assert untouched(destination)


def refused_in_writing(source: MigratingVm, destination: MigratingVm, change: Callable[[bytes], bytes]) -> str:
    """Return why a state was refused while the VMM wrote it, when the source can still go on."""
    destination.reset()
    destination.expect()
    source.begin()
    data = change(source.save())
    with pytest.raises(Refusal) as refusal:
        destination.load(data, source.configuration)
    source.go_on()
    return refusal.value.reason


def test_whatever_is_known_before_the_controller_is_touched_is_refused_before_the_vmm_has_written_all(
    make: Make,
) -> None:
    one_alone = tuple((at, "0300" if at == 258 else raw) for at, raw in NVME_2_1.identify)
    world = make(NVME_2_1, there=NVME_2_1.with_(identify=one_alone))
    source, destination = world.running(events=3), world.waiting()
    assert "3 event requests outstanding" in refused_in_writing(source, destination, lambda data: data)
    assert goes_on(source)

    world = make()
    source, destination = world.running(), world.waiting()
    last = -131072 - 1  # byte of the image: the padding is behind it
    reason = refused_in_writing(
        source, destination, lambda data: data[:last] + bytes([data[last] ^ 1]) + data[last + 1 :]
    )
    assert "altered" in reason
    assert goes_on(source)
    assert untouched(destination)


def test_a_state_that_the_controller_does_not_take_is_refused_before_the_vmm_has_written_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfit(*_: object) -> list[state_restore.Mismatch]:
        return [state_restore.Mismatch("state-version-unknown", "of version 9")]

    source, destination = world.running(), world.waiting()
    monkeypatch.setattr(state_restore, "refusals", unfit)
    assert "version 9" in refused_in_writing(source, destination, lambda data: data)
    assert goes_on(source)
    assert untouched(destination)


def test_nothing_is_kept_of_a_state_that_was_refused(world: World) -> None:
    source, destination = world.running(), world.waiting()
    source.begin()
    data = source.save()
    spools = open_files(world.destination)
    destination.expect()
    with pytest.raises(Refusal, match="not of nvmelm"):
        destination.load(data[::-1], source.configuration)
    with pytest.raises(Refusal, match="not of nvmelm"):
        destination.set(MigrationState.STOP)
    assert open_files(world.destination) == spools


def test_only_a_state_that_has_arrived_whole_keeps_its_vm_from_starting_here(world: World) -> None:
    """A VMM that gives up half way must live to say so."""
    source, destination = world.running(), world.waiting()
    source.begin()
    data = source.save()
    for part in (b"", data[:100], data[: len(data) // 2]):
        destination.reset()
        destination.expect()
        destination.load(part, source.configuration)
        with pytest.raises(Refusal) as refusal:
            destination.set(MigrationState.STOP)
        assert not refusal.value.ends_vm
    destination.reset()
    carry(source, destination)
    destination.load(data, source.configuration)
    world.destination.arm("admin/0x41/2*2=status:0x4006")
    with pytest.raises(Refusal) as refusal:
        destination.start()
    assert refusal.value.ends_vm
    source.go_on()
    assert goes_on(source)


def test_a_vm_one_of_whose_functions_runs_here_already_is_not_ended(make: Make) -> None:
    world = make(NVME_2_1.with_(namespaces=(NamespaceRow(nsid=1), NamespaceRow(nsid=2))))
    pairs = [(world.running(bdf=bdf, nsid=nsid), world.waiting(bdf)) for bdf, nsid in ((VF, 1), (SECOND, 2))]
    for source, destination in pairs:
        source.begin()
        data = source.save()
        destination.reset()
        carry(source, destination)
        destination.load(data, source.configuration)
        destination.set(MigrationState.RUNNING_P2P)
    pairs[0][1].set(MigrationState.RUNNING)
    world.destination.arm("admin/0x41/1=status:0x4006")
    with pytest.raises(Refusal) as refusal:
        pairs[1][1].set(MigrationState.RUNNING)
    assert not refusal.value.ends_vm


def test_a_source_whose_state_was_read_says_how_its_vm_goes_on_here(world: World) -> None:
    source, _ = world.running(), world.waiting()
    source.begin()
    source.save()
    source.set(MigrationState.STOP)
    with open_primary(world.source, PF) as pf:
        said = pf.picture().secondaries[0].with_vm
        assert "unless the VM runs at the destination, it goes on here by cont" in said
        source.start()
        source.stop()
        assert "cont" not in pf.picture().secondaries[0].with_vm
    source.start()
    assert goes_on(source)


def open_files(host: EmulatedHost) -> list[str]:
    """Return the unnamed files below a host's state directory that this process has open."""
    links = [entry for entry in Path("/proc/self/fd").iterdir() if os.path.lexists(entry)]
    return sorted(file for link in links if (file := str(link.readlink())).startswith(f"{host.state_dir}/#"))


def test_a_completion_that_the_guest_had_not_taken_is_there_after_the_move(world: World) -> None:
    source, destination = world.running(), world.waiting()
    source.rescan(40)
    cid = source.admin.put(source.function.memory, Opcode.GET_FEATURES, cdw10=7)
    source.bar.write32(0x1000, source.admin.sq_tail)
    migrate(source, destination)
    destination.reap()
    assert destination.admin.take(cid) == [0, 1 << 16 | 1]
    assert goes_on(destination)


def test_an_event_request_the_ring_does_not_show_any_more_is_not_lost(world: World) -> None:
    source, destination = world.running(), world.waiting()
    source.rescan(80)
    migrate(source, destination)
    destination.bar.event(0x10002)
    destination.reap()
    assert destination.admin.events == [0x10002]
    assert "substitute" in refusals(world.destination)
    assert goes_on(destination)


def test_an_event_while_the_controller_is_wound_reaches_the_guest(world: World) -> None:
    source, destination = world.running(), world.waiting()
    load(source, destination, with_memory=True)
    written = destination.bar.write32

    def write(offset: int, value: int) -> None:
        written(offset, value)
        if offset == 0x14 and value & 1:
            destination.bar.event(7)

    destination.bar.write32 = write  # type: ignore[method-assign]
    destination.start()
    taken_over(source, destination)
    destination.bar.write32 = written  # type: ignore[method-assign]
    destination.reap()
    assert destination.admin.events == [7]
    assert goes_on(destination)


def test_a_controller_that_gets_ready_late_is_waited_for(make: Make) -> None:
    world = make(NVME_2_1.with_(ready_reads=5))
    source, destination = world.running(), world.waiting()
    migrate(source, destination)
    assert goes_on(destination)


def test_a_controller_that_never_gets_ready_refuses_and_the_source_goes_on(make: Make) -> None:
    never = NVME_2_1.with_(ready_reads=-1, ready_timeout=1)
    world = make(NVME_2_1, there=never)
    source, destination = world.running(), world.waiting()
    assert "get ready" in fails(source, destination)
    assert goes_on(source)
    assert destination.answering is not None
    assert destination.answering.state == MigrationState.ERROR
    assert untouched(destination)


def test_doorbells_are_where_the_controller_has_them(make: Make) -> None:
    world = make(NVME_2_1.with_(doorbell_stride=2))
    source, destination = world.running(), world.waiting()
    source.rescan(40)
    migrate(source, destination)
    assert goes_on(destination)


def test_state_is_set_when_the_vmm_has_restored_the_vectors(make: Make) -> None:
    world = make(NVME_2_1.with_(vectors_before_queues=True))
    source, destination = world.running(), world.waiting()
    migrate(source, destination)
    destination.work(30)
    destination.rescan(2)
    with destination.function.port() as port:
        assert port is not None
        assert port.io is not None
        assert port.io.get("dead", []) == []
        assert set(port.io["raised"]) == {"0", "1"}
    assert goes_on(destination)


def test_a_controller_that_restores_its_admin_queue_itself_is_left_alone(make: Make) -> None:
    world = make(NVME_2_1.with_(restores_admin_queue=True))
    source, destination = world.running(events=2), world.waiting()
    source.rescan(5)
    migrate(source, destination)
    with destination.function.port() as port:
        assert port is not None
        assert port.io is not None
        assert port.io["admin"]["requests"] == [31, 32]
    assert goes_on(destination)


def test_what_a_kind_of_device_does_is_found_out_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[object] = []
    restores = Loader._restores_by_itself
    monkeypatch.setattr(Loader, "_restores_by_itself", lambda *all_: tries.append(all_) or restores(*all_))
    functions = HostFunctions(world.destination)
    for bdf in (VF, SECOND):
        source, destination = world.running(bdf=bdf), world.vm(world.destination, bdf)
        destination.answering = functions.open(world.opening(destination))
        migrate(source, destination)
    assert len(tries) == 1


def test_what_a_kind_of_device_does_is_known_to_the_next_agent(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make()
    for tries in (1, 0):
        tried: list[object] = []
        with monkeypatch.context() as patched:
            restores = Loader._restores_by_itself
            patched.setattr(Loader, "_restores_by_itself", lambda *all_: tried.append(all_) or restores(*all_))  # noqa: B023
            bdf = VF if tries else SECOND
            source, destination = world.running(bdf=bdf), world.waiting(bdf)  # each with an agent of its own
            migrate(source, destination)
            assert goes_on(destination)
        assert len(tried) == tries


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"format": 1, "restores_admin_queue": [1]}'])
def test_a_note_of_habits_that_makes_no_sense_is_found_out_anew(world: World, text: str) -> None:
    path = world.destination.state_dir / "vm" / "habits.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    source, destination = world.running(), world.waiting()
    migrate(source, destination)
    assert goes_on(destination)
    assert list(json.loads(path.read_text())["restores_admin_queue"].values()) == [False]


def test_without_vendor_state_the_registers_are_written_first(make: Make) -> None:
    world = make(TP4159)
    source, destination = world.running(), world.waiting()
    migrate(source, destination)
    assert goes_on(destination)


def test_a_controller_that_is_off_moves_without_a_state(world: World) -> None:
    source, destination = world.vm(world.source), world.waiting()
    source.start()
    migrate(source, destination)
    assert untouched(destination)
    destination.boot()
    destination.work(20)
    assert goes_on(destination)


def test_a_guest_that_has_bus_master_off_moves_and_finds_it_off(world: World) -> None:
    source, destination = world.running(), world.waiting()
    source.bar.set_command(MEMORY_DECODE)
    migrate(source, destination)
    assert destination.bar.command() == MEMORY_DECODE
    destination.bar.set_command(MEMORY_DECODE | BUS_MASTER)
    assert goes_on(destination)


def test_a_position_that_cannot_be_worked_out_is_refused_while_the_vm_runs_at_the_source(world: World) -> None:
    source, destination = world.running(), world.waiting()
    scribble(source)
    assert "flips more than once" in fails(source, destination)
    assert source.running
    assert runs(source)
    assert untouched(destination)


def scribble(vm: MigratingVm) -> None:
    """Leave completions in the ring that no controller posts."""
    for slot in (28, 30):
        vm.function.memory.write(vm.admin.acq + 16 * slot + 14, b"\1\0")


def test_by_the_operator_s_word_such_a_controller_arrives_disabled_and_its_driver_resets_it(make: Make) -> None:
    world = make()
    world.options = Options(arrive_disabled=True)
    source, destination = world.running(), world.waiting()
    scribble(source)
    migrate(source, destination)
    assert untouched(destination)
    assert "arrived disabled" in refusals(world.destination)
    destination.guest = None
    destination.boot()
    assert goes_on(destination)


def test_an_admin_queue_outside_the_guest_s_memory_is_refused_at_the_source(world: World) -> None:
    source, destination = world.running(), world.waiting()
    with source.function.port() as port:
        assert port is not None
        assert port.io is not None
        port.io["acq"] = 1 << 40
    assert "cannot be read" in fails(source, destination)
    assert source.running
    assert untouched(destination)


def test_memory_of_another_vm_is_noticed_before_a_command_runs(world: World) -> None:
    source, destination = world.running(), world.waiting()
    load(source, destination)
    with pytest.raises(Refusal, match="does not hold the admin queue"):
        destination.start()
    assert untouched(destination)
    source.go_on()
    assert goes_on(source)


def test_what_does_not_fit_is_refused_at_the_header_and_the_reason_is_in_the_journal(make: Make) -> None:
    world = make(NVME_2_1, there=NVME_2_1.with_(model="another"))
    source, destination = world.running(), world.waiting()
    failure = fails(source, destination)
    assert "does not fit" in failure
    assert "does not fit" in refusals(world.destination)
    assert goes_on(source)
    assert untouched(destination)


def test_the_site_s_policy_is_asked(make: Make) -> None:
    world = make()
    world.options = Options(policy=Policy.parse(_OTHER_FIRMWARE))
    source, destination = world.running(), world.waiting()
    assert "does not fit" in fails(source, destination)
    assert goes_on(source)


def test_an_unmarked_function_does_not_migrate(world: World) -> None:
    marks.revoke(world.source, PF, FIRST)
    source, destination = world.running(), world.waiting()
    assert not source.migratable
    assert "not supported" in fails(source, destination)
    assert goes_on(source)


def test_a_mark_taken_back_in_the_middle_keeps_the_vm_where_it_is(world: World) -> None:
    source, destination = world.running(), world.waiting()
    source.begin()
    marks.revoke(world.source, PF, FIRST)
    with pytest.raises(Refusal, match="not marked"):
        source.save()
    source.go_on()
    assert goes_on(source)
    assert untouched(destination)


def test_a_destination_takes_nothing_without_a_resumable_mark(world: World) -> None:
    with open_primary(world.destination, PF, change=True) as pf:
        picture = pf.picture()
        marks.give(world.destination, picture, picture.secondaries[0], Role.MIGRATABLE)
    source, destination = world.running(), world.waiting()
    assert "marked migratable, not resumable" in fails(source, destination)
    assert goes_on(source)


def test_a_stream_that_was_resumed_is_refused_the_second_time(world: World) -> None:
    source, destination, other = world.running(), world.waiting(), world.waiting(SECOND)
    source.begin()
    data, configuration = source.save(), source.configuration
    for vm in (destination, other):
        carry(source, vm)
    destination.reset()
    destination.load(data, configuration)
    other.reset()
    other.load(data, configuration)
    destination.start()
    with pytest.raises(Refusal, match="resumed on this host before"):
        other.start()
    assert not runs(other)
    other.reset()
    with pytest.raises(Refusal, match="resumed on this host before"):
        other.load(data, configuration)


def test_both_hosts_journals_name_one_id_and_the_vm_can_move_on(world: World) -> None:
    source, destination = world.running(), world.waiting()
    migrate(source, destination)
    world.end(source)
    left, arrived = events(world.source), events(world.destination)
    assert [event for event, _ in left] == ["leaving", "left"]
    assert [event for event, _ in arrived] == ["arriving", "arrived"]
    assert len({stream for _, stream in left + arrived}) == 1
    with open_primary(world.source, PF, change=True) as pf:
        picture = pf.picture()
        incarnation = picture.secondaries[0].incarnation
        marks.give(world.source, picture, picture.secondaries[0], Role.RESUMABLE)
    record = Moves(world.source).left(VF, incarnation)
    assert record is not None
    assert record["vm"] == "db1"
    back = world.vm(world.source, name="db1")
    destination.work(10)
    migrate(destination, back)
    assert goes_on(back)


def test_a_cancelled_migration_goes_on_at_the_source_and_can_be_tried_again(world: World) -> None:
    source, destination = world.running(), world.waiting()
    source.begin()
    source.save()
    source.start()
    source.work(20)
    assert [event for event, _ in events(world.source)] == ["leaving", "stayed"]
    migrate(source, destination)
    assert goes_on(destination)


def test_the_guest_is_told_once_to_look_at_its_queues(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    openings: dict[int, Any] = {}
    make_opening = world.opening
    monkeypatch.setattr(world, "opening", lambda vm: openings.setdefault(id(vm), make_opening(vm)))
    source, destination = world.running(), world.waiting()
    migrate(source, destination)
    assert openings[id(destination)].vectors.triggered == 1
    assert openings[id(source)].vectors.triggered == 0


def test_two_functions_of_one_vm_move_arc_by_arc_side_by_side(make: Make) -> None:
    world = make(NVME_2_1.with_(namespaces=(NamespaceRow(nsid=1), NamespaceRow(nsid=2))))
    pairs = [(world.running(bdf=bdf, nsid=nsid), world.waiting(bdf)) for bdf, nsid in ((VF, 1), (SECOND, 2))]
    pairs[1][0].rescan(20)
    for source, _ in pairs:
        source.begin()
    saved = [source.save() for source, _ in pairs]
    for source, destination in pairs:
        destination.reset()
        carry(source, destination)
    for (source, destination), data in zip(pairs, saved, strict=True):
        destination.load(data, source.configuration)
    for source, destination in pairs:
        destination.start()
        taken_over(source, destination)
    assert all(goes_on(destination) for _, destination in pairs)


def test_stop_and_cont_and_a_repeated_request_change_nothing(world: World) -> None:
    vm = world.running()
    for _ in range(3):
        vm.stop()
        assert not runs(vm)
        assert vm.set(MigrationState.STOP) is None
        vm.start()
        assert vm.set(MigrationState.RUNNING) is None
        vm.work(10)
    assert goes_on(vm)


@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("fault", ["admin/0x41", "admin/0x42"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_whatever_command_is_refused_one_copy_runs(make: Make, side: str, fault: str, number: int) -> None:
    world = make()
    source, destination = world.running(), world.waiting()
    host = world.source if side == "source" else world.destination
    host.arm(f"{fault}#{number}=status:0x4006")
    try:
        migrate(source, destination)
    except MigrationFailedError:
        assert not runs(destination)
        if runs(source):  # a reset of last resort loses the guest's controller, and nothing else
            assert goes_on(source)
    else:
        assert not runs(source)
        assert goes_on(destination)


def test_a_reset_forgets_what_was_loaded(world: World) -> None:
    source, destination = world.running(), world.waiting()
    load(source, destination)
    destination.reset()
    assert destination.answering is not None
    assert destination.answering.state == MigrationState.RUNNING
    destination.start()
    assert untouched(destination)
    source.go_on()
    assert goes_on(source)


def test_a_restarted_agent_goes_on_from_where_the_function_stands(world: World) -> None:
    source, destination = world.running(), world.waiting()
    source.stop()
    world.restart_agent(source)
    assert source.answering is not None
    assert source.answering.state == MigrationState.STOP
    source.start()
    source.work(10)
    migrate(source, destination)
    assert goes_on(destination)


def test_an_agent_that_began_anew_while_a_state_arrived_refuses_what_it_does_not_have(world: World) -> None:
    source, destination = world.running(), world.waiting()
    load(source, destination)
    world.restart_agent(destination)
    with pytest.raises(Refusal, match="began anew"):
        destination.start()
    assert untouched(destination)
    source.go_on()
    assert goes_on(source)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("side", ["source", "destination"])
@pytest.mark.parametrize("number", range(1, 8))
def test_wherever_an_agent_is_killed_its_successor_leaves_one_running_copy(
    make: Make, side: str, when: str, number: int
) -> None:
    world = make()
    source, destination = world.running(), world.waiting()
    host, vm = (world.source, source) if side == "source" else (world.destination, destination)
    host.arm(f"admin/0x41#{number}=raise-{when}") if number < 4 else host.arm(f"admin/0x42#{number - 3}=raise-{when}")
    try:
        migrate(source, destination)
    except EmulatedCrash:
        host.disarm()
        world.restart_agent(vm)
        assert not (runs(source) and runs(destination))
        world.end(destination)  # its VMM was told of a failure
        source.go_on()
        assert goes_on(source)
    else:
        assert goes_on(destination)


def test_a_resume_that_was_cut_off_before_its_record_is_not_done_twice(world: World) -> None:
    vm = world.running()
    vm.stop()
    world.source.arm("admin/0x41/1=raise-after")
    with pytest.raises(EmulatedCrash):
        vm.start()
    world.restart_agent(vm)
    assert vm.answering is not None
    assert vm.answering.state == MigrationState.RUNNING
    assert goes_on(vm)


def test_a_suspend_that_was_cut_off_before_its_record_is_ended_by_the_next_start(world: World) -> None:
    vm = world.running()
    world.source.arm("admin/0x41/0=raise-after")
    with pytest.raises(EmulatedCrash):
        vm.stop()
    world.restart_agent(vm)
    vm.start()
    assert goes_on(vm)


def test_a_suspension_that_outlived_its_vm_is_ended_when_another_starts(world: World) -> None:
    vm = world.vm(world.source)
    with world.source.machine.change() as state:
        state["primaries"][PF]["secondaries"][str(FIRST)]["suspended"] = True  # opening it did not end it
    vm.start()
    vm.boot()
    vm.work()
    assert goes_on(vm)


def test_a_primary_that_was_reset_is_an_error_that_only_a_reset_ends(world: World) -> None:
    vm = world.running()
    world.source.arm("admin/0x41/0=lose")
    with pytest.raises(Refusal) as refusal:
        vm.stop()
    assert refusal.value.errno == errno.ETIMEDOUT
    assert vm.answering is not None
    assert vm.answering.state == MigrationState.ERROR
    with pytest.raises(Refusal) as again:
        vm.start()
    assert again.value.errno == errno.EINVAL
    vm.reset()
    assert vm.answering.state == MigrationState.RUNNING


def test_a_destination_that_was_reset_under_the_loaded_state_does_not_start(world: World) -> None:
    source, destination = world.running(), world.waiting()
    load(source, destination, with_memory=True)
    destination.set(MigrationState.STOP)
    destination.function.reset()
    with pytest.raises(Refusal, match="not suspended any more"):
        destination.start()
    assert not runs(destination)
    source.go_on()
    assert goes_on(source)


def test_who_moves_with_its_vm_is_moved_by_nobody_else(world: World) -> None:
    vm = world.running()
    with open_primary(world.source, PF, change=True) as pf:
        for verb in (
            lambda: verbs.suspend(pf, FIRST, confirm=agree),
            lambda: verbs.resume(pf, FIRST, confirm=agree),
            lambda: choose(pf, None, [FIRST]),
        ):
            with pytest.raises(BusyError, match="moves with its VM") as refusal:
                verb()
            assert "virsh migrate" in refusal.value.fix
        world.end(vm)
        choose(pf, None, [FIRST])


@pytest.mark.parametrize("damage", ["emptied", "cut", "of-another-kind", "deep"])
def test_a_record_of_a_vm_that_cannot_be_read_lets_nobody_touch_the_function(world: World, damage: str) -> None:
    world.running()
    (record,) = (world.source.state_dir / "vm/held").iterdir()
    whole = json.loads(record.read_text())
    texts = {"emptied": "", "cut": record.read_text()[:40], "deep": "[" * 100_000}
    record.write_text(texts.get(damage, json.dumps(whole | {"cntlid": str(whole["cntlid"])})))
    with open_primary(world.source, PF, change=True) as pf:
        for verb in (
            lambda: verbs.suspend(pf, FIRST, confirm=agree),
            lambda: verbs.resume(pf, FIRST, confirm=agree),
            lambda: choose(pf, None, [FIRST]),
        ):
            with pytest.raises(MalformedError, match="is not what nvmelm wrote") as refusal:
                verb()
            assert (refusal.value.reason, str(record) in refusal.value.fix) == ("vm-record-damaged", True)
        assert world.source.state_dir.joinpath("vm/held").exists()
        record.unlink()
        choose(pf, None, [FIRST])


def test_an_operator_sees_where_a_function_stands_with_its_vm_and_that_it_left(world: World) -> None:
    source, destination = world.running(), world.waiting()
    with open_primary(world.source, PF) as pf:
        assert "with db1" in pf.picture().secondaries[0].with_vm
        assert "RUNNING since" in pf.picture().secondaries[0].with_vm
        migrate(source, destination)
        assert "STOP since" in pf.picture().secondaries[0].with_vm
        world.end(source)
        assert "left with its VM db1 at" in pf.picture().secondaries[0].with_vm
        assert not pf.picture().secondaries[1].with_vm
    with open_primary(world.source, PF, change=True) as pf:
        release.release(pf, confirm=agree)
    with open_primary(world.source, PF) as pf:
        assert not any(
            secondary.with_vm or secondary.mark or secondary.present for secondary in pf.picture().secondaries
        )


def test_a_vm_s_stream_in_a_file_is_shown_and_never_its_data(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = world.running()
    source.begin()
    file = tmp_path / "stream"
    file.write_bytes(source.save())
    assert cli.main(["state", "show", str(file), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["schema"], shown["vm"], shown["address"]) == ("nvmelm.vm_stream", "db1", VF)
    assert shown["admin_queue"]["event_requests"] == [31]
    assert shown["image"]["submission_queues"][0]["qid"] == 1
    assert cli.main(["state", "show", str(file)]) == 0
    assert "1 event request" in capsys.readouterr().out
    file.write_bytes(file.read_bytes()[:-1])
    assert cli.main(["state", "show", str(file)]) == 1
    assert "ends early" in capsys.readouterr().err


def test_a_completion_queue_that_is_full_refuses_the_stop_and_the_guest_goes_on(world: World) -> None:
    vm = world.running(queues=1, depth=16)
    with vm.function.port() as port:
        assert port is not None
        assert port.io is not None
        queue = port.io["cqs"]["1"]
        queue["head"] = (queue["tail"] + 1) % (queue["size"] + 1)
        port.fetch(1)
        port.io["inflight"] = port.io["inflight"] or [{"sqid": 1, "entry": bytes(64).hex()}]
    with pytest.raises(Refusal) as refusal:
        vm.stop()
    assert refusal.value.errno == errno.EIO
    assert vm.answering is not None
    assert vm.answering.state == MigrationState.RUNNING
    assert runs(vm)


def test_a_journal_that_cannot_be_written_stops_a_departure_and_nothing_that_has_happened(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, destination = world.running(), world.waiting()

    def full(*_: object, **__: object) -> None:
        raise HostError("no space", errno=errno.ENOSPC)

    with monkeypatch.context() as patched:
        patched.setattr(Moves, "note", full)
        patched.setattr(Moves, "hold", full)
        assert "no space" in fails(source, destination)
    assert goes_on(source)
    assert untouched(destination)


def test_a_claim_that_cannot_be_written_is_no_start(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    source, destination = world.running(), world.waiting()

    def full(*_: object) -> None:
        raise HostError("no space", errno=errno.ENOSPC)

    monkeypatch.setattr(Moves, "claim", full)
    assert "no space" in fails(source, destination)
    assert not runs(destination)
    assert goes_on(source)


def test_the_estimate_is_of_the_state_as_it_is(make: Make) -> None:
    small, large = (make(NVME_2_1.with_(vendor_state_bytes=size)).running() for size in (4096, 1 << 20))
    assert small.answering is not None
    assert large.answering is not None
    assert large.answering.data_size() - small.answering.data_size() == (1 << 20) - 4096
    for vm in (small, large):
        vm.begin()
        assert vm.answering is not None
        estimate = vm.answering.data_size()
        assert len(vm.save()) <= estimate


def test_a_function_whose_controlling_one_cannot_be_asked_is_an_error_for_an_agent_that_begins_anew(
    world: World,
) -> None:
    vm = world.running()
    vm.stop()
    world.source.arm("admin/0x42=errno:ENODEV")
    world.restart_agent(vm)
    assert vm.answering is not None
    assert vm.answering.state == MigrationState.ERROR
