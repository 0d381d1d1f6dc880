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
def device(tmp_path: Path) -> Iterator[Bench]:
    device = bench(tmp_path / "host")
    yield device
    device.host.close()


def refused(device: Bench, path: str, value: str) -> int:
    with pytest.raises(HostError) as caught:
        device.write(path, value)
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
def test_a_count_that_cannot_be_is_refused(device: Bench, value: str, number: int) -> None:
    assert refused(device, NUMVFS, value) == number
    assert device.host.sysfs.read(NUMVFS) == "0"


def test_a_count_changes_from_and_to_zero_only_and_the_same_count_is_success(device: Bench) -> None:
    device.enable(2)
    assert refused(device, NUMVFS, "3") == errno.EBUSY
    device.write(NUMVFS, "0x2")
    device.write(NUMVFS, "0")
    device.write(NUMVFS, "3\n")
    assert device.host.sysfs.read(NUMVFS) == "3"


def test_without_a_driver_only_the_present_count_is_accepted(device: Bench) -> None:
    device.enable(2)
    device.write("bus/pci/drivers/nvme/unbind", PF)
    assert device.host.sysfs.read(NUMVFS) == "2"
    device.write(NUMVFS, "2")
    assert refused(device, NUMVFS, "0") == errno.ENOENT
    assert device.host.sysfs.exists(VF1_DIR)


def test_a_primary_in_vfio_has_no_sriov_and_one_with_vfs_cannot_go_there(device: Bench) -> None:
    device.enable(1)
    device.host.load_module("vfio-pci")
    device.write("bus/pci/drivers/nvme/unbind", PF)
    device.write(f"{PF_DIR}/driver_override", "vfio-pci")
    assert refused(device, BIND, PF) == errno.EBUSY
    device.write(f"{PF_DIR}/driver_override", "\n")
    device.write(PROBE, PF)
    device.write(NUMVFS, "0")
    device.write("bus/pci/drivers/nvme/unbind", PF)
    device.write(f"{PF_DIR}/driver_override", "vfio-pci")
    device.write(BIND, PF)
    assert refused(device, NUMVFS, "1") == errno.ENOENT


def test_links_join_a_vf_to_its_primary_its_group_and_its_controller(device: Bench) -> None:
    device.enable(2)
    sysfs = device.host.sysfs
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


def test_the_vfs_address_carries_into_device_numbers(device: Bench) -> None:
    device.enable(9)
    assert device.host.sysfs.readlink(f"{PF_DIR}/virtfn8") == "../0000:01:01.1"


def test_a_vf_made_anew_has_another_inode_and_has_forgotten_its_override(device: Bench) -> None:
    device.enable(1)
    before = device.host.sysfs.inode(VF1_DIR)
    device.write(f"{VF1_DIR}/driver_override", "vfio-pci")
    assert device.host.sysfs.inode(VF1_DIR) == before
    device.write(NUMVFS, "0")
    device.write(NUMVFS, "1")
    assert device.host.sysfs.inode(VF1_DIR) != before
    assert device.host.sysfs.read(f"{VF1_DIR}/driver_override") == "(null)"


def test_clearing_an_override_needs_a_newline_and_a_write_of_nothing_is_refused(device: Bench) -> None:
    override = f"{PF_DIR}/driver_override"
    device.write(override, "anything at all")
    assert device.host.sysfs.read(override) == "anything at all"
    with pytest.raises(HostError, match="cannot write nothing"):
        device.write(override, "")
    device.write(override, "\n")
    assert device.host.sysfs.read(override) == "(null)"


