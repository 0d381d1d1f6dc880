"""One state, many processes: nothing is lost, nothing is torn, whatever is killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nvmelm.emulator.guest.guest import Guest
from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.emulator.machine.generations import GENERATIONS, NVME_2_1, DeviceGeneration, NamespaceRow
from nvmelm.emulator.machine.store import Store
from nvmelm.errors import BusyError, HostError, MalformedError, UsageError
from nvmelm.host import AdminCommand
from nvmelm.wire.identify import IdentifyController, parse_secondary_list
from tests.emulated.emulator_bench import FIRST, PF_DIR, VF1, VIRT, Bench, bench
from tests.interrupting import Interrupting

fork = multiprocessing.get_context("spawn")


def test_an_empty_directory_becomes_a_host_with_one_device_of_the_newest_generation(tmp_path: Path) -> None:
    with EmulatedHost(tmp_path / "a" / "b") as host:
        identity = IdentifyController(Bench(host, host.open_queue("nvme0")).identify(0x01))
        assert identity.host_managed_live_migration
        assert identity.mn == NVME_2_1.model
        assert host.kind == "emulated"
        assert host.name == f"emulated:{tmp_path / 'a' / 'b'}"
        assert host.state_dir == tmp_path / "a" / "b" / "nvmelm"


def test_everything_is_private_to_its_owner(tmp_path: Path) -> None:
    device = bench(tmp_path / "host")
    device.prepare()
    guest = Guest.create(device.host, VF1)
    guest.attach(device.host, VF1)
    guest.step(3)
    assert device.suspend() == 0
    device.state(csuuidi=1)
    for place in (tmp_path / "host", *(tmp_path / "host").rglob("*")):
        mode = stat.S_IMODE(place.stat().st_mode)
        assert mode == (0o700 if place.is_dir() else 0o600), place
    device.host.close()


def test_another_process_finds_what_this_one_did(tmp_path: Path) -> None:
    device = bench(tmp_path / "host")
    with EmulatedHost(tmp_path / "host") as other:
        device.enable(3)
        assert other.sysfs.read(f"{PF_DIR}/sriov_numvfs") == "3"
        other.sysfs.write(f"{PF_DIR}/sriov_numvfs", "0")
        assert device.host.sysfs.read(f"{PF_DIR}/sriov_numvfs") == "0"
    device.host.close()


def _assign_again_and_again(directory: str, cntlid: int, rounds: int) -> None:
    with EmulatedHost(Path(directory)) as host:
        queue = host.open_queue("nvme0")
        for number in range(rounds):
            command = AdminCommand(name="assign", opcode=VIRT, cdw10=cntlid << 16 | 8, cdw11=1 + number % 5)
            assert queue.submit(command).status == 0


def test_processes_at_once_lose_nothing_of_each_other(tmp_path: Path) -> None:
    device = bench(tmp_path / "host")
    rounds = 120
    processes = [
        fork.Process(target=_assign_again_and_again, args=(str(tmp_path / "host"), FIRST + number, rounds))
        for number in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    listed = parse_secondary_list(device.identify(0x15))
    assert [secondary.nvq for secondary in listed[:4]] == [1 + (rounds - 1) % 5] * 3 + [0]
    device.host.close()


def _count(directory: str, rounds: int) -> None:
    with EmulatedHost(Path(directory)) as host:
        for _ in range(rounds):
            with host.machine.change() as state:
                state["next_inode"] += 1


def test_changes_of_processes_at_once_add_up(tmp_path: Path) -> None:
    with EmulatedHost(tmp_path / "host") as host:
        with host.machine.view() as state:
            before = state["next_inode"]
        processes = [fork.Process(target=_count, args=(str(tmp_path / "host"), 300)) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
        with host.machine.view() as state:
            assert state["next_inode"] == before + 900


def test_a_process_killed_anywhere_leaves_a_readable_state(tmp_path: Path) -> None:
    device = bench(tmp_path / "host")
    for number in range(4):
        victim = fork.Process(target=_assign_again_and_again, args=(str(tmp_path / "host"), FIRST, 1_000_000))
        victim.start()
        counter = tmp_path / "host" / "lock"
        before = counter.read_bytes()
        deadline = time.monotonic() + 30
        while counter.read_bytes() == before and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.003 * number)
        os.kill(victim.pid or 0, signal.SIGKILL)
        victim.join()
        assert 1 <= parse_secondary_list(device.identify(0x15))[0].nvq <= 5
        assert device.status(VIRT, FIRST << 16 | 8, 2) == 0
    device.host.close()


@pytest.mark.parametrize("after", [0, 1])
def test_a_change_whose_writing_was_cut_short_did_not_happen(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process dies when half of the state was written, or all of it and nothing more."""
    device = bench(tmp_path / "host")
    device.enable(2)
    write = os.write

    def dies(descriptor: int, raw: bytes) -> int:
        write(descriptor, raw if after else raw[: len(raw) // 2])
        raise KeyboardInterrupt

    for number in (0, 1):  # whichever of the two files is the current one
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr("nvmelm.emulator.machine.store.os.write", dies)
            device.write(f"{PF_DIR}/sriov_numvfs", "0")
        with EmulatedHost(tmp_path / "host") as other:
            assert other.sysfs.read(f"{PF_DIR}/sriov_numvfs") == "2"
        assert device.host.sysfs.read(f"{PF_DIR}/sriov_numvfs") == "2"
        assert device.status(VIRT, FIRST << 16 | 8, 2 + number) == 0
    device.host.close()


def test_a_disk_that_takes_half_of_a_state_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = bench(tmp_path / "host")
    write = os.write
    with monkeypatch.context() as patched, pytest.raises(HostError, match="No space left"):
        patched.setattr("nvmelm.emulator.machine.store.os.write", lambda descriptor, raw: write(descriptor, raw[:100]))
        device.enable(2)
    assert device.host.sysfs.read(f"{PF_DIR}/sriov_numvfs") == "0"
    device.enable(2)
    device.host.close()


def test_a_state_that_could_not_be_read_once_is_changed_and_kept_afterwards(tmp_path: Path) -> None:
    store = _store(tmp_path)
    before = _seen(store)
    place = next(path for path in tmp_path.glob("state*.json") if f'"next_inode":{before},' in path.read_text())
    good = place.read_bytes()
    other = _store(tmp_path)
    place.write_bytes(b"{")
    with pytest.raises(MalformedError), other.change():
        pass
    place.write_bytes(good)
    with other.change() as state:
        state["next_inode"] += 1
    assert _seen(store) == before + 1


@pytest.mark.usefixtures("heard")
def test_an_interrupt_at_any_call_of_a_change_leaves_the_host_unlocked_and_whole(tmp_path: Path) -> None:
    store = _store(tmp_path)
    at, kept, interrupted = 0, _seen(store), True
    while interrupted:
        at += 1
        interrupted = _change(store, interrupt_at=at)
        assert _not_held_up(lambda: _seen(store))  # by another thread
        assert _not_held_up(lambda: _seen(_store(tmp_path)))  # nor by what stands for another process
        before, kept = kept, _seen(store)
        assert kept in (before, before + 1)
    assert at > 20
    assert kept == before + 1


def _store(directory: Path) -> Store:
    """Return what another process would see of a host, which is made when it is not there."""
    EmulatedHost(directory).close()
    return Store(directory, lambda _: pytest.fail("it is there"))


def _change(store: Store, *, interrupt_at: int) -> bool:
    """Change a state; return whether it was interrupted."""
    try:
        with Interrupting(interrupt_at), store.change() as state:
            state["next_inode"] += 1
    except KeyboardInterrupt:
        return True
    return False


def _seen(store: Store) -> int:
    with store.view() as state:
        return state["next_inode"]


def _not_held_up(look: Callable[[], object]) -> bool:
    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    looking.join(10)
    return not looking.is_alive()


def test_a_state_that_shrank_leaves_nothing_of_the_longer_one(tmp_path: Path) -> None:
    with EmulatedHost(tmp_path / "host") as host:
        for length in (20_000, 10_000, 10, 9_000, 1):
            for _ in range(2):
                with host.machine.change() as state:
                    state["storage"] = "x" * length
        with EmulatedHost(tmp_path / "host") as other, other.machine.view() as state:
            assert state["storage"] == "x"


def _hold(directory: str, ready: str) -> None:
    host = EmulatedHost(Path(directory))
    guest = Guest.create(host, VF1, name="qemu")
    guest.attach(host, VF1)
    guest.step(3)
    Path(ready).touch()
    time.sleep(60)


def test_a_killed_virtual_machine_lets_go_of_its_function(tmp_path: Path) -> None:
    device = bench(tmp_path / "host")
    device.prepare()
    group = (device.host.sysfs.readlink(f"bus/pci/devices/{VF1}/iommu_group") or "").rpartition("/")[2]
    vmm = fork.Process(target=_hold, args=(str(tmp_path / "host"), str(tmp_path / "ready")))
    vmm.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [opener.pid for opener in device.host.openers([f"vfio/{group}"])] == [vmm.pid]
    os.kill(vmm.pid or 0, signal.SIGKILL)
    vmm.join()
    assert device.host.openers([f"vfio/{group}"]) == []
    device.write("bus/pci/drivers/vfio-pci/unbind", VF1)
    assert list((tmp_path / "host" / "memory").iterdir()) == []
    device.host.close()


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    for text in ("not json", "[]", '{"format": 99}'):
        (tmp_path / "state.json").write_text(text)
        with pytest.raises(MalformedError):
            EmulatedHost(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError):
        EmulatedHost(tmp_path / "file")


def test_a_host_is_made_once_and_of_known_parts(tmp_path: Path) -> None:
    create(tmp_path / "host", ["tp4159", "nvme-2.1-vendor"], serials=["A", "B"]).close()
    with pytest.raises(UsageError):
        create(tmp_path / "host")
    with pytest.raises(UsageError):
        create(tmp_path / "other", ["nvme-9"])
    with pytest.raises(UsageError):
        create(tmp_path / "third", options={"colour": "red"})
    with EmulatedHost(tmp_path / "host") as host:
        assert host.sysfs.devices("nvme") == ["nvme0", "nvme1"]
        assert [host.sysfs.read(f"class/nvme/{name}/serial") for name in ("nvme0", "nvme1")] == ["A", "B"]
        assert host.sysfs.read("class/nvme/nvme1/address") == "0000:02:00.0"


def test_locks_are_held_against_other_processes_and_named(tmp_path: Path) -> None:
    with EmulatedHost(tmp_path / "host") as ours, EmulatedHost(tmp_path / "host") as other, ours.lock("nvme0"):
        with pytest.raises(BusyError, match=str(os.getpid())), other.lock("nvme0", timeout_s=0.05):
            pass
        with other.lock("nvme1", timeout_s=0.05):
            pass


@pytest.mark.parametrize("row", GENERATIONS.values(), ids=GENERATIONS)
def test_a_generation_survives_being_written_down(row: DeviceGeneration) -> None:
    assert DeviceGeneration.from_json(json.loads(json.dumps(row.to_json()))) == row


def test_hosts_with_one_storage_directory_share_a_medium(tmp_path: Path) -> None:
    row = NVME_2_1.with_(namespaces=(NamespaceRow(size=1 << 20), NamespaceRow(nsid=2, size=1 << 20)))
    for name in ("a", "b"):
        create(tmp_path / name, [row], storage=tmp_path / "medium").close()
    with EmulatedHost(tmp_path / "a") as first:
        assert first.sysfs.exists("block/nvme0n2")
        device = Bench(first, first.open_queue("nvme0"))
        device.prepare()
        guest = Guest.create(first, VF1, records=16, nsid=2)
        guest.attach(first, VF1)
        guest.step(30)
        assert guest.finish().clean
    written = (tmp_path / "medium" / "pf0-ns2.img").read_bytes()
    assert written.count(b"RECORD\0\0") > 100
