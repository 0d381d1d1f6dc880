"""The emulated sysfs has the kernel's errnos, its silent successes, and its traps."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelm.emulator.guest.guest import Guest
from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.errors import DeviceGoneError, HostError, MalformedError, NotSupportedError, PermissionDeniedError
from tests.emulated.emulator_bench import FIRST, PF, PF_DIR, VF1, VF1_DIR, VF2, Bench, bench


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Bench]:
    each = bench(tmp_path / "host")
    yield each
    each.host.close()


def refused(one: Bench, path: str, value: str) -> int:
    with pytest.raises(HostError) as caught:
        one.write(path, value)
    return caught.value.errno


def driver(host: EmulatedHost, bdf: str) -> str:
    return (host.sysfs.readlink(f"bus/pci/devices/{bdf}/driver") or "").rpartition("/")[2]


NUMVFS = f"{PF_DIR}/sriov_numvfs"
PROBE = "bus/pci/drivers_probe"
BIND = "bus/pci/drivers/vfio-pci/bind"


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("abc", errno.EINVAL),
        ("-1", errno.EINVAL),
        ("65536", errno.EINVAL),
        ("17", errno.ERANGE),
    ],
)
def test_a_count_that_cannot_be_is_refused(one: Bench, value: str, number: int) -> None:
    assert refused(one, NUMVFS, value) == number
    assert one.host.sysfs.read(NUMVFS) == "0"


def test_a_count_changes_from_and_to_zero_only_and_the_same_count_is_success(one: Bench) -> None:
    one.enable(2)
    assert refused(one, NUMVFS, "3") == errno.EBUSY
    one.write(NUMVFS, "0x2")
    one.write(NUMVFS, "0")
    one.write(NUMVFS, "3\n")
    assert one.host.sysfs.read(NUMVFS) == "3"


def test_without_a_driver_only_the_present_count_is_accepted(one: Bench) -> None:
    one.enable(2)
    one.write("bus/pci/drivers/nvme/unbind", PF)
    assert one.host.sysfs.read(NUMVFS) == "2"
    one.write(NUMVFS, "2")
    assert refused(one, NUMVFS, "0") == errno.ENOENT
    assert one.host.sysfs.exists(VF1_DIR)


def test_a_primary_in_vfio_has_no_sriov_and_one_with_vfs_cannot_go_there(one: Bench) -> None:
    one.enable(1)
    one.host.load_module("vfio-pci")
    one.write("bus/pci/drivers/nvme/unbind", PF)
    one.write(f"{PF_DIR}/driver_override", "vfio-pci")
    assert refused(one, BIND, PF) == errno.EBUSY
    one.write(f"{PF_DIR}/driver_override", "\n")
    one.write(PROBE, PF)
    one.write(NUMVFS, "0")
    one.write("bus/pci/drivers/nvme/unbind", PF)
    one.write(f"{PF_DIR}/driver_override", "vfio-pci")
    one.write(BIND, PF)
    assert refused(one, NUMVFS, "1") == errno.ENOENT


def test_links_join_a_vf_to_its_primary_its_group_and_its_controller(one: Bench) -> None:
    one.enable(2)
    sysfs = one.host.sysfs
    assert sysfs.readlink(f"{PF_DIR}/virtfn0") == f"../{VF1}"
    assert sysfs.readlink(f"{VF1_DIR}/physfn") == f"../{PF}"
    assert sysfs.read(f"{PF_DIR}/virtfn1/physfn/sriov_numvfs") == "2"
    group = (sysfs.readlink(f"{VF1_DIR}/iommu_group") or "").rpartition("/")[2]
    assert sysfs.listdir(f"kernel/iommu_groups/{group}/devices") == [VF1]
    assert sysfs.read("class/nvme/nvme0/device/vendor") == "0x1e4c"
    assert sysfs.read("block/nvme0n1/queue/max_hw_sectors_kb") == "2048"
    assert sysfs.exists("class/nvme/nvme0/nvme0n1/holders")
    assert sysfs.readlink("bus/pci/drivers/nvme/module") == "../../../../module/nvme"
    assert sysfs.devices("nvme") == ["nvme0"]
    assert PF in sysfs.devices("pci")
    assert sysfs.listdir("no/such/place") == []
    assert sysfs.readlink(f"{PF_DIR}/vendor") is None


def test_the_vfs_address_carries_into_device_numbers(one: Bench) -> None:
    one.enable(9)
    assert one.host.sysfs.readlink(f"{PF_DIR}/virtfn8") == "../0000:01:01.1"


def test_a_vf_made_anew_has_another_inode_and_has_forgotten_its_override(one: Bench) -> None:
    one.enable(1)
    before = one.host.sysfs.inode(VF1_DIR)
    one.write(f"{VF1_DIR}/driver_override", "vfio-pci")
    assert one.host.sysfs.inode(VF1_DIR) == before
    one.write(NUMVFS, "0")
    one.write(NUMVFS, "1")
    assert one.host.sysfs.inode(VF1_DIR) != before
    assert one.host.sysfs.read(f"{VF1_DIR}/driver_override") == "(null)"


def test_clearing_an_override_needs_a_newline_and_a_write_of_nothing_is_refused(one: Bench) -> None:
    override = f"{PF_DIR}/driver_override"
    one.write(override, "anything at all")
    assert one.host.sysfs.read(override) == "anything at all"
    with pytest.raises(HostError, match="cannot write nothing"):
        one.write(override, "")
    one.write(override, "\n")
    assert one.host.sysfs.read(override) == "(null)"


def test_drivers_probe_succeeds_silently_where_bind_says_why(one: Bench) -> None:
    one.enable(1)
    one.host.load_module("vfio-pci")
    one.write(PROBE, VF1)  # autoprobe is off and there is no override
    assert driver(one.host, VF1) == ""
    assert refused(one, BIND, VF1) == errno.ENODEV
    one.write(f"{VF1_DIR}/driver_override", "no-such-driver")
    one.write(PROBE, VF1)
    assert driver(one.host, VF1) == ""
    one.write(f"{VF1_DIR}/driver_override", "nvme")
    one.write(PROBE, VF1)  # the secondary is Offline: the probe fails
    assert driver(one.host, VF1) == ""
    assert refused(one, "bus/pci/drivers/nvme/bind", VF1) == errno.ENODEV
    assert refused(one, PROBE, "0000:09:00.0") == errno.ENODEV


def test_autoprobe_off_defeats_plain_bind_and_new_id(one: Bench) -> None:
    one.enable(1)
    one.host.load_module("vfio-pci")
    one.write("bus/pci/drivers/vfio-pci/new_id", "1e4c 2101")
    assert driver(one.host, VF1) == ""
    assert refused(one, BIND, VF1) == errno.ENODEV
    assert refused(one, "bus/pci/drivers/vfio-pci/new_id", "1e4c 2101") == errno.EEXIST
    assert refused(one, "bus/pci/drivers/vfio-pci/new_id", "garbage") == errno.EINVAL
    assert refused(one, "bus/pci/drivers/vfio-pci/remove_id", "ffff 2101") == errno.ENODEV
    one.write(f"{PF_DIR}/sriov_drivers_autoprobe", "y")
    one.write(BIND, VF1)
    assert driver(one.host, VF1) == "vfio-pci"


def test_with_autoprobe_on_an_offline_vf_fails_in_the_nvme_driver_and_an_online_one_does_not(one: Bench) -> None:
    one.write(NUMVFS, "1")
    assert driver(one.host, VF1) == ""
    one.online()
    one.write(PROBE, VF1)
    assert driver(one.host, VF1) == "nvme"
    assert one.host.sysfs.read("class/nvme/nvme1/cntlid") == str(FIRST)
    assert one.host.node_exists("nvme1n1")
    assert refused(one, "bus/pci/drivers/nvme/bind", VF1) == errno.EBUSY
    assert one.status(0x1C, FIRST << 16 | 7) == 0  # Offline: the driver lets go of it
    assert driver(one.host, VF1) == ""


def test_binding_to_vfio_makes_the_group_node_and_a_numbered_device(one: Bench) -> None:
    one.prepare()
    assert one.host.sysfs.listdir(f"{VF1_DIR}/vfio-dev") == ["vfio0"]
    group = (one.host.sysfs.readlink(f"{VF1_DIR}/iommu_group") or "").rpartition("/")[2]
    assert one.host.node_exists(f"vfio/{group}")
    assert one.host.node_exists("vfio/vfio")
    assert not one.host.node_exists("vfio/devices/vfio0")  # Debian's kernels have no such nodes
    one.host.set_option(cdev=True)
    assert one.host.node_exists("vfio/devices/vfio0")
    assert refused(one, "bus/pci/drivers/nvme/unbind", VF1) == errno.ENODEV


def test_the_configuration_space_of_a_vf_does_not_identify_it(one: Bench) -> None:
    one.enable(1)
    assert one.host.sysfs.read(f"{VF1_DIR}/config").startswith("\\xff\\xff\\xff\\xff")
    assert one.host.sysfs.read(f"{VF1_DIR}/device") == "0x2101"


def test_taking_a_vf_away_waits_until_its_vm_lets_go(one: Bench) -> None:
    one.prepare()
    guest = Guest.create(one.host, VF1)
    guest.attach(one.host, VF1)
    for path, value in (("bus/pci/drivers/vfio-pci/unbind", VF1), (NUMVFS, "0")):
        if guest.function is None:
            one.write(f"{VF1_DIR}/driver_override", "vfio-pci")
            one.write(PROBE, VF1)
            guest.attach(one.host, VF1, start=False)
        function = guest.function
        assert function is not None
        writer = threading.Thread(target=one.write, args=(path, value))
        writer.start()
        deadline = time.monotonic() + 10
        while not function.asked_to_release and time.monotonic() < deadline:
            time.sleep(0.001)
        assert writer.is_alive()
        assert driver(one.host, VF1) == "vfio-pci"
        guest.detach()
        writer.join(10)
        assert not writer.is_alive()
    assert not one.host.sysfs.exists(VF1_DIR)


def test_a_function_is_open_once_and_its_opener_has_a_name(one: Bench) -> None:
    one.prepare()
    group = (one.host.sysfs.readlink(f"{VF1_DIR}/iommu_group") or "").rpartition("/")[2]
    guest, other = Guest.create(one.host, VF1, name="qemu-kvm"), Guest.create(one.host, VF1)
    guest.attach(one.host, VF1)
    assert [str(each).split(" ")[0] for each in one.host.openers([f"vfio/{group}", "nvme0"])] == ["qemu-kvm"]
    with pytest.raises(HostError) as caught:
        other.attach(one.host, VF1)
    assert caught.value.errno == errno.EBUSY
    guest.detach()
    assert one.host.openers([f"vfio/{group}"]) == []
    with pytest.raises(HostError) as caught:
        other.attach(one.host, VF2)
    assert caught.value.errno == errno.ENOENT


def test_without_an_iommu_probing_is_silent_and_binding_is_einval(tmp_path: Path) -> None:
    host = create(tmp_path / "host", options={"iommu": False})
    one = Bench(host, host.open_queue("nvme0"))
    one.enable(1)
    host.load_module("vfio-pci")
    one.write(f"{VF1_DIR}/driver_override", "vfio-pci")
    one.write(PROBE, VF1)
    assert driver(host, VF1) == ""
    assert refused(one, BIND, VF1) == errno.EINVAL
    assert not host.sysfs.exists(f"{VF1_DIR}/iommu_group")
    assert host.sysfs.listdir("kernel/iommu_groups") == host.sysfs.listdir("class/iommu") == []
    host.close()


def test_a_kernel_without_vfio_says_so(tmp_path: Path) -> None:
    host = create(tmp_path / "host", options={"vfio_module": False})
    with pytest.raises(NotSupportedError):
        host.load_module("vfio-pci")
    assert not host.sysfs.exists("bus/pci/drivers/vfio-pci")
    host.close()


def test_an_ordinary_user_may_read_and_not_write(tmp_path: Path) -> None:
    with create(tmp_path / "host", options={"privileged": False}) as host:
        assert host.sysfs.read(NUMVFS) == "0"
        assert not host.facts().privileged
        for attempt in (
            lambda: host.sysfs.write(NUMVFS, "1"),
            lambda: host.open_queue("nvme0"),
            lambda: host.load_module("vfio-pci"),
        ):
            with pytest.raises(PermissionDeniedError):
                attempt()


def test_paths_do_not_leave_the_tree(one: Bench) -> None:
    for path in ("/etc/passwd", "../etc", "", "class/../..", "a\0b"):
        with pytest.raises(MalformedError):
            one.host.sysfs.read(path)


def test_only_one_resets_and_only_known_methods_are_taken(one: Bench) -> None:
    assert refused(one, f"{PF_DIR}/reset", "2") == errno.EINVAL
    assert refused(one, f"{PF_DIR}/reset_method", "magic") == errno.EINVAL
    one.write(f"{PF_DIR}/reset_method", "default")
    assert one.host.sysfs.read(f"{PF_DIR}/reset_method") == "flr bus"
    assert refused(one, f"{PF_DIR}/vendor", "1") == errno.EACCES
    with pytest.raises(HostError) as caught:
        one.host.sysfs.read(f"{PF_DIR}/reset")
    assert caught.value.errno == errno.EACCES


def test_a_removed_device_is_gone_for_its_open_queue_and_comes_back_with_a_rescan(one: Bench) -> None:
    one.prepare()
    one.host.remove(PF)
    with pytest.raises(DeviceGoneError):
        one.identify(0x01)
    assert not one.host.sysfs.exists(PF_DIR)
    with pytest.raises(DeviceGoneError):
        one.host.open_queue("nvme0")
    one.write("bus/pci/rescan", "1")
    with pytest.raises(DeviceGoneError):
        one.identify(0x01)  # the old node belongs to the old device
    assert Bench(one.host, one.host.open_queue("nvme0")).identify(0x01)


def test_a_reboot_forgets_vfs_overrides_and_openers(one: Bench) -> None:
    one.prepare()
    boot = one.host.facts().boot_id
    one.host.mount("nvme0n1", "/srv")
    one.host.reboot()
    assert one.host.facts().boot_id != boot
    assert not one.host.sysfs.exists(VF1_DIR)
    assert one.host.mounts() == []
    assert one.host.sysfs.read(f"{PF_DIR}/sriov_drivers_autoprobe") == "1"
    assert one.host.sysfs.read(NUMVFS) == "0"