def test_drivers_probe_succeeds_silently_where_bind_says_why(device: Bench) -> None:
    device.enable(1)
    device.host.load_module("vfio-pci")
    device.write(PROBE, VF1)  # autoprobe is off and there is no override
    assert driver(device.host, VF1) == ""
    assert refused(device, BIND, VF1) == errno.ENODEV
    device.write(f"{VF1_DIR}/driver_override", "no-such-driver")
    device.write(PROBE, VF1)
    assert driver(device.host, VF1) == ""
    device.write(f"{VF1_DIR}/driver_override", "nvme")
    device.write(PROBE, VF1)  # the secondary is Offline: the probe fails
    assert driver(device.host, VF1) == ""
    assert refused(device, "bus/pci/drivers/nvme/bind", VF1) == errno.ENODEV
    assert refused(device, PROBE, "0000:09:00.0") == errno.ENODEV


def test_autoprobe_off_defeats_plain_bind_and_new_id(device: Bench) -> None:
    device.enable(1)
    device.host.load_module("vfio-pci")
    device.write("bus/pci/drivers/vfio-pci/new_id", "1e4c 2101")
    assert driver(device.host, VF1) == ""
    assert refused(device, BIND, VF1) == errno.ENODEV
    assert refused(device, "bus/pci/drivers/vfio-pci/new_id", "1e4c 2101") == errno.EEXIST
    assert refused(device, "bus/pci/drivers/vfio-pci/new_id", "garbage") == errno.EINVAL
    assert refused(device, "bus/pci/drivers/vfio-pci/remove_id", "ffff 2101") == errno.ENODEV
    device.write(f"{PF_DIR}/sriov_drivers_autoprobe", "y")
    device.write(BIND, VF1)
    assert driver(device.host, VF1) == "vfio-pci"


def test_with_autoprobe_on_an_offline_vf_fails_in_the_nvme_driver_and_an_online_one_does_not(device: Bench) -> None:
    device.write(NUMVFS, "1")
    assert driver(device.host, VF1) == ""
    device.online()
    device.write(PROBE, VF1)
    assert driver(device.host, VF1) == "nvme"
    assert device.host.sysfs.read("class/nvme/nvme1/cntlid") == str(FIRST)
    assert device.host.node_exists("nvme1n1")
    assert refused(device, "bus/pci/drivers/nvme/bind", VF1) == errno.EBUSY
    assert device.status(0x1C, FIRST << 16 | 7) == 0  # Offline: the driver lets go of it
    assert driver(device.host, VF1) == ""


def test_binding_to_vfio_makes_the_group_node_and_a_numbered_device(device: Bench) -> None:
    device.prepare()
    assert device.host.sysfs.listdir(f"{VF1_DIR}/vfio-dev") == ["vfio0"]
    group = (device.host.sysfs.readlink(f"{VF1_DIR}/iommu_group") or "").rpartition("/")[2]
    assert device.host.node_exists(f"vfio/{group}")
    assert device.host.node_exists("vfio/vfio")
    assert not device.host.node_exists("vfio/devices/vfio0")  # Debian's kernels have no such nodes
    device.host.set_option(cdev=True)
    assert device.host.node_exists("vfio/devices/vfio0")
    assert refused(device, "bus/pci/drivers/nvme/unbind", VF1) == errno.ENODEV


def test_the_configuration_space_of_a_vf_does_not_identify_it(device: Bench) -> None:
    device.enable(1)
    assert device.host.sysfs.read(f"{VF1_DIR}/config").startswith("\\xff\\xff\\xff\\xff")
    assert device.host.sysfs.read(f"{VF1_DIR}/device") == "0x2101"


def test_taking_a_vf_away_waits_until_its_vm_lets_go(device: Bench) -> None:
    device.prepare()
    guest = Guest.create(device.host, VF1)
    guest.attach(device.host, VF1)
    for path, value in (("bus/pci/drivers/vfio-pci/unbind", VF1), (NUMVFS, "0")):
        if guest.function is None:
            device.write(f"{VF1_DIR}/driver_override", "vfio-pci")
            device.write(PROBE, VF1)
            guest.attach(device.host, VF1, start=False)
        function = guest.function
        assert function is not None
        writer = threading.Thread(target=device.write, args=(path, value))
        writer.start()
        deadline = time.monotonic() + 10
        while not function.asked_to_release and time.monotonic() < deadline:
            time.sleep(0.001)
        assert writer.is_alive()
        assert driver(device.host, VF1) == "vfio-pci"
        guest.detach()
        writer.join(10)
        assert not writer.is_alive()
    assert not device.host.sysfs.exists(VF1_DIR)


