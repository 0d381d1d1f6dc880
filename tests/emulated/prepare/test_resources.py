"""How many resources a controller needs is the device's word; what its own answers deny is not acted on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.machine.generations import NVME_2_1
from nvmelm.errors import MalformedError, NotSupportedError, NvmelmError
from nvmelm.inventory.opened import OpenPrimary, open_primary
from nvmelm.inventory.picture import ChangeReport, Picture, Role
from nvmelm.prepare import release, secondaries, sequence, sriov
from nvmelm.prepare.cells import VFS
from nvmelm.prepare.check import check
from nvmelm.prepare.journal import Journal
from nvmelm.prepare.recover import recover
from tests.emulated.answers import agree
from tests.emulated.conftest import MakeHost

PF = "0000:01:00.0"
ONE_IS_ENOUGH = NVME_2_1.with_(max_vfs=63, vq_flexible=64, vq_per_secondary=1, vq_minimum=1)


def prepare(host: EmulatedHost, vfs: int, **options: int) -> ChangeReport:
    with open_primary(host, PF, change=True) as pf:
        return sequence.prepare(pf, Role.MIGRATABLE, vfs, confirm=agree, **options)  # type: ignore[arg-type]


def test_a_device_whose_secondaries_need_one_vq_resource_is_prepared(make_host: MakeHost) -> None:
    picture = prepare(make_host(ONE_IS_ENOUGH), 4, vq=1).picture
    assert picture is not None
    assert [(row.vq, row.online) for row in picture.secondaries[:5]] == [(1, True)] * 4 + [(0, False)]


def test_without_a_wish_the_limit_of_a_secondary_is_named_and_what_to_try(make_host: MakeHost) -> None:
    with pytest.raises(NotSupportedError) as met:
        prepare(make_host(ONE_IS_ENOUGH), 4)
    assert "VQFRSM" in met.value.cause
    assert met.value.fix.startswith("--vq 1 is tried")


def test_a_device_that_needs_more_than_was_asked_for_says_so_and_all_is_put_back(make_host: MakeHost) -> None:
    host = make_host()
    with pytest.raises(NvmelmError) as met:
        prepare(host, 1, vq=1)
    assert met.value.rolled_back
    with open_primary(host, PF) as pf:
        assert pf.picture().primary.vfs_enabled == 0


def test_a_device_that_assigns_no_vi_resources_is_prepared_without_them(make_host: MakeHost) -> None:
    device = NVME_2_1.with_(assigns=1, vi_minimum=0)
    with pytest.raises(NvmelmError):
        prepare(make_host(device), 2)
    report = prepare(make_host(device), 2, vi=0)
    assert not [action for action in report.actions if "VI" in action.summary]
    assert report.picture is not None
    assert [(secondary.vi, secondary.online, secondary.driver) for secondary in report.picture.secondaries[:2]] == [
        (0, True, "vfio-pci")
    ] * 2


def test_a_device_that_assigns_no_vi_resources_brings_a_controller_online_without_them(make_host: MakeHost) -> None:
    host = make_host(NVME_2_1.with_(assigns=1, vi_minimum=0))
    with open_primary(host, PF, change=True) as pf:
        sriov.enable_sriov(pf, 1, confirm=agree)
        secondaries.assign(pf, 0x42, vq=2, vi=None, confirm=agree)
        assert secondaries.online(pf, 0x42, confirm=agree).changed
        assert pf.picture().secondaries[0].online


TWISTS = {
    "0x0042 and 0x0043 both claim VF 1": lambda row: replace(row, vf_number=1) if row.cntlid == 0x43 else row,
    "0x0043 is said to be VF 999": lambda row: replace(row, vf_number=999) if row.cntlid == 0x43 else row,
    "0x0042 is a secondary of 0x0007": lambda row: replace(row, primary_cntlid=7) if row.cntlid == 0x42 else row,
    "0x0041 is the primary controller": lambda row: replace(row, cntlid=0x41) if row.cntlid == 0x42 else row,
}


@pytest.mark.parametrize("what", TWISTS)
def test_a_list_that_cannot_be_true_is_found_and_nothing_is_changed(
    what: str, make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host()
    own = OpenPrimary.picture

    def twisted(self: OpenPrimary, **options: bool) -> Picture:
        picture = own(self, **options)
        return replace(picture, secondaries=tuple(map(TWISTS[what], picture.secondaries)))

    monkeypatch.setattr(OpenPrimary, "picture", twisted)
    with open_primary(host, PF, change=True) as pf, pytest.raises(MalformedError, match="contradict") as met:
        sriov.enable_sriov(pf, 1, confirm=agree)
    assert what in met.value.cause
    assert not Journal(host, PF).runs()
    assert [finding.level for finding in check(host, PF).findings if what in finding.message] == ["problem"]


@pytest.mark.parametrize("undone", ["release", "recover"])
def test_a_list_that_cannot_be_true_is_not_undone_either(
    undone: str, make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host()
    with open_primary(host, PF, change=True) as pf:
        sriov.enable_sriov(pf, 1, confirm=agree)
        Journal(host, PF).begin("sriov enable", pf.ref.serial, {VFS: 2})
    before = Journal(host, PF).runs()
    own, claim = OpenPrimary.picture, TWISTS["0x0042 and 0x0043 both claim VF 1"]

    def twisted(self: OpenPrimary, **options: bool) -> Picture:
        picture = own(self, **options)
        return replace(picture, secondaries=tuple(map(claim, picture.secondaries)))

    monkeypatch.setattr(OpenPrimary, "picture", twisted)
    with pytest.raises(MalformedError, match="contradict"):
        if undone == "recover":
            recover(host, confirm=agree)
        else:
            with open_primary(host, PF, change=True) as pf:
                release.release(pf, confirm=agree)
    assert Journal(host, PF).runs() == before
