"""Step 6 on one host, with its gates: marks, drivers, proofs, and a guest that must not notice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from nvmelm.commands import AdminCommandError
from nvmelm.emulator.guest.guest import Guest
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.machine.generations import GENERATIONS
from nvmelm.errors import (
    BusyError,
    ImageError,
    IncompatibleError,
    NotReadyError,
    NotSupportedError,
    NvmelmError,
    TimedOutError,
    UncertainError,
)
from nvmelm.host import AdminCommand, AdminQueue, Completion
from nvmelm.inventory.opened import OpenPrimary, open_primary
from nvmelm.inventory.picture import Role
from nvmelm.prepare import allow, sequence
from nvmelm.prepare.actions import operation_text
from nvmelm.prepare.recover import recover
from nvmelm.state import verbs
from tests.emulated.answers import agree, decline
from tests.emulated.conftest import MakeHost

PF = "0000:01:00.0"
FIRST, SECOND = 0x42, 0x43
MiB = 1 << 20


def ready(host: EmulatedHost, role: Role, vfs: int = 2) -> EmulatedHost:
    with open_primary(host, PF, change=True) as pf:
        sequence.prepare(pf, role, vfs, vq=2, vi=1, confirm=agree)
    return host


def saved(host: EmulatedHost, file: Path, cntlid: int = FIRST) -> verbs.StateReport:
    with open_primary(host, PF, change=True) as pf:
        verbs.suspend(pf, cntlid, confirm=agree)
        return verbs.save(pf, cntlid, file)


def restored(host: EmulatedHost, file: Path, cntlid: int = FIRST) -> verbs.StateReport:
    with open_primary(host, PF, change=True) as pf:
        return verbs.restore(pf, cntlid, file, confirm=agree)


def suspended(host: EmulatedHost, cntlid: int = FIRST) -> bool:
    """Ask the emulated device itself."""
    with host.machine.view() as state:
        return any(
            controller["suspended"]
            for controller in state["primaries"][PF]["secondaries"].values()
            if controller["cntlid"] == cntlid
        )


def test_a_guest_moves_between_hosts_with_commands_in_flight(make_host: MakeHost, tmp_path: Path) -> None:
    source = ready(make_host(storage=tmp_path / "media"), Role.MIGRATABLE)
    destination = ready(make_host(storage=tmp_path / "media"), Role.RESUMABLE)
    guest = Guest.create(source, "0000:01:00.1")
    guest.attach(source, "0000:01:00.1")
    guest.step(50)
    while not guest.report().outstanding:
        guest.step()
    guest.hold(destination, "0000:01:00.1")
    saved(source, tmp_path / "image")
    restored(destination, tmp_path / "image")
    assert suspended(destination)
    guest.attach(destination, "0000:01:00.1")
    with open_primary(destination, PF, change=True) as pf:
        assert verbs.resume(pf, FIRST, confirm=agree).changed
    guest.step(50)
    report = guest.finish()
    assert report.clean
    assert report.submitted == report.completed
    assert report.verified


def test_an_image_is_for_root_alone_and_written_whole_or_not_at_all(make_host: MakeHost, tmp_path: Path) -> None:
    host = ready(make_host(), Role.MIGRATABLE)
    report = saved(host, tmp_path / "image")
    assert (tmp_path / "image").stat().st_mode & 0o777 == 0o600
    assert report.state_bytes
    host.arm("admin/0x42#2=status:0x4006")
    with open_primary(host, PF, change=True) as pf, pytest.raises(AdminCommandError):
        verbs.save(pf, FIRST, tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["image"]


def test_a_running_controller_is_not_saved(make_host: MakeHost, tmp_path: Path) -> None:
    host = ready(make_host(), Role.MIGRATABLE)
    with open_primary(host, PF, change=True) as pf, pytest.raises(NotReadyError) as caught:
        verbs.save(pf, FIRST, tmp_path / "image")
    assert caught.value.reason == "image-not-suspended"
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize("role", [None, Role.RESUMABLE])
def test_saving_needs_the_migratable_mark(make_host: MakeHost, tmp_path: Path, role: Role | None) -> None:
    host = ready(make_host(), role or Role.MIGRATABLE)
    with open_primary(host, PF, change=True) as pf:
        if role is None:
            allow.revoke(pf, [FIRST], confirm=agree)
        with pytest.raises(NotReadyError) as caught:
            verbs.save(pf, FIRST, tmp_path / "image")
    assert "allow-migration" in caught.value.fix


def test_restoring_needs_the_resumable_mark(make_host: MakeHost, tmp_path: Path) -> None:
    host = ready(make_host(), Role.MIGRATABLE)
    saved(host, tmp_path / "image")
    with pytest.raises(NotReadyError) as caught:
        restored(host, tmp_path / "image", SECOND)
    assert "allow-resume" in caught.value.fix


def test_state_never_goes_into_a_function_the_kernel_drives(make_host: MakeHost, tmp_path: Path) -> None:
    saved(ready(make_host(), Role.MIGRATABLE), tmp_path / "image")
    host = ready(make_host(), Role.RESUMABLE)
    before = admin_commands(host)
    host.sysfs.write("bus/pci/devices/0000:01:00.1/driver/unbind", "0000:01:00.1")
    host.sysfs.write("bus/pci/devices/0000:01:00.1/driver_override", "nvme")
    host.sysfs.write("bus/pci/drivers_probe", "0000:01:00.1")
    with pytest.raises((BusyError, NotReadyError)):
        restored(host, tmp_path / "image")
    assert not suspended(host)
    assert admin_commands(host) == before


def admin_commands(host: EmulatedHost) -> int:
    """Return how many VQ resources the device says are assigned: what a stray command would have changed."""
    with open_primary(host, PF) as pf:
        return sum(secondary.vq for secondary in pf.picture().secondaries)


@pytest.mark.parametrize("damage", ["truncated", "altered", "foreign", "newer", "trailing", "empty"])
def test_a_damaged_image_is_refused_before_the_device_sees_a_byte(
    make_host: MakeHost, tmp_path: Path, damage: str
) -> None:
    image = tmp_path / "image"
    saved(ready(make_host(), Role.MIGRATABLE), image)
    raw = image.read_bytes()
    image.write_bytes(
        {
            "truncated": raw[:-9],
            "altered": raw[:-200] + bytes([raw[-200] ^ 1]) + raw[-199:],
            "foreign": b"\x7fELF" + raw[4:],
            "newer": raw[:8] + (99).to_bytes(4, "little") + raw[12:],
            "trailing": raw + b"\0",
            "empty": b"",
        }[damage]
    )
    host = ready(make_host(), Role.RESUMABLE)
    with pytest.raises(ImageError):
        restored(host, image)
    assert not suspended(host)


def test_a_state_of_another_model_is_incompatible(make_host: MakeHost, tmp_path: Path) -> None:
    saved(ready(make_host(), Role.MIGRATABLE), tmp_path / "image")
    other = GENERATIONS["nvme-2.1"].with_(model="another controller")
    host = ready(make_host(other), Role.RESUMABLE)
    with pytest.raises(IncompatibleError, match="does not fit"):
        restored(host, tmp_path / "image")
    assert not suspended(host)


def test_resuming_a_source_whose_state_was_saved_asks_first(make_host: MakeHost, tmp_path: Path) -> None:
    host = ready(make_host(), Role.MIGRATABLE)
    saved(host, tmp_path / "image")
    with open_primary(host, PF, change=True) as pf:
        with pytest.raises(NotReadyError, match="two running copies"):
            verbs.resume(pf, FIRST, confirm=decline)
        assert suspended(host)
        assert verbs.resume(pf, FIRST, confirm=agree).changed
        assert not verbs.resume(pf, FIRST, confirm=decline).changed


def test_a_save_killed_as_its_image_appears_still_warns_at_the_resume(
    make_host: MakeHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = ready(make_host(), Role.MIGRATABLE)
    with open_primary(host, PF, change=True) as pf:
        verbs.suspend(pf, FIRST, confirm=agree)
        real = verbs.state_save.save

        def killed(*words: object, **values: object) -> None:
            real(*words, **values)  # type: ignore[arg-type]
            raise SystemExit(137)

        monkeypatch.setattr(verbs.state_save, "save", killed)
        with pytest.raises(SystemExit):
            verbs.save(pf, FIRST, tmp_path / "image")
        assert (tmp_path / "image").exists()
        with pytest.raises(NotReadyError, match="two running copies"):
            verbs.resume(pf, FIRST, confirm=decline)


def test_a_save_that_failed_leaves_no_warning_behind(make_host: MakeHost, tmp_path: Path) -> None:
    host = ready(make_host(), Role.MIGRATABLE)
    with open_primary(host, PF, change=True) as pf:
        verbs.suspend(pf, FIRST, confirm=agree)
        host.arm("admin/0x42#2=status:0x4006")
        with pytest.raises(AdminCommandError):
            verbs.save(pf, FIRST, tmp_path / "image")
        assert verbs.resume(pf, FIRST, confirm=decline).changed


def test_a_lost_completion_is_a_time_out_and_says_what_the_driver_did(make_host: MakeHost, tmp_path: Path) -> None:
    host = ready(make_host(), Role.MIGRATABLE)
    host.arm("admin/0x42=lose")
    with open_primary(host, PF, change=True) as pf, pytest.raises((TimedOutError, NvmelmError)):
        verbs.suspend(pf, FIRST, confirm=agree)
        verbs.save(pf, FIRST, tmp_path / "image")
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize("kind", ["zeros", "ones", "noise", "huge", "states"])
def test_nonsense_for_a_state_is_refused_and_nothing_is_kept(make_host: MakeHost, tmp_path: Path, kind: str) -> None:
    host = ready(make_host(), Role.MIGRATABLE)
    with open_primary(host, PF, change=True) as pf:
        verbs.suspend(pf, FIRST, confirm=agree)
        host.arm(f"admin/0x42*20=nonsense:{kind}")
        with pytest.raises(NvmelmError):
            verbs.save(pf, FIRST, tmp_path / "image")
    assert not (tmp_path / "image").exists()


def test_a_device_that_takes_one_command_only_gets_one(make_host: MakeHost, tmp_path: Path) -> None:
    source = ready(make_host("tp4159"), Role.MIGRATABLE)
    saved(source, tmp_path / "image", 1)
    host = ready(make_host("tp4159"), Role.RESUMABLE)
    assert restored(host, tmp_path / "image", 2).parts == 1


def test_a_restore_cut_off_is_named_by_recover(make_host: MakeHost, tmp_path: Path) -> None:
    from nvmelm.emulator.machine.faults import EmulatedCrash

    saved(ready(make_host(), Role.MIGRATABLE), tmp_path / "image")
    host = ready(make_host(), Role.RESUMABLE)
    host.arm("admin/0x41/2=raise-before")
    with pytest.raises(EmulatedCrash):
        restored(host, tmp_path / "image")
    report = recover(host, confirm=decline, dry_run=True)
    assert [one.verb for one in report.unfinished] == ["state restore"]
    assert "suspended" in report.unfinished[0].meaning


def test_a_stock_controller_is_refused_with_the_reason(make_host: MakeHost, tmp_path: Path) -> None:
    host = make_host("stock-qemu-7.2")
    with open_primary(host, PF, change=True) as pf, pytest.raises(NotSupportedError, match="cannot migrate"):
        verbs.save(pf, 1, tmp_path / "image")


MEMORY = """
import resource, sys
from nvmelm import cli
code = cli.main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""