def test_a_function_is_open_once_and_its_opener_has_a_name(device: Bench) -> None:
    device.prepare()
    group = (device.host.sysfs.readlink(f"{VF1_DIR}/iommu_group") or "").rpartition("/")[2]
    guest, other = Guest.create(device.host, VF1, name="qemu-kvm"), Guest.create(device.host, VF1)
    guest.attach(device.host, VF1)
    assert [str(opener).split(" ")[0] for opener in device.host.openers([f"vfio/{group}", "nvme0"])] == ["qemu-kvm"]
    with pytest.raises(HostError) as caught:
        other.attach(device.host, VF1)
    assert caught.value.errno == errno.EBUSY
    guest.detach()
    assert device.host.openers([f"vfio/{group}"]) == []
    with pytest.raises(HostError) as caught:
        other.attach(device.host, VF2)
    assert caught.value.errno == errno.ENOENT


def test_without_an_iommu_probing_is_silent_and_binding_is_einval(tmp_path: Path) -> None:
    host = create(tmp_path / "host", options={"iommu": False})
    device = Bench(host, host.open_queue("nvme0"))
    device.enable(1)
    host.load_module("vfio-pci")
    device.write(f"{VF1_DIR}/driver_override", "vfio-pci")
    device.write(PROBE, VF1)
    assert driver(host, VF1) == ""
    assert refused(device, BIND, VF1) == errno.EINVAL
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


def test_paths_do_not_leave_the_tree(device: Bench) -> None:
    for path in ("/etc/passwd", "../etc", "", "class/../..", "a\0b"):
        with pytest.raises(MalformedError):
            device.host.sysfs.read(path)


def test_only_one_resets_and_only_known_methods_are_taken(device: Bench) -> None:
    assert refused(device, f"{PF_DIR}/reset", "2") == errno.EINVAL
    assert refused(device, f"{PF_DIR}/reset_method", "magic") == errno.EINVAL
    device.write(f"{PF_DIR}/reset_method", "default")
    assert device.host.sysfs.read(f"{PF_DIR}/reset_method") == "flr bus"
    assert refused(device, f"{PF_DIR}/vendor", "1") == errno.EACCES
    with pytest.raises(HostError) as caught:
        device.host.sysfs.read(f"{PF_DIR}/reset")
    assert caught.value.errno == errno.EACCES


def test_a_removed_device_is_gone_for_its_open_queue_and_comes_back_with_a_rescan(device: Bench) -> None:
    device.prepare()
    device.host.remove(PF)
    with pytest.raises(DeviceGoneError):
        device.identify(0x01)
    assert not device.host.sysfs.exists(PF_DIR)
    with pytest.raises(DeviceGoneError):
        device.host.open_queue("nvme0")
    device.write("bus/pci/rescan", "1")
    with pytest.raises(DeviceGoneError):
        device.identify(0x01)  # the old node belongs to the old device
    assert Bench(device.host, device.host.open_queue("nvme0")).identify(0x01)


def test_a_reboot_forgets_vfs_overrides_and_openers(device: Bench) -> None:
    device.prepare()
    boot = device.host.facts().boot_id
    device.host.mount("nvme0n1", "/srv")
    device.host.reboot()
    assert device.host.facts().boot_id != boot
    assert not device.host.sysfs.exists(VF1_DIR)
    assert device.host.mounts() == []
    assert device.host.sysfs.read(f"{PF_DIR}/sriov_drivers_autoprobe") == "1"
    assert device.host.sysfs.read(NUMVFS) == "0"
