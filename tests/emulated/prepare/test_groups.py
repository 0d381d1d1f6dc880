"""IOMMU groups and kernels as other hosts have them: shared groups, none, VFIO's own, and no VFIO devices."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from nvmelm.emulator.guest.vmm import EmulatedVmm
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.kernel.functions import open_vfio
from nvmelm.errors import BusyError, NotSupportedError, NvmelmError
from nvmelm.inventory import pci
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import ChangeReport, Picture, Role
from nvmelm.prepare import binding, release, secondaries, sequence, sriov
from nvmelm.prepare.check import check
from nvmelm.vm import handover
from nvmelm.vm import verbs as vm
from tests.emulated.answers import agree, decline
from tests.emulated.conftest import MakeHost

PF, VFS = "0000:01:00.0", ("0000:01:00.1", "0000:01:00.2")
OLD = "5.15.0-91-generic"


def look(host: EmulatedHost) -> Picture:
    with open_primary(host, PF) as pf:
        return pf.picture()


def prepare(host: EmulatedHost, vfs: int = 2) -> ChangeReport:
    with open_primary(host, PF, change=True) as pf:
        return sequence.prepare(pf, Role.MIGRATABLE, vfs, confirm=agree)


def bind(host: EmulatedHost, which: Sequence[str] = VFS, *, unmarked: bool = False) -> ChangeReport:
    with open_primary(host, PF, change=True) as pf:
        return binding.bind(pf, [Bdf.parse(address) for address in which], unmarked=unmarked, confirm=agree)


def unbind(host: EmulatedHost, which: Sequence[str] = VFS) -> None:
    with open_primary(host, PF, change=True) as pf:
        binding.unbind(pf, [Bdf.parse(address) for address in which], confirm=agree)


def ready(host: EmulatedHost, number: int = 0) -> None:
    picture = look(host)
    handover.require_ready(host, picture, picture.secondaries[number], unmarked=True)


def problems(host: EmulatedHost, code: str) -> list[tuple[str, str]]:
    return [
        (finding.message, finding.fix or "")
        for finding in check(host, PF).findings
        if finding.code == code and finding.level != "ok"
    ]


# The VFs share the group of their PF.


def test_a_preparation_says_that_no_vm_can_take_vfs_that_share_their_pfs_group(make_host: MakeHost) -> None:
    (note,) = prepare(make_host(options={"groups": "pf"})).notes
    assert note.startswith(f"no VM can take {', '.join(VFS)}: shares IOMMU group 1 with its PF {PF}")
    assert "ACS" in note


def test_nothing_advises_to_take_the_pf_from_its_driver(make_host: MakeHost) -> None:
    host = make_host(options={"groups": "pf"})
    said = [*prepare(host).notes, *(fix for _, fix in problems(host, "vf-group"))]
    with pytest.raises(BusyError, match="cannot be given to a VM") as met:
        ready(host)
    assert f"its PF {PF}" in met.value.cause
    for text in (*said, met.value.fix):
        assert "ACS" in text
        assert "bind" not in text


# The VFs share one group among themselves.


def test_vfs_of_one_group_are_said_to_go_to_one_vm(make_host: MakeHost) -> None:
    host = make_host(options={"groups": "vfs"})
    (note,) = prepare(host).notes
    assert note == f"{', '.join(VFS)} are in one IOMMU group, 2: they can only go to one VM, together"
    assert problems(host, "vf-group") == []
    ready(host)


def test_vfs_of_one_group_are_attached_to_one_vm_and_to_no_other(make_host: MakeHost, tmp_path: Path) -> None:
    host = make_host(options={"groups": "vfs"})
    prepare(host)

    def attach(number: int, socket: str) -> bool:
        with open_primary(host, PF) as pf:
            return vm.attach(pf, Bdf.parse(VFS[number]), qmp=str(tmp_path / socket), confirm=agree).changed

    with EmulatedVmm(host, socket=tmp_path / "one"), EmulatedVmm(host, socket=tmp_path / "other"):
        assert attach(0, "one")
        with pytest.raises(BusyError, match="in use") as met:
            attach(1, "other")
        assert met.value.cause.count("has /dev/vfio/2 open") == 1
        assert attach(1, "one")
        with open_primary(host, PF) as pf:
            detached = vm.detach(pf, Bdf.parse(VFS[1]), qmp=str(tmp_path / "one"), confirm=agree)
        assert not [note for note in detached.notes if "still open" in note]


def test_binding_both_vfs_of_a_group_asks_to_bind_neither(make_host: MakeHost) -> None:
    host = make_host(options={"groups": "vfs"})
    prepare(host)
    unbind(host)
    assert not [note for note in bind(host).notes if "bind" in note]


def test_a_vf_that_the_host_keeps_is_named_with_the_verb_that_frees_the_group(make_host: MakeHost) -> None:
    host = make_host(options={"groups": "vfs"})
    prepare(host)
    unbind(host, VFS[1:])
    host.sysfs.write(f"bus/pci/devices/{VFS[1]}/driver_override", "nvme")
    host.sysfs.write("bus/pci/drivers_probe", VFS[1])
    with pytest.raises(BusyError) as met:
        ready(host)
    assert met.value.fix == f"nvmelm vfio bind {VFS[1]}"


def test_a_group_of_one_needs_no_note(make_host: MakeHost) -> None:
    assert prepare(make_host()).notes == ()


# VFIO without an IOMMU.


@pytest.fixture
def noiommu(make_host: MakeHost) -> EmulatedHost:
    host = make_host(options={"iommu": False, "noiommu": True})
    with open_primary(host, PF, change=True) as pf:
        sriov.enable_sriov(pf, 1, confirm=agree)
        secondaries.assign(pf, 0x42, vq=2, vi=2, confirm=agree)
        secondaries.online(pf, 0x42, confirm=agree)
    return host


def test_a_function_bound_without_an_iommu_is_said_to_be_for_no_vm(noiommu: EmulatedHost) -> None:
    (note,) = bind(noiommu, VFS[:1], unmarked=True).notes
    assert note.startswith(f"no VM can take {VFS[0]}: has no IOMMU before it")
    with pytest.raises(NotSupportedError, match="cannot be given"):
        ready(noiommu)


def test_its_node_has_the_kernels_name_and_its_users_are_found(noiommu: EmulatedHost) -> None:
    bind(noiommu, VFS[:1], unmarked=True)
    node = look(noiommu).secondaries[0].vfio_node
    assert node == "/dev/vfio/noiommu-1"
    assert noiommu.node_exists(node.removeprefix("/dev/"))
    hold(noiommu)
    assert "dpdk" in look(noiommu).secondaries[0].used_by[0]


def test_groups_that_vfio_made_are_no_sign_of_an_iommu(noiommu: EmulatedHost) -> None:
    bind(noiommu, VFS[:1], unmarked=True)
    assert noiommu.sysfs.listdir("kernel/iommu_groups")
    levels = {finding.code: finding.level for finding in check(noiommu).findings}
    assert (levels["iommu"], levels["no-iommu-mode"]) == ("problem", "problem")
    with pytest.raises(NotSupportedError, match="IOMMU is off"):
        prepare(noiommu)


# Kernels before 6.1, which have no VFIO devices in sysfs.


@pytest.fixture
def old(make_host: MakeHost) -> EmulatedHost:
    host = make_host(options={"kernel_release": OLD})
    prepare(host)
    assert host.sysfs.listdir(f"bus/pci/devices/{VFS[0]}/vfio-dev") == []
    return host


def hold(host: EmulatedHost, pid: int | None = None) -> None:
    with host.machine.change():
        open_vfio(host.machine, VFS[0], pid=pid or os.getppid(), name="dpdk", memory="")


def test_the_node_of_a_function_follows_from_its_driver_and_group(old: EmulatedHost) -> None:
    first = look(old).secondaries[0]
    assert (first.vfio_node, first.vfio_device) == (f"/dev/vfio/{first.iommu_group}", None)
    ready(old)


def test_who_holds_a_function_is_seen_and_asked_about(old: EmulatedHost) -> None:
    hold(old)
    assert "dpdk" in look(old).secondaries[0].used_by[0]
    with open_primary(old, PF, change=True) as pf, pytest.raises(BusyError) as met:
        release.release(pf, confirm=decline)
    assert "dpdk" in met.value.cause


@pytest.mark.parametrize("kernel", [OLD, "6.1.0"])
def test_a_release_below_a_holder_ends_at_its_deadline(
    kernel: str, make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nvmelm.prepare.executor._IDLE_DEADLINE_S", 0.2)
    host = make_host(options={"kernel_release": kernel})
    prepare(host)
    hold(host)
    with open_primary(host, PF, change=True) as pf, pytest.raises(NvmelmError, match=r"waited 0\.2 s in vain"):
        release.release(pf, confirm=agree)


def test_a_write_that_the_kernel_blocks_ends_at_a_deadline_whoever_is_seen_to_hold_it(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nvmelm.prepare.executor._IDLE_DEADLINE_S", 0.2)
    host = make_host()
    prepare(host)
    hold(host)
    monkeypatch.setattr(type(host), "openers", lambda *_: [])  # the holder is in another namespace of processes
    with (
        open_primary(host, PF, change=True) as pf,
        pytest.raises(NvmelmError, match="in vain to write"),
    ):
        release.release(pf, confirm=agree)


def test_an_old_kernel_is_found_by_host_check(old: EmulatedHost) -> None:
    ((message, _),) = problems(old, "kernel")
    assert message.startswith(f"Linux {OLD} is older than 6.1")
    old.set_option(kernel_release="6.12.0")
    assert problems(old, "kernel") == []


# What sysfs says is a number only where it is one.


@pytest.mark.parametrize("target", ["../²", "../٣", "../" + "9" * 5000, "../-1", "../+1", "../1_0", "../ 1"])
def test_a_group_that_is_no_number_is_no_group(target: str) -> None:
    class Sysfs:
        def readlink(self, _: str) -> str:
            return target

    assert pci.iommu_group(Sysfs(), Bdf.parse(VFS[0])) is None  # type: ignore[arg-type]