def peak_kib(*words: str, stdin: int | None = None, stdout: int | None = None) -> int:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, *words],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        check=True,
        text=True,
    )
    return int(done.stderr.splitlines()[-1])


def test_a_large_vendor_state_goes_through_in_constant_memory(make_host: MakeHost, tmp_path: Path) -> None:
    large = GENERATIONS["nvme-2.1-vendor"].with_(vendor_state_bytes=256 * MiB)
    source, destination = ready(make_host(large), Role.MIGRATABLE), ready(make_host(large), Role.RESUMABLE)
    with open_primary(source, PF, change=True) as pf:
        verbs.suspend(pf, FIRST, confirm=agree)
    image = tmp_path / "image"
    least = peak_kib("--host", source.name, "state", "save", PF, hex(FIRST), str(image), "--dry-run", "--force")
    save = peak_kib("--host", source.name, "state", "save", PF, hex(FIRST), str(image))
    assert image.stat().st_size > 256 * MiB
    descriptor = os.open(image, os.O_RDONLY)
    restore = peak_kib(
        "--host", destination.name, "state", "restore", PF, hex(FIRST), str(image), "--yes", stdin=descriptor
    )
    os.close(descriptor)
    assert max(save, restore) - least < 64 * 1024


def test_a_state_streams_through_a_pipe_into_another_host(make_host: MakeHost, tmp_path: Path) -> None:
    source, destination = ready(make_host(), Role.MIGRATABLE), ready(make_host(), Role.RESUMABLE)
    with open_primary(source, PF, change=True) as pf:
        verbs.suspend(pf, FIRST, confirm=agree)
    nvmelm = [sys.executable, "-m", "nvmelm"]
    save = subprocess.Popen(
        [*nvmelm, "--host", source.name, "state", "save", PF, hex(FIRST), "-"], stdout=subprocess.PIPE
    )
    restore = subprocess.run(
        [*nvmelm, "--host", destination.name, "state", "restore", PF, hex(FIRST), "-", "--yes", "--json"],
        stdin=save.stdout,
        capture_output=True,
        check=False,
    )
    if save.stdout is not None:
        save.stdout.close()
    assert (save.wait(), restore.returncode) == (0, 0), restore.stderr
    assert json.loads(restore.stdout)["changed"] is True
    assert suspended(destination)


