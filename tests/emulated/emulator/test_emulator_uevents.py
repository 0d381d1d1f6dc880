"""What the emulated kernel says when devices come and go, in the order measured on a real one."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.kernel import functions
from nvmelm.emulator.machine.pipes import EmulatedUevents
from nvmelm.errors import HostError, UeventsLostError
from nvmelm.host import Uevent, Uevents
from tests.emulated.conftest import MakeHost

PF, VF = "0000:01:00.0", "0000:01:00.1"
PCI = "bus/pci/devices"


def drain(events: Uevents) -> list[Uevent]:
    return list(iter(events.next, None))


def short(events: Uevents) -> list[tuple[str, str, str]]:
    return [(event.subsystem, event.action, event.device.rpartition("/")[2]) for event in drain(events)]


@pytest.fixture
def host(make_host: MakeHost) -> EmulatedHost:
    host = make_host()
    host.load_module("vfio-pci")
    host.sysfs.write(f"{PCI}/{PF}/sriov_drivers_autoprobe", "0")
    return host


def test_enabling_is_said_for_each_vf_and_then_for_the_pf(host: EmulatedHost) -> None:
    with host.uevents() as events:
        host.sysfs.write(f"{PCI}/{PF}/sriov_numvfs", "2")
        assert short(events) == [
            ("pci", "add", VF),
            ("pci", "change", VF),
            ("pci", "add", "0000:01:00.2"),
            ("pci", "change", "0000:01:00.2"),
            ("pci", "change", PF),
        ]


def test_binding_and_letting_go_are_said_in_the_kernels_order(host: EmulatedHost) -> None:
    host.sysfs.write(f"{PCI}/{PF}/sriov_numvfs", "1")
    with host.uevents() as events:
        host.sysfs.write(f"{PCI}/{VF}/driver_override", "vfio-pci")
        host.sysfs.write("bus/pci/drivers_probe", VF)
        bound = drain(events)
        assert [(event.subsystem, event.action) for event in bound] == [
            ("vfio", "add"),
            ("vfio-dev", "add"),
            ("pci", "bind"),
        ]
        assert bound[0].properties["DEVNAME"].startswith("vfio/")
        assert bound[2].properties["DRIVER"] == "vfio-pci"
        assert bound[2].properties["PCI_SLOT_NAME"] == VF
        host.sysfs.write(f"{PCI}/{PF}/sriov_numvfs", "0")
        gone = drain(events)
        assert [(event.subsystem, event.action) for event in gone] == [
            ("vfio-dev", "remove"),
            ("vfio", "remove"),
            ("pci", "unbind"),
            ("pci", "remove"),
        ]
        assert "DRIVER" not in gone[2].properties
        numbers = [event.seqnum for event in (*bound, *gone)]
        assert numbers == list(range(numbers[0], numbers[0] + 7))


def test_a_probe_of_an_offline_controller_comes_and_goes_without_a_bind(host: EmulatedHost) -> None:
    host.sysfs.write(f"{PCI}/{PF}/sriov_drivers_autoprobe", "1")
    with host.uevents() as events:
        host.sysfs.write(f"{PCI}/{PF}/sriov_numvfs", "1")
        said = [event for event in short(events) if event[0] == "nvme"]
        assert said == [("nvme", "add", "nvme1"), ("nvme", "remove", "nvme1")]


def test_a_reset_of_the_pf_is_a_connect_and_a_removal_is_a_removal(host: EmulatedHost) -> None:
    with host.uevents() as events:
        host.reset_primary(PF)
        (said,) = drain(events)
        assert (said.subsystem, said.action, said.properties["NVME_EVENT"]) == ("nvme", "change", "connected")
        host.remove(PF)
        assert short(events) == [("nvme", "remove", "nvme0"), ("pci", "unbind", PF), ("pci", "remove", PF)]
        host.sysfs.write("bus/pci/rescan", "1")
        assert [event[:2] for event in short(events)] == [
            ("pci", "add"),
            ("nvme", "add"),
            ("nvme", "change"),
            ("pci", "bind"),
        ]


def test_a_refused_write_says_nothing(host: EmulatedHost) -> None:
    with host.uevents() as events:
        for value in ("9999", "x"):
            with pytest.raises(HostError):
                host.sysfs.write(f"{PCI}/{PF}/sriov_numvfs", value)
        assert drain(events) == []


def test_a_change_that_is_not_kept_was_never_said(host: EmulatedHost) -> None:
    host.sysfs.write(f"{PCI}/{PF}/sriov_numvfs", "1")
    with host.uevents() as events:
        with pytest.raises(RuntimeError), host.machine.change() as state:
            functions.disable_vfs(host.machine, state["primaries"][PF])
            raise RuntimeError("dropped")
        assert drain(events) == []
        host.sysfs.write(f"{PCI}/{PF}/sriov_numvfs", "0")
        assert short(events) == [("pci", "remove", VF)]


def test_everybody_who_listens_hears_it_and_the_dead_are_forgotten(host: EmulatedHost) -> None:
    listeners = host.machine.listeners
    with host.uevents() as ours, host.uevents() as other:
        dead = listeners / "dead.pipe"
        os.mkfifo(dead)
        host.reset_primary(PF)
        assert short(ours) == short(other) == [("nvme", "change", "nvme0")]
        assert not dead.exists()
    assert not list(listeners.glob("*.pipe"))


def test_who_does_not_keep_up_loses_and_is_told_once(host: EmulatedHost) -> None:
    with EmulatedUevents(host.machine.listeners, size=4096) as events:
        for _ in range(40):
            host.reset_primary(PF)
        with pytest.raises(UeventsLostError):
            drain(events)
        assert drain(events) == []
        host.reset_primary(PF)
        assert len(drain(events)) == 1


def test_nothing_that_several_threads_say_is_lost(host: EmulatedHost) -> None:
    with host.uevents() as events:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: host.reset_primary(PF), range(200)))
        numbers = [event.seqnum for event in drain(events)]
    assert numbers == list(range(numbers[0], numbers[0] + 200))


def test_what_a_killed_listener_lost_is_tidied_up(host: EmulatedHost) -> None:
    listeners = host.machine.listeners
    with host.uevents():
        os.mkfifo(listeners / "dead.pipe")
        (listeners / "dead.lost").touch()
        host.reset_primary(PF)
        assert not list(listeners.glob("dead*"))


def test_an_event_fits_into_what_a_pipe_takes_at_once(host: EmulatedHost) -> None:
    with host.uevents() as events:
        host.sysfs.write(f"{PCI}/{PF}/sriov_numvfs", "1")
        longest = max(len(json.dumps(dict(event.properties))) + len(event.device) for event in drain(events))
    assert longest + 200 < 4096


def test_a_host_of_an_earlier_version_can_be_listened_to(host: EmulatedHost) -> None:
    with host.machine.change() as state:
        state.pop("seqnum", None)
    with host.uevents() as events:
        host.reset_primary(PF)
        assert drain(events)[0].seqnum > 0
