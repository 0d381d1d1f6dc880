"""Every refusal of the kernel that can be provoked, through the sysfs seam: the errno, and what it is said to mean."""

from __future__ import annotations

import errno

import pytest

from nvmelm.errors import HostError
from nvmelm.host.local.machine import LocalHost
from nvmelm.host.local.sysfs import DirectorySysfs
from tests.lab.machine import Pf, driver_of, group_of, override_of, put, wait_for

sysfs = DirectorySysfs()

DRIVERS = "bus/pci/drivers"


@pytest.fixture
def vfio(host: LocalHost) -> None:
    host.load_module("vfio-pci")


def refused(path: str, value: str) -> HostError:
    with pytest.raises(HostError) as caught:
        sysfs.write(path, value)
    assert caught.value.fix
    assert caught.value.cause
    return caught.value


@pytest.mark.parametrize(("value", "number", "reason"), [
    ("abc", errno.EINVAL, "not-a-count"),
    ("-1", errno.EINVAL, "not-a-count"),
    ("65536", errno.EINVAL, "not-a-count"),
    ("65535", errno.ERANGE, "too-many-vfs"),
])  # fmt: skip
def test_a_count_that_cannot_be_is_refused_with_its_reason(pf_a: Pf, value: str, number: int, reason: str) -> None:
    error = refused(f"{pf_a.relative}/sriov_numvfs", value)
    assert (error.errno, error.reason) == (number, reason)


def test_writing_nothing_is_refused_because_the_kernel_would_call_it_success(pf_a: Pf) -> None:
    assert refused(f"{pf_a.relative}/sriov_numvfs", "").reason == "empty-write"


def test_the_current_count_is_accepted_and_another_needs_zero_first(pf_a: Pf, enabled: list[str]) -> None:
    path = f"{pf_a.relative}/sriov_numvfs"
    sysfs.write(path, "2")
    error = refused(path, "1")
    assert (error.errno, error.reason) == (errno.EBUSY, "vfs-enabled")
    assert pf_a.address in error.fix
    assert pf_a.vfs == enabled


def test_a_pf_without_a_driver_takes_its_current_count_only(pf_b: Pf, scratch_host: None) -> None:
    path = f"{pf_b.relative}/sriov_numvfs"
    sysfs.write(f"{DRIVERS}/nvme/unbind", pf_b.address)
    sysfs.write(path, "0")
    error = refused(path, "1")
    assert (error.errno, error.reason) == (errno.ENOENT, "no-sriov-driver")


def test_a_pf_bound_to_vfio_cannot_enable_vfs(pf_b: Pf, vfio: None, scratch_host: None) -> None:
    sysfs.write(f"{DRIVERS}/nvme/unbind", pf_b.address)
    sysfs.write(f"{pf_b.relative}/driver_override", "vfio-pci")
    sysfs.write("bus/pci/drivers_probe", pf_b.address)
    assert driver_of(pf_b.address) == "vfio-pci"
    assert refused(f"{pf_b.relative}/sriov_numvfs", "1").reason == "no-sriov-driver"


def test_a_pf_with_vfs_cannot_go_to_vfio(pf_a: Pf, enabled: list[str], vfio: None) -> None:
    sysfs.write(f"{DRIVERS}/nvme/unbind", pf_a.address)
    sysfs.write(f"{pf_a.relative}/driver_override", "vfio-pci")
    error = refused(f"{DRIVERS}/vfio-pci/bind", pf_a.address)
    assert (error.errno, error.reason) == (errno.EBUSY, "already-bound")


def test_autoprobe_takes_a_boolean_only(pf_a: Pf) -> None:
    error = refused(f"{pf_a.relative}/sriov_drivers_autoprobe", "maybe")
    assert (error.errno, error.reason) == (errno.EINVAL, "not-a-boolean")


def test_a_function_without_sriov_is_told_so_from_the_missing_attribute(enabled: list[str]) -> None:
    error = refused(f"bus/pci/devices/{enabled[0]}/sriov_numvfs", "1")
    assert (error.errno, error.reason) == (errno.ENOENT, "no-sriov")


def test_probing_an_address_nobody_has_is_refused(vfio: None) -> None:
    error = refused("bus/pci/drivers_probe", "0000:ff:1f.7")
    assert (error.errno, error.reason) == (errno.ENODEV, "no-such-device")


def test_probing_binds_nothing_silently_where_bind_says_why(enabled: list[str], vfio: None) -> None:
    sysfs.write("bus/pci/drivers_probe", enabled[0])
    assert driver_of(enabled[0]) == ""
    error = refused(f"{DRIVERS}/nvme/bind", enabled[0])
    assert (error.errno, error.reason) == (errno.ENODEV, "no-match")