def test_a_full_disk_while_saving_is_an_error_and_leaves_nothing(make_host: MakeHost) -> None:
    host = ready(make_host(), Role.MIGRATABLE)
    with open_primary(host, PF, change=True) as pf:
        verbs.suspend(pf, FIRST, confirm=agree)
        with pytest.raises((NvmelmError, UncertainError), match="space"):
            verbs.save(pf, FIRST, Path("/dev/full"))


class Spied:
    """An admin queue that remembers which migration commands were sent, as a dry run writes them."""

    def __init__(self, queue: AdminQueue) -> None:
        self._queue = queue
        self.max_transfer_bytes = queue.max_transfer_bytes
        self.sent: list[str] = []

    def submit(self, command: AdminCommand) -> Completion:
        if command.opcode in (0x41, 0x42):
            self.sent.append(operation_text(command))
        return self._queue.submit(command)


@contextmanager
def spied(host: EmulatedHost) -> Iterator[tuple[OpenPrimary, Spied]]:
    with open_primary(host, PF, change=True) as pf:
        queue = Spied(pf.queue)
        yield replace(pf, queue=queue), queue


def test_a_dry_run_shows_the_commands_that_the_run_then_sends(make_host: MakeHost, tmp_path: Path) -> None:
    source = ready(make_host(), Role.MIGRATABLE)
    destination = ready(make_host(), Role.RESUMABLE)
    image = tmp_path / "image"
    with spied(source) as (opened, queue):
        for act in (
            lambda **more: verbs.suspend(opened, FIRST, confirm=agree, **more),
            lambda **more: verbs.save(opened, FIRST, image, **more),
            lambda **more: verbs.resume(opened, FIRST, confirm=agree, **more),
        ):
            planned = act(dry_run=True)
            queue.sent.clear()
            assert not planned.changed
            assert act().changed
            shown = list(planned.operations)
            assert shown == [line for line in queue.sent if line.split()[1] == shown[0].split()[1]]
    with spied(destination) as (opened, queue):
        planned = verbs.restore(opened, FIRST, image, confirm=agree, dry_run=True)
        assert queue.sent == []
        verbs.restore(opened, FIRST, image, confirm=agree)
        assert list(planned.operations) == queue.sent[:-1]  # and a look at what it holds then


