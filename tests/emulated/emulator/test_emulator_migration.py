"""Migration Send and Receive follow the rules of the specification: order, indexes, offsets, parts."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelm.emulator.guest.guest import Guest
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.machine.generations import NVME_2_1, NVME_2_1_UDMQ, NVME_2_1_VENDOR, STOCK_QEMU_7_2, TP4159
from nvmelm.wire.formats import EffectsLog, SupportedStateFormats
from nvmelm.wire.identify import IdentifyController, parse_controller_list, parse_namespace_list
from tests.emulated.emulator_bench import (
    FIRST,
    PRIMARY,
    RECEIVE,
    SECOND,
    SEND,
    TRACK_RECEIVE,
    TRACK_SEND,
    VF1,
    VF2,
    Bench,
    bench,
)

STATE_WITHOUT_QUEUES = bytes(16) + (2).to_bytes(16, "little") + bytes(16) + bytes(8)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Bench]:
    """A prepared host with both VFs online, the first suspended."""
    device = bench(tmp_path / "host")
    device.prepare()
    device.online(SECOND)
    assert device.suspend() == 0
    yield device
    device.host.close()


@pytest.mark.parametrize(
    ("cdw10", "cdw11", "status"),
    [
        pytest.param(3, FIRST, 0x4002, id="unknown-select"),
        pytest.param(0, 2 << 16 | FIRST, 0x4002, id="unknown-suspend-type"),
        pytest.param(0, 1 << 16 | PRIMARY, 0x411F, id="suspend-itself"),
        pytest.param(0, 1 << 16 | 0x99, 0x411F, id="suspend-a-stranger"),
        pytest.param(0, 1 << 16 | 0x0044, 0x411F, id="suspend-an-offline-one"),
        pytest.param(1, SECOND, 0x413A, id="resume-a-running-one"),
    ],
)
def test_suspend_and_resume_refuse_what_they_cannot_do(device: Bench, cdw10: int, cdw11: int, status: int) -> None:
    assert device.status(SEND, cdw10, cdw11) == status


def test_reading_says_whether_the_controller_was_suspended(device: Bench) -> None:
    suspended, running = device.receive(FIRST), device.receive(SECOND)
    assert (suspended.result, suspended.data[2]) == (1, 1)
    assert (running.result, running.data[2]) == (0, 0)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        pytest.param({"csvi": 2}, 0x4002, id="unknown-version"),
        pytest.param({"csuuidi": 2}, 0x4002, id="unknown-uuid"),
        pytest.param({"offset": 2}, 0x4002, id="unaligned-offset"),
        pytest.param({"offset": 60}, 0x4002, id="offset-behind-the-end"),
        pytest.param({"offset": 1 << 40}, 0x4002, id="offset-far-behind-the-end"),
        pytest.param({"cntlid": 0x99}, 0x411F, id="stranger"),
        pytest.param({"cntlid": PRIMARY}, 0x411F, id="the-primary-itself"),
    ],
)
def test_a_read_that_makes_no_sense_is_refused(device: Bench, words: dict[str, int], status: int) -> None:
    assert device.receive(**words).status == status


def test_a_read_may_ask_for_more_than_there_is_and_parts_are_the_whole(device: Bench) -> None:
    guest = Guest.create(device.host, VF1)
    assert device.resume() == 0
    guest.attach(device.host, VF1)
    guest.step(5)
    assert device.suspend() == 0
    whole = device.state(csuuidi=1)
    longer = device.receive(length=len(whole) + 400, csuuidi=1)
    assert longer.data == whole + bytes(400)
    parts = [device.receive(offset=at, length=200, csuuidi=1).data for at in range(0, len(whole), 200)]
    assert b"".join(parts)[: len(whole)] == whole
    assert device.receive(offset=len(whole), length=8, csuuidi=1).status == 0  # exactly at the end is not behind it


def test_reading_a_state_again_changes_nothing_on_disk_and_another_process_reads_the_same(device: Bench) -> None:
    kept = device.host.machine.directory / "state.json"
    whole = device.state(csuuidi=1)
    before = (kept.stat().st_ino, kept.stat().st_mtime_ns, kept.read_bytes())
    assert device.state(csuuidi=1) == whole
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns, kept.read_bytes()) == before
    with EmulatedHost(device.host.machine.directory) as other, other.machine.view() as state:
        (primary,) = state["primaries"].values()
        vendor = primary["secondaries"][str(FIRST)]["vendor"]
        assert (other.machine.directory / vendor).read_bytes() == whole[-4096:]


def test_indexes_of_zero_leave_parts_out(device: Bench) -> None:
    assert device.receive(csvi=0).data == bytes([0, 0, 1]).ljust(48, b"\0")
    vendor_only = device.receive(csvi=0, csuuidi=1).data
    assert int.from_bytes(vendor_only[16:32], "little") == 0
    assert int.from_bytes(vendor_only[32:48], "little") == 1024
    assert int.from_bytes(device.receive(csuuidi=0).data[32:48], "little") == 0


def test_a_buffer_shorter_than_the_command_says_is_a_transfer_error(device: Bench) -> None:
    assert device.status(RECEIVE, 1 << 16, FIRST, cdw15=100, data_in_length=48) == 0x4004
    assert device.status(SEND, 3 << 16 | 2, 1 << 16 | FIRST, cdw15=14, data_out=bytes(48)) == 0x4004


@pytest.mark.parametrize(
    ("words", "status"),
    [
        pytest.param({"cntlid": SECOND}, 0x411F, id="neither-suspended-nor-offline"),
        pytest.param({"cntlid": 0x99}, 0x411F, id="stranger"),
        pytest.param({"csvi": 0}, 0x4002, id="no-part-at-all"),
        pytest.param({"csvi": 2}, 0x4002, id="unknown-version"),
        pytest.param({"csuuidi": 2}, 0x4002, id="unknown-uuid"),
        pytest.param({"csvi": 0, "csuuidi": 1}, 0x4002, id="nvme-part-announced-as-none"),
        pytest.param({"offset": 2}, 0x4002, id="unaligned-offset"),
        pytest.param({"offset": 1 << 40}, 0x4002, id="offset-behind-every-end"),
        pytest.param({"sequence": 0}, 0x400C, id="middle-without-first"),
        pytest.param({"sequence": 2}, 0x400C, id="last-without-first"),
    ],
)
def test_setting_state_refuses_what_makes_no_sense(device: Bench, words: dict[str, int], status: int) -> None:
    assert device.set(STATE_WITHOUT_QUEUES, **words) == status


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(STATE_WITHOUT_QUEUES[:52], id="too-short"),
        pytest.param(b"\x01" + STATE_WITHOUT_QUEUES[1:], id="unknown-version-of-the-structure"),
        pytest.param(bytes(16) + b"\xff" * 16 + bytes(24), id="size-of-2-to-the-128"),
        pytest.param(bytes(32) + (4).to_bytes(16, "little") + bytes(24), id="vendor-part-without-its-uuid"),
        pytest.param(STATE_WITHOUT_QUEUES[:50] + b"\x01" + STATE_WITHOUT_QUEUES[51:], id="queues-that-are-not-there"),
        pytest.param(STATE_WITHOUT_QUEUES[:48] + b"\x07" + STATE_WITHOUT_QUEUES[49:], id="another-state-version"),
    ],
)
def test_a_state_that_is_none_is_refused_and_leaves_nothing(device: Bench, data: bytes) -> None:
    assert device.set(data) == 0x4002
    assert device.resume() == 0  # no transfer is left open


def test_parts_may_come_in_any_number_and_the_last_may_be_empty(device: Bench) -> None:
    data = STATE_WITHOUT_QUEUES
    assert device.set(data[:8], sequence=1) == 0
    assert device.set(data[8:40], sequence=0, offset=8) == 0
    assert device.set(data[40:], sequence=0, offset=40) == 0
    assert device.resume() == 0x400C  # transferred, not committed
    assert device.set(b"", sequence=2, offset=56) == 0
    assert device.resume() == 0


def test_a_failed_part_throws_everything_away_and_a_first_part_begins_again(device: Bench) -> None:
    data = STATE_WITHOUT_QUEUES
    assert device.set(data[:8], sequence=1) == 0
    assert device.set(data[8:16], sequence=0, offset=9) == 0x4002
    assert device.set(data[8:], sequence=2, offset=8) == 0x400C
    assert device.set(data[:8], sequence=1) == 0
    assert device.set(data[:16], sequence=1) == 0
    assert device.set(data[24:], sequence=2, offset=24) == 0x4002  # a hole
    assert device.set(data) == 0


def test_a_state_with_queues_needs_a_target_without_and_enough_of_them(device: Bench) -> None:
    assert device.resume() == 0
    guest = Guest.create(device.host, VF1)
    guest.attach(device.host, VF1)
    assert device.suspend() == 0
    state = device.state()
    assert device.set(state) == 0x4002
    assert device.suspend(SECOND) == 0
    assert device.set(state, cntlid=SECOND) == 0
    assert device.status(0x1C, SECOND << 16 | 7) == 0
    device.online(SECOND, vq=2)
    assert device.suspend(SECOND) == 0
    assert device.set(state, cntlid=SECOND) == 0x4138


def test_what_was_set_is_read_back_and_survives_only_as_far_as_it_is_persistent(device: Bench) -> None:
    assert device.resume() == 0
    guest = Guest.create(device.host, VF1)
    guest.attach(device.host, VF1)
    guest.step(7)
    device.bind(VF2)
    guest.hold(device.host, VF2)
    assert device.suspend() == device.suspend(SECOND) == 0
    state = device.state(csuuidi=1)
    assert device.set(state, cntlid=SECOND, csuuidi=1) == 0
    assert device.state(SECOND, csuuidi=1) == state
    device.write(f"bus/pci/devices/{VF2}/reset", "1")
    assert device.suspend(SECOND) == 0
    after = device.state(SECOND, csuuidi=1)
    assert len(after) == 48 + 8 + 4096  # the queues are gone,
    assert after[-4096:] == state[-4096:]  # the vendor's part is not


def test_a_reset_of_the_primary_ends_suspension_and_transfer(device: Bench) -> None:
    assert device.set(STATE_WITHOUT_QUEUES[:8], sequence=1) == 0
    device.host.reset_primary("0000:01:00.0")
    assert device.resume() == 0x413A
    assert device.set(STATE_WITHOUT_QUEUES[8:], sequence=2, offset=8) == 0x400C


def test_a_device_that_takes_one_part_only_says_so(tmp_path: Path) -> None:
    device = bench(tmp_path / "host", TP4159)
    device.enable(1)
    device.online(1)
    for sequence in (0, 1, 2):
        assert device.set(STATE_WITHOUT_QUEUES, sequence=sequence, cntlid=1) == 0x4006
    assert device.set(STATE_WITHOUT_QUEUES, cntlid=1) == 0  # and it does not ask for a suspension
    device.host.close()


def test_a_device_without_live_migration_knows_none_of_its_commands(tmp_path: Path) -> None:
    device = bench(tmp_path / "host", STOCK_QEMU_7_2)
    for opcode in (SEND, RECEIVE, TRACK_SEND, TRACK_RECEIVE, 0x45, 0x18):
        assert device.status(opcode, data_in_length=48) == 0x4001
    assert device.status(0x06, 0x20, data_in_length=4096) == 0x4002
    device.host.close()


def test_migratable_controllers_know_none_of_the_managers_commands(device: Bench) -> None:
    assert device.resume() == 0
    device.write("bus/pci/devices/0000:01:00.2/driver_override", "nvme")
    device.write("bus/pci/drivers_probe", VF2)
    own = Bench(device.host, device.host.open_queue("nvme1"))
    identity = IdentifyController(own.identify(0x01))
    assert (identity.cntlid, identity.is_virtual_function, identity.host_managed_live_migration) == (
        SECOND,
        True,
        False,
    )
    assert identity.trattr == identity.cmmrtd == 0
    assert own.status(SEND, 0, 1 << 16 | FIRST) == 0x4001
    assert own.status(0x06, 0x20, data_in_length=4096) == 0x4002


@pytest.mark.parametrize(
    ("generation", "trattr", "uuids"),
    [(NVME_2_1, 1, 1), (NVME_2_1_VENDOR, 1, 1), (NVME_2_1_UDMQ, 3, 1), (TP4159, 2, 0)],
    ids=lambda value: getattr(value, "name", None),
)
def test_generations_announce_what_they_can(tmp_path: Path, generation: object, trattr: int, uuids: int) -> None:
    device = bench(tmp_path / "host", generation)  # type: ignore[arg-type]
    identity = IdentifyController(device.identify(0x01))
    formats = SupportedStateFormats.parse(device.identify(0x20))
    assert identity.host_managed_live_migration
    assert identity.trattr == trattr
    assert formats.versions == (0,)
    assert len(formats.uuids) == uuids
    log = EffectsLog(device.send(0x02, 0x03FF_0005, nsid=0xFFFF_FFFF, data_in_length=4096).data)
    assert all(log.admin(opcode).csupp for opcode in (0x1C, 0x3D, 0x3E, 0x41, 0x42))
    if uuids:
        listed = device.identify(0x17)
        assert uuid.UUID(bytes=listed[48:64]) == formats.uuids[0]
    device.host.close()


def test_namespaces_are_attached_and_detached_for_all_controllers_of_a_list_or_none(tmp_path: Path) -> None:
    device = bench(tmp_path / "host", NVME_2_1.with_(attached_to_secondaries=False))

    def attach(select: int, *ids: int, nsid: int = 1) -> int:
        raw = b"".join(value.to_bytes(2, "little") for value in (len(ids), *ids)).ljust(4096, b"\0")
        return device.status(0x15, select, nsid=nsid, data_out=raw)

    assert parse_controller_list(device.identify(0x12, nsid=1)) == [PRIMARY]
    assert attach(0, FIRST) == 0
    assert attach(0, FIRST, SECOND) == 0x4118
    assert parse_controller_list(device.identify(0x12, nsid=1)) == [PRIMARY, FIRST]
    assert attach(1, SECOND) == 0x411A
    assert attach(1, FIRST) == 0
    assert attach(0, 0x99) == 0x411C
    assert attach(0, FIRST, nsid=9) == 0x400B
    assert parse_namespace_list(device.identify(0x02)) == [1]
    device.host.close()


def test_states_that_are_no_longer_needed_leave_no_files(device: Bench) -> None:
    vendor = device.host.machine.directory / "vendor"
    assert device.set(STATE_WITHOUT_QUEUES[:8], sequence=1) == 0
    assert device.set(STATE_WITHOUT_QUEUES) == 0
    assert list(vendor.iterdir()) == []
    state = device.state(csuuidi=1)
    for _ in range(3):
        assert device.set(state, csuuidi=1) == 0
        assert len(list(vendor.iterdir())) == 1
    device.host.reset_primary("0000:01:00.0")
    assert list(vendor.iterdir()) == []