def test_an_override_binds_and_keeps_every_other_driver_away(enabled: list[str], vfio: None) -> None:
    function = f"bus/pci/devices/{enabled[0]}"
    assert sysfs.read(f"{function}/driver_override") == "(null)"
    sysfs.write(f"{function}/driver_override", "vfio-pci")
    assert refused(f"{DRIVERS}/nvme/bind", enabled[0]).errno == errno.ENODEV
    sysfs.write("bus/pci/drivers_probe", enabled[0])
    assert driver_of(enabled[0]) == "vfio-pci"
    assert (sysfs.readlink(f"{function}/driver") or "").endswith("/vfio-pci")
    assert refused(f"{DRIVERS}/vfio-pci/bind", enabled[0]).errno == errno.EBUSY
    sysfs.write(f"{DRIVERS}/vfio-pci/unbind", enabled[0])
    sysfs.write(f"{function}/driver_override", "\n")
    assert override_of(enabled[0]) == "(null)"


def test_unbinding_what_is_not_bound_is_refused(enabled: list[str]) -> None:
    error = refused(f"{DRIVERS}/nvme/unbind", enabled[0])
    assert (error.errno, error.reason) == (errno.ENODEV, "not-bound")


def test_binding_to_a_driver_that_is_not_loaded_is_refused(enabled: list[str]) -> None:
    error = refused(f"{DRIVERS}/no-such-driver/bind", enabled[0])
    assert (error.errno, error.reason) == (errno.ENOENT, "driver-not-loaded")


def test_reset_takes_one_and_its_method_a_known_name(enabled: list[str]) -> None:
    function = f"bus/pci/devices/{enabled[0]}"
    assert refused(f"{function}/reset", "2").reason == "not-one"
    assert refused(f"{function}/reset_method", "prayer").reason == "no-such-method"
    assert sysfs.read(f"{function}/reset_method") == "flr"
    sysfs.write(f"{function}/reset", "1")


def test_a_function_without_any_reset_method_has_no_reset_attribute(enabled: list[str]) -> None:
    function = f"bus/pci/devices/{enabled[0]}"
    sysfs.write(f"{function}/reset_method", "\n")
    assert refused(f"{function}/reset", "1").reason == "no-reset-method"


def test_an_id_is_added_once_and_removed_once(vfio: None) -> None:
    driver, never_made = f"{DRIVERS}/vfio-pci", "1af4 fff0"
    sysfs.write(f"{driver}/new_id", never_made)
    assert refused(f"{driver}/new_id", never_made).reason == "known-id"
    assert refused(f"{driver}/new_id", "garbage").reason == "not-an-id"
    sysfs.write(f"{driver}/remove_id", never_made)
    assert refused(f"{driver}/remove_id", never_made).reason == "unknown-id"


def test_a_vf_made_anew_at_the_same_address_has_another_inode(pf_a: Pf, enabled: list[str]) -> None:
    before = sysfs.inode(f"bus/pci/devices/{enabled[0]}")
    sysfs.write(f"{pf_a.relative}/sriov_numvfs", "0")
    sysfs.write(f"{pf_a.relative}/sriov_numvfs", "2")
    assert pf_a.vfs == enabled
    assert sysfs.inode(f"bus/pci/devices/{enabled[0]}") != before


def test_disabling_takes_attributes_links_and_listings_away(pf_a: Pf, enabled: list[str]) -> None:
    gone = f"bus/pci/devices/{enabled[0]}"
    sysfs.write(f"{pf_a.relative}/sriov_numvfs", "0")
    assert not sysfs.exists(gone)
    assert sysfs.listdir(gone) == []
    assert sysfs.readlink(f"{pf_a.relative}/virtfn0") is None
    with pytest.raises(HostError) as caught:
        sysfs.read(f"{gone}/driver_override")
    assert caught.value.errno == errno.ENOENT


def test_udev_and_the_class_directory_name_the_same_controllers() -> None:
    assert sysfs.devices("nvme") == sysfs.listdir("class/nvme")


def test_a_vf_of_its_own_group_appears_as_a_vfio_node(host: LocalHost, enabled: list[str], vfio: None) -> None:
    put(f"/sys/bus/pci/devices/{enabled[0]}/driver_override", "vfio-pci")
    put("/sys/bus/pci/drivers_probe", enabled[0])
    node = f"vfio/{group_of(enabled[0])}"
    wait_for(lambda: host.node_exists(node), node)
    assert sysfs.listdir(f"bus/pci/devices/{enabled[0]}/vfio-dev")[0].startswith("vfio")