def test_a_dry_run_of_a_large_state_shows_its_first_commands_and_counts_the_others(
    make_host: MakeHost, tmp_path: Path
) -> None:
    host = ready(make_host(GENERATIONS["nvme-2.1-vendor"].with_(vendor_state_bytes=8 * MiB)), Role.MIGRATABLE)
    with spied(host) as (opened, queue):
        verbs.suspend(opened, FIRST, confirm=agree)
        planned = verbs.save(opened, FIRST, tmp_path / "image", dry_run=True)
        queue.sent.clear()
        verbs.save(opened, FIRST, tmp_path / "image")
        assert list(planned.operations[:3]) == queue.sent[:3]
        assert planned.operations[3] == f"and {len(queue.sent) - 3} more like it, up to the last byte"


def test_a_dry_run_refuses_what_the_run_refuses(make_host: MakeHost, tmp_path: Path) -> None:
    host = ready(make_host(), Role.MIGRATABLE)
    (tmp_path / "taken").write_text("precious")
    with open_primary(host, PF, change=True) as pf:

        def refused(file: Path, *, dry_run: bool) -> tuple[type[NvmelmError], str]:
            with pytest.raises(NvmelmError) as caught:
                verbs.save(pf, FIRST, file, dry_run=dry_run)
            return type(caught.value), caught.value.message

        running = [refused(tmp_path / "image", dry_run=dry_run) for dry_run in (True, False)]
        assert running[0] == running[1]
        assert running[0][0] is NotReadyError
        assert verbs.resume(pf, FIRST, confirm=agree, dry_run=True).operations == ()
        verbs.suspend(pf, FIRST, confirm=agree)
        assert verbs.suspend(pf, FIRST, confirm=agree, dry_run=True).operations == ()
        for name in ("taken", "nowhere/image", "."):
            assert refused(tmp_path / name, dry_run=True) == refused(tmp_path / name, dry_run=False)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["taken"]
