"""Faults strike where and when they were told to, once, and leave the state as the real event would."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelm.emulator.machine import faults
from nvmelm.emulator.machine.faults import CRASH_STATUS, EmulatedCrash
from nvmelm.errors import DeviceGoneError, HostError, MalformedError, TimedOutError, UsageError
from nvmelm.wire.formats import SupportedStateFormats
from nvmelm.wire.identify import parse_controller_list, parse_secondary_list
from nvmelm.wire.migration import ControllerStateHeader
from tests.emulated.emulator_bench import FIRST, PF_DIR, RECEIVE, SEND, Bench, bench


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Bench]:
    device = bench(tmp_path / "host")
    device.prepare()
    yield device
    device.host.close()


def online(device: Bench) -> bool:
    return parse_secondary_list(device.identify(0x15))[0].online


def test_a_status_strikes_the_nth_command_of_its_kind_and_has_no_effect(device: Bench) -> None:
    device.host.arm(f"admin/{SEND:#x}/0#2=status:0x4006")
    device.identify(0x01)
    assert device.suspend() == 0
    assert device.resume() == 0
    assert device.suspend() == 0x4006
    assert device.resume() == 0x413A
    assert device.suspend() == 0
    assert device.host.disarm() == 0


def test_a_fault_may_strike_several_times_in_a_row(device: Bench) -> None:
    device.host.arm("admin*2=status:0x4006")
    assert [device.suspend() for _ in range(3)] == [0x4006, 0x4006, 0]


def test_a_lost_completion_times_out_and_resets_the_primary(device: Bench) -> None:
    device.host.arm(f"admin/{SEND:#x}=lose")
    with pytest.raises(TimedOutError) as caught:
        device.suspend()
    assert caught.value.reason == "admin-timeout"
    assert not online(device)
    assert device.host.sysfs.read(f"{PF_DIR}/sriov_numvfs") == "2"


def test_a_delay_past_the_timeout_is_a_lost_completion_and_a_short_one_is_only_slow(device: Bench) -> None:
    device.host.arm("admin#1=delay:20", "admin#2=delay:20")
    before = time.monotonic()
    assert device.suspend() == 0
    assert time.monotonic() - before >= 0.02
    with pytest.raises(TimedOutError):
        device.status(SEND, 1, FIRST, timeout_ms=10)
    assert not online(device)


def test_a_reset_between_two_commands_is_silent(device: Bench) -> None:
    device.host.arm("admin#2=reset")
    assert device.suspend() == 0
    assert device.resume() == 0x413A
    assert not online(device)


def test_a_device_can_vanish_between_two_commands(device: Bench) -> None:
    device.host.arm("admin#1=vanish")
    with pytest.raises(DeviceGoneError) as caught:
        device.suspend()
    assert caught.value.reason == "controller-gone"
    assert not device.host.sysfs.exists(PF_DIR)


def test_an_errno_of_the_driver_is_the_error_the_real_queue_gives(device: Bench) -> None:
    device.host.arm("admin=errno:ENOMEM")
    with pytest.raises(HostError) as caught:
        device.suspend()
    assert caught.value.errno == errno.ENOMEM
    device.host.arm("admin=errno:EINTR")
    with pytest.raises(TimedOutError):
        device.suspend()


def test_nonsense_is_of_the_kind_that_was_asked_for(device: Bench) -> None:
    device.host.arm("admin/0x06/0x15=nonsense:counts")
    with pytest.raises(MalformedError):
        parse_secondary_list(device.identify(0x15))
    device.host.arm("admin/0x06/0x15=nonsense:states")
    assert {secondary.scs for secondary in parse_secondary_list(device.identify(0x15))} == {0xFE}
    device.host.arm("admin/0x06/0x15*2=nonsense:endless")
    assert [len(parse_secondary_list(device.identify(0x15))) for _ in range(2)] == [127, 127]
    device.host.arm("admin/0x06/0x13=nonsense:counts")
    with pytest.raises(MalformedError):
        parse_controller_list(device.identify(0x13))
    device.host.arm("admin/0x06/0x20=nonsense:counts")
    with pytest.raises(MalformedError):
        SupportedStateFormats.parse(device.identify(0x20)[:4000])
    device.host.arm(f"admin/{RECEIVE:#x}=nonsense:huge")
    assert ControllerStateHeader(device.receive().data).total_bytes == 48 + 8 * ((1 << 128) - 1)
    device.host.arm(f"admin/{RECEIVE:#x}=nonsense:zeros", f"admin/{RECEIVE:#x}#2=nonsense:ones")
    assert device.receive().data == bytes(48)
    assert device.receive().data == b"\xff" * 48
    device.host.arm("admin/0x06=nonsense:noise")
    assert len(set(device.identify(0x01))) > 200


def test_a_write_is_refused_or_ignored_or_slow_where_its_path_matches(device: Bench) -> None:
    path = f"{PF_DIR}/sriov_numvfs"
    device.host.arm("sysfs/*/sriov_numvfs#2=errno:EBUSY", "sysfs/*/sriov_numvfs#3=silent")
    device.write(f"{PF_DIR}/sriov_drivers_autoprobe", "1")
    device.write(path, "0")
    with pytest.raises(HostError) as caught:
        device.write(path, "1")
    assert (caught.value.errno, caught.value.reason) == (errno.EBUSY, "vfs-enabled")
    device.write(path, "1")
    assert device.host.sysfs.read(path) == "0"
    device.write(path, "1")
    assert device.host.sysfs.read(path) == "1"


@pytest.mark.parametrize(("action", "effect"), [("raise-before", 0), ("raise-after", 1)])
def test_a_crash_comes_before_or_after_the_effect_of_a_command(device: Bench, action: str, effect: int) -> None:
    device.host.arm(f"admin/{SEND:#x}={action}", f"sysfs/*/sriov_drivers_autoprobe={action}")
    with pytest.raises(EmulatedCrash):
        device.suspend()
    assert device.receive().result == effect
    with pytest.raises(EmulatedCrash):
        device.write(f"{PF_DIR}/sriov_drivers_autoprobe", "1")
    assert device.host.sysfs.read(f"{PF_DIR}/sriov_drivers_autoprobe") == str(effect)


@pytest.mark.parametrize(("action", "effect"), [("crash-before", 0), ("crash-after", 1)])
def test_a_crash_ends_the_process_and_the_next_one_finds_a_whole_state(device: Bench, action: str, effect: int) -> None:
    device.host.arm(f"admin/{SEND:#x}={action}")
    directory = device.host.machine.directory
    script = (
        "import sys, pathlib\n"
        "from tests.emulated.emulator_bench import Bench\n"
        "from nvmelm.emulator.host import EmulatedHost\n"
        "host = EmulatedHost(pathlib.Path(sys.argv[1]))\n"
        "Bench(host, host.open_queue('nvme0')).suspend()\n"
    )
    root = Path(__file__).parents[3]
    ended = subprocess.run([sys.executable, "-c", script, os.fspath(directory)], cwd=root, check=False)
    assert ended.returncode == CRASH_STATUS
    assert device.receive().result == effect
    assert device.suspend() == 0  # it has struck


@pytest.mark.parametrize(
    "line",
    [
        "",
        "admin",
        "admin=explode",
        "admin=status",
        "admin=status:soon",
        "admin=lose:1",
        "admin/x=lose",
        "sysfs/*=status:1",
        "sysfs/*=errno:ENOSUCH",
        "admin=nonsense:poetry",
        "admin=delay:long",
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(line: str) -> None:
    with pytest.raises(UsageError):
        faults.parse(line)


def test_options_change_what_kind_of_host_it_is_and_keep_their_kind(device: Bench) -> None:
    device.host.set_option(latency_ms=1, kernel_release="6.12")
    assert device.host.facts().kernel_release == "6.12"
    before = time.monotonic()
    assert device.suspend() == 0
    assert time.monotonic() - before >= 0.001
    for wrong in ({"colour": "red"}, {"iommu": 7}, {"max_segments": True}):
        with pytest.raises(UsageError):
            device.host.set_option(**wrong)
