"""Flexible resources and Online/Offline follow the specification, whatever is asked in whatever order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from nvmelm.emulator.machine.generations import NVME_2_1, STOCK_QEMU_7_2
from nvmelm.wire.identify import PrimaryControllerCapabilities, parse_controller_list, parse_secondary_list
from tests.emulated.emulator_bench import (
    FIRST,
    PF,
    PF_DIR,
    PRIMARY,
    SECOND,
    VF1,
    VF1_DIR,
    VIRT,
    Bench,
    bench,
)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Bench]:
    device = bench(tmp_path / "host")
    yield device
    device.host.close()


def entry(device: Bench, cntlid: int = FIRST) -> tuple[bool, int, int]:
    listed = next(secondary for secondary in parse_secondary_list(device.identify(0x15)) if secondary.scid == cntlid)
    return listed.online, listed.nvq, listed.nvi


@pytest.mark.parametrize(
    ("cdw10", "cdw11", "status"),
    [
        pytest.param(FIRST << 16, 0, 0x4002, id="action-0"),
        pytest.param(FIRST << 16 | 5, 0, 0x4002, id="action-5"),
        pytest.param(0x0099 << 16 | 7, 0, 0x411F, id="offline-of-a-stranger"),
        pytest.param(0x0099 << 16 | 8, 2, 0x411F, id="assign-to-a-stranger"),
        pytest.param(0x0099 << 16 | 9, 0, 0x411F, id="online-of-a-stranger"),
        pytest.param(FIRST << 16 | 1, 2, 0x411F, id="allocate-to-another-than-the-primary"),
        pytest.param(PRIMARY << 16 | 8, 2, 0x411F, id="assign-to-the-primary"),
        pytest.param(FIRST << 16 | 2 << 8 | 8, 1, 0x4122, id="unknown-resource-type"),
        pytest.param(FIRST << 16 | 8, 9, 0x4121, id="more-than-one-secondary-may-have"),
        pytest.param(PRIMARY << 16 | 1, 65, 0x4121, id="allocate-more-than-there-is"),
        pytest.param(FIRST << 16 | 9, 0, 0x4120, id="online-without-resources"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_status(device: Bench, cdw10: int, cdw11: int, status: int) -> None:
    device.enable(2)
    assert device.status(VIRT, cdw10, cdw11) == status
    assert entry(device) == (False, 0, 0)


def test_more_than_is_free_is_refused(tmp_path: Path) -> None:
    device = bench(tmp_path / "host", NVME_2_1.with_(vq_flexible=10))
    assert device.status(VIRT, FIRST << 16 | 8, 8) == 0
    assert device.status(VIRT, SECOND << 16 | 8, 3) == 0x4122
    assert device.status(VIRT, SECOND << 16 | 8, 2) == 0
    assert device.status(VIRT, FIRST << 16 | 8, 7) == 0  # its own are credited
    device.host.close()


def test_resources_are_set_and_not_added_and_zero_gives_them_back(device: Bench) -> None:
    for count in (2, 5, 0):
        assert device.send(VIRT, FIRST << 16 | 8, count).result == count
        assert entry(device) == (False, count, 0)


def test_the_minimum_counts_only_for_resource_types_the_device_has(tmp_path: Path) -> None:
    device = bench(tmp_path / "host", NVME_2_1.with_(resource_types=1))
    device.enable(1)
    assert device.status(VIRT, FIRST << 16 | 0x108, 1) == 0x4122
    assert device.status(VIRT, FIRST << 16 | 8, 2) == 0
    assert device.status(VIRT, FIRST << 16 | 9) == 0
    device.host.close()


def test_a_device_that_rounds_up_says_how_many_it_gave(tmp_path: Path) -> None:
    device = bench(tmp_path / "host", NVME_2_1.with_(rounds_up=True, vq_granularity=4))
    assert device.send(VIRT, FIRST << 16 | 8, 3).result == 4
    assert entry(device) == (False, 4, 0)
    device.host.close()


def test_online_needs_the_vf_and_an_online_secondary_cannot_be_changed(device: Bench) -> None:
    for cdw10, count in ((FIRST << 16 | 8, 2), (FIRST << 16 | 0x108, 1)):
        assert device.status(VIRT, cdw10, count) == 0
    assert device.status(VIRT, FIRST << 16 | 9) == 0x4120
    device.enable(1)
    assert device.status(VIRT, FIRST << 16 | 9) == 0
    assert device.status(VIRT, FIRST << 16 | 9) == 0
    assert device.status(VIRT, FIRST << 16 | 8, 3) == 0x4120
    assert device.status(VIRT, FIRST << 16 | 7) == 0
    assert device.status(VIRT, FIRST << 16 | 7) == 0
    assert entry(device) == (False, 0, 0)


@pytest.mark.parametrize("what", ["driver", "flr", "rebind", "numvfs"])
def test_whatever_resets_the_primary_takes_every_secondary_offline(device: Bench, what: str) -> None:
    device.prepare()
    match what:
        case "driver":
            device.write("class/nvme/nvme0/reset_controller", "1")
        case "flr":
            device.write(f"{PF_DIR}/reset", "1")
        case "rebind":
            device.write("bus/pci/drivers/nvme/unbind", PF)
            device.write("bus/pci/drivers/nvme/bind", PF)
            device.queue = device.host.open_queue("nvme0")
        case "numvfs":
            device.write(f"{PF_DIR}/sriov_numvfs", "0")
    assert entry(device) == (False, 0, 0)
    vfs = "0" if what == "numvfs" else "2"
    assert device.host.sysfs.read(f"{PF_DIR}/sriov_numvfs") == vfs


def test_a_reset_of_the_vf_keeps_it_online_with_its_resources_and_ends_its_suspension(device: Bench) -> None:
    device.prepare()
    assert device.suspend() == 0
    device.write(f"{VF1_DIR}/reset", "1")
    assert entry(device) == (True, 3, 2)
    assert device.resume() == 0x413A


def test_the_primarys_own_share_changes_with_a_function_reset_and_not_with_cc_en(device: Bench) -> None:
    def share() -> int:
        return PrimaryControllerCapabilities(device.identify(0x14)).vqrfap

    assert device.send(VIRT, PRIMARY << 16 | 1, 4).result == 4
    assert share() == 0
    device.write("class/nvme/nvme0/reset_controller", "1")
    assert share() == 0
    device.write(f"{PF_DIR}/reset", "1")
    assert share() == 4
    assert device.status(VIRT, FIRST << 16 | 8, 8) == 0


def test_lists_of_more_secondaries_than_one_answer_holds_go_on_from_the_last(tmp_path: Path) -> None:
    device = bench(tmp_path / "host", NVME_2_1.with_(max_vfs=200, vq_flexible=400, vi_flexible=200))
    first = parse_secondary_list(device.identify(0x15))
    assert len(first) == 127
    rest = parse_secondary_list(device.identify(0x15, cntid=first[-1].scid + 1))
    assert [secondary.vfn for secondary in first + rest] == list(range(1, 201))
    device.enable(200)
    assert parse_controller_list(device.identify(0x13)) == list(range(PRIMARY, PRIMARY + 201))
    assert len(device.host.sysfs.devices("pci")) == 202
    device.host.close()


def test_a_secondary_manages_nothing(tmp_path: Path) -> None:
    device = bench(tmp_path / "host", STOCK_QEMU_7_2)
    device.enable(1)
    device.online(1)
    device.write("bus/pci/drivers/nvme/unbind", PF)  # gives nvme0 away, so that the VF's own node is told apart
    device.write("bus/pci/drivers/nvme/bind", PF)
    device.online(1)
    device.write(f"{VF1_DIR}/driver_override", "nvme")
    device.write("bus/pci/drivers_probe", VF1)
    own = Bench(device.host, device.host.open_queue("nvme1"))
    assert device.host.sysfs.read("class/nvme/nvme1/cntlid") == "1"
    assert parse_secondary_list(own.identify(0x15)) == []
    caps = PrimaryControllerCapabilities(own.identify(0x14))
    assert (caps.cntlid, caps.crt, caps.vqprt, caps.vqfrt) == (1, 3, 2, 0)
    assert own.status(VIRT, 1 << 16 | 7) == 0x411F
    device.host.close()


class Resources(RuleBasedStateMachine):
    """Any sequence of commands and resets keeps the books."""

    place: Path
    row = NVME_2_1.with_(max_vfs=4, vq_flexible=11, vi_flexible=7, vq_per_secondary=5, vi_per_secondary=3)
    made = 0

    @initialize()
    def start(self) -> None:
        Resources.made += 1
        self.one = bench(self.place / f"host{Resources.made}", self.row)

    @rule(
        action=st.sampled_from([1, 7, 8, 8, 8, 9, 9]),
        cntlid=st.integers(PRIMARY, PRIMARY + 5),
        kind=st.integers(0, 2),
        count=st.integers(0, 12),
    )
    def manage(self, action: int, cntlid: int, kind: int, count: int) -> None:
        self.one.status(VIRT, cntlid << 16 | kind << 8 | action, count)

    @rule(count=st.integers(0, 4))
    def numvfs(self, count: int) -> None:
        self.one.write(f"{PF_DIR}/sriov_numvfs", "0")
        self.one.write(f"{PF_DIR}/sriov_numvfs", str(count))

    @rule()
    def function_reset(self) -> None:
        self.one.write(f"{PF_DIR}/reset", "1")

    @invariant()
    def books_balance(self) -> None:
        caps = PrimaryControllerCapabilities(self.one.identify(0x14))
        secondaries = parse_secondary_list(self.one.identify(0x15))
        assert caps.vqrfa == sum(secondary.nvq for secondary in secondaries)
        assert caps.virfa == sum(secondary.nvi for secondary in secondaries)
        assert caps.vqrfa + caps.vqrfap <= caps.vqfrt
        assert caps.virfa + caps.virfap <= caps.vifrt
        enabled = int(self.one.host.sysfs.read(f"{PF_DIR}/sriov_numvfs"))
        for secondary in secondaries:
            assert secondary.nvq <= caps.vqfrsm
            assert secondary.nvi <= caps.vifrsm
            assert not secondary.online or (secondary.nvq >= 2 and secondary.nvi >= 1 and secondary.vfn <= enabled)

    def teardown(self) -> None:
        self.one.host.close()


def test_resources_are_conserved_by_any_sequence(tmp_path: Path) -> None:
    case: Any = type("Here", (Resources,), {"place": tmp_path})
    limits = settings(
        max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    run_state_machine_as_test(case, settings=limits)
