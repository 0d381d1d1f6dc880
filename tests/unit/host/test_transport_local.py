"""This machine behind the seam: private directories, locks, openers, mounts, modules."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from nvmelm.errors import (
    BusyError,
    HostError,
    MalformedError,
    NotSupportedError,
    PermissionDeniedError,
    TimedOutError,
)
from nvmelm.host import Mount, Opener
from nvmelm.host.local import processes
from nvmelm.host.local.machine import LocalHost
from nvmelm.host.local.sysfs import DirectorySysfs
from nvmelm.process.waiting import said_to

ROOT_STATUS = "Name:\tx\nCapEff:\t000001ffffffffff\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a scratch machine: sys, proc and dev."""
    for name in ("sys", "proc/self", "dev/vfio"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "proc/self/status").write_text(ROOT_STATUS)
    return tmp_path


@pytest.fixture
def host(tree: Path) -> LocalHost:
    return LocalHost(sysfs=DirectorySysfs(tree / "sys"), state_dir=tree / "state", proc=tree / "proc", dev=tree / "dev")


# --- the state directory


def test_the_state_directory_is_made_private_when_first_asked_for(tree: Path, host: LocalHost) -> None:
    assert not (tree / "state").exists()
    assert host.state_dir == tree / "state"
    assert (tree / "state").stat().st_mode & 0o7777 == 0o700


def test_the_state_directory_can_be_named_in_the_environment(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVMELM_STATE_DIR", str(tree / "elsewhere"))
    assert LocalHost().state_dir == tree / "elsewhere"


def test_a_state_directory_open_to_others_is_refused(tree: Path, host: LocalHost) -> None:
    (tree / "state").mkdir(mode=0o755)
    with pytest.raises(HostError, match="open to others") as caught:
        _ = host.state_dir
    assert "chmod 0700" in caught.value.fix


def test_a_state_directory_that_is_a_link_or_a_file_is_refused(tree: Path, host: LocalHost) -> None:
    (tree / "real").mkdir(mode=0o700)
    (tree / "state").symlink_to(tree / "real")
    with pytest.raises(HostError, match="is a link"):
        _ = host.state_dir
    (tree / "state").unlink()
    (tree / "state").write_text("")
    with pytest.raises(HostError, match="is no directory"):
        _ = host.state_dir


def test_a_state_directory_of_another_user_is_refused(
    tree: Path, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "state").mkdir(mode=0o700)
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        about = list(real(path))
        about[4] = 12345  # st_uid
        return os.stat_result(about)

    monkeypatch.setattr(Path, "lstat", lstat)
    with pytest.raises(HostError, match="belongs to user 12345"):
        _ = host.state_dir


def test_who_may_not_make_the_state_directory_is_not_stopped_from_reading(
    tree: Path, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path, **_: Any) -> None:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    assert host.state_dir == tree / "state"


# --- locks


def test_a_lock_names_its_holder_to_who_waits_too_long(tree: Path, host: LocalHost) -> None:
    other = LocalHost(state_dir=tree / "state")
    with other.lock("0000:01:00.0"):
        with pytest.raises(BusyError, match=f"process {os.getpid()}") as caught, host.lock("0000:01:00.0", timeout_s=0):
            pass
        assert caught.value.fix
        with host.lock("0000:02:00.0", timeout_s=0):
            pass
    with host.lock("0000:01:00.0", timeout_s=0):
        pass


def test_a_lock_is_waited_for_until_it_is_free(tree: Path, host: LocalHost) -> None:
    other, held, release = LocalHost(state_dir=tree / "state"), threading.Event(), threading.Event()

    def hold() -> None:
        with other.lock("nvme0"):
            held.set()
            release.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(10)
    threading.Timer(0.1, release.set).start()
    with host.lock("nvme0", timeout_s=10):
        assert release.is_set()
    thread.join()


def test_a_full_disk_does_not_keep_a_lock_from_being_held(
    tree: Path, host: LocalHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("nvmelm.disk.locks.os.pwrite", full)
    with LocalHost(state_dir=tree / "state") as two, host.lock("pf"):
        monkeypatch.undo()
        with pytest.raises(BusyError, match="another process"), two.lock("pf", timeout_s=0.1):
            pass


def test_a_wait_for_a_lock_that_lasts_is_said(tree: Path, host: LocalHost, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("nvmelm.process.waiting.SAID_AFTER_S", 0.05)
    with (
        LocalHost(state_dir=tree / "state") as two,
        host.lock("pf"),
        said_to(lambda what, _: said.append(what)),
        pytest.raises(BusyError),
        two.lock("pf", timeout_s=0.5),
    ):
        pass
    assert len(said) == 1
    assert said[0].endswith("to let go of pf")


def test_a_lock_taken_twice_by_one_host_nests(tree: Path, host: LocalHost) -> None:
    other = LocalHost(state_dir=tree / "state")
    with host.lock("nvme0"):
        with host.lock("nvme0", timeout_s=0):
            pass
        with pytest.raises(BusyError), other.lock("nvme0", timeout_s=0):
            pass
    with other.lock("nvme0", timeout_s=0):
        pass


def test_a_lock_is_freed_by_an_error_and_leaves_its_file_empty(tree: Path, host: LocalHost) -> None:
    with pytest.raises(KeyError), host.lock("nvme0"):
        raise KeyError
    path = tree / "state/locks/nvme0.lock"
    assert path.read_bytes() == b""
    assert path.stat().st_mode & 0o777 == 0o600
    with LocalHost(state_dir=tree / "state").lock("nvme0", timeout_s=0):
        pass


def test_what_a_lock_file_says_is_printed_without_control_characters(tree: Path, host: LocalHost) -> None:
    other = LocalHost(state_dir=tree / "state")
    with other.lock("nvme0"):
        (tree / "state/locks/nvme0.lock").write_text("77 nvmelm \x1b[2J list")
        with pytest.raises(BusyError, match="process 77") as caught, host.lock("nvme0", timeout_s=0):
            pass
        assert "\x1b" not in caught.value.message


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "a b", "x" * 200])
def test_a_lock_with_a_name_that_is_a_path_is_refused(host: LocalHost, name: str) -> None:
    with pytest.raises(MalformedError), host.lock(name):
        pass


def test_a_lock_never_follows_a_link(tree: Path, host: LocalHost) -> None:
    (host.state_dir / "locks").mkdir(mode=0o700)
    (tree / "state/locks/nvme0.lock").symlink_to(tree / "victim")
    with pytest.raises(HostError, match="cannot open the lock"), host.lock("nvme0"):
        pass
    assert not (tree / "victim").exists()


# --- openers


def test_a_process_with_the_node_open_is_found_and_this_one_left_out(tmp_path: Path) -> None:
    node = tmp_path / "dev/vfio/7"
    node.parent.mkdir(parents=True)
    node.write_text("")
    host = LocalHost(state_dir=tmp_path / "state", dev=tmp_path / "dev")
    with node.open() as handle:
        assert host.openers(["vfio/7", "vfio/8"]) == []
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stdout=handle) as child:
            found = host.openers(["vfio/7", "vfio/8"])
            child.kill()
    assert [(one.node, one.pid) for one in found] == [("vfio/7", child.pid)]


def test_one_process_with_several_nodes_is_named_for_each(tree: Path, host: LocalHost) -> None:
    descriptors = tree / "proc/4242/fd"
    descriptors.mkdir(parents=True)
    (tree / "proc/4242/comm").write_text("qemu\x1b[31m\n")
    for number, name in enumerate(("vfio/7", "vfio/9")):
        (tree / "dev" / name).write_text("")
        (descriptors / str(number)).symlink_to(tree / "dev" / name)
    (descriptors / "8").symlink_to("socket:[1]")
    (descriptors / "9").symlink_to(tree / "gone/vfio/7")
    shown = "qemu\\x1b[31m"
    assert host.openers(["vfio/7", "vfio/9", "vfio/11"]) == [
        Opener("vfio/7", 4242, shown),
        Opener("vfio/9", 4242, shown),
    ]


def test_processes_that_end_while_they_are_looked_at_are_left_out(tree: Path, host: LocalHost) -> None:
    (tree / "dev/vfio/7").write_text("")
    (tree / "proc/31").mkdir()
    (tree / "proc/32/fd").mkdir(parents=True)
    (tree / "proc/32/fd/0").symlink_to(tree / "dev/vfio/7")
    assert host.openers(["vfio/7"]) == [Opener("vfio/7", 32, "?")]


def test_a_device_is_recognised_by_its_number_under_another_name(tree: Path, host: LocalHost) -> None:
    (tree / "dev/vfio/7").symlink_to("/dev/null")
    descriptors = tree / "proc/51/fd"
    descriptors.mkdir(parents=True)
    (descriptors / "0").symlink_to("/dev/zero")
    assert host.openers(["vfio/7"]) == []
    (descriptors / "1").symlink_to("/dev/null")
    assert host.openers(["vfio/7"]) == [Opener("vfio/7", 51, "?")]


@pytest.mark.parametrize("node", ["", "/dev/vfio/7", "../etc/passwd", "vfio/../../x"])
def test_no_node_lies_outside_the_device_directory(host: LocalHost, node: str) -> None:
    with pytest.raises(MalformedError):
        host.openers([node])
    with pytest.raises(MalformedError):
        host.node_exists(node)


def test_a_node_is_there_or_not(tree: Path, host: LocalHost) -> None:
    (tree / "dev/vfio/7").write_text("")
    assert host.node_exists("vfio/7")
    assert not host.node_exists("vfio/8")


# --- mounts


def test_mounts_name_the_kernels_device_and_undo_the_escapes(tree: Path, host: LocalHost) -> None:
    (tree / "sys/dev/block").mkdir(parents=True)
    (tree / "sys/dev/block/259:3").symlink_to("../../devices/pci0000:00/nvme/nvme0/nvme0n1/nvme0n1p1")
    (tree / "proc/self/mountinfo").write_text(
        "22 1 0:21 / /proc rw shared:5 - proc proc rw\n"
        "29 1 259:3 / /mnt/a\\040b rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw\n"
        "30 1 0:55 / /data rw - btrfs /dev/nvme9n1 rw\n"
        "nonsense\n"
        "31 1 8:1 - ext4\n"
    )
    assert host.mounts() == [Mount("nvme0n1p1", "/mnt/a b")]


def test_a_kernel_without_swap_has_no_swaps(tree: Path, host: LocalHost) -> None:
    assert host.mounts() == []
    (tree / "proc/swaps").write_text("Filename\tType\tSize\tUsed\tPriority\n/swapfile file 1 0 -2\n\n")
    assert host.mounts() == []


def test_swap_on_a_device_is_a_use_of_it(tree: Path, host: LocalHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_by_path", lambda sysfs, dev, path: "nvme0n1p2" if path == "/dev/nvme0n1p2" else "")
    (tree / "proc/swaps").write_text("Filename\tType\n/dev/nvme0n1p2\tpartition\t1\t0\t-2\n")
    assert host.mounts() == [Mount("nvme0n1p2", "swap")]


# --- facts and modules


def test_the_real_machine_answers_what_it_is(tmp_path: Path) -> None:
    facts = LocalHost(state_dir=tmp_path).facts()
    assert facts.kernel_release == os.uname().release
    assert len(facts.boot_id) == 36


@pytest.mark.parametrize(("capabilities", "expected"), [
    ("000001ffffffffff", True),
    ("0000000000200002", True),  # CAP_SYS_ADMIN and CAP_DAC_OVERRIDE
    ("0000000000000002", False),  # a container's root without CAP_SYS_ADMIN
    ("0000000000000000", False),
])  # fmt: skip
def test_privilege_is_what_the_capabilities_say(tree: Path, host: LocalHost, capabilities: str, expected: bool) -> None:
    (tree / "proc/self/status").write_text(f"CapEff:\t{capabilities}\n")
    assert host.facts().privileged is expected


class Modprobe:
    """A program in modprobe's place: a script of the shell, which writes down how it was called."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self._log = directory / "modprobe", directory / "calls"
        monkeypatch.setattr("nvmelm.host.local.machine._MODPROBE_PLACES", (str(self.path),))
        self.does("exit 0")

    def does(self, line: str) -> None:
        self.path.write_text(f'#!/bin/sh\necho "$@" $LC_ALL $NVMELM_SECRET >> {self._log}\n{line}\n')
        self.path.chmod(0o700)

    @property
    def calls(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []


@pytest.fixture
def modprobe(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Modprobe:
    return Modprobe(tmp_path_factory.mktemp("bin"), monkeypatch)


@pytest.mark.parametrize("there", ["module/vfio_pci", "bus/pci/drivers/vfio-pci"])
def test_a_module_that_is_there_starts_no_process(tree: Path, host: LocalHost, modprobe: Modprobe, there: str) -> None:
    (tree / "sys" / there).mkdir(parents=True)
    host.load_module("vfio-pci")
    assert modprobe.calls == []


def test_a_missing_module_is_loaded_by_its_name_alone(
    host: LocalHost, monkeypatch: pytest.MonkeyPatch, modprobe: Modprobe
) -> None:
    monkeypatch.setenv("NVMELM_SECRET", "not for modprobe")
    host.load_module("vfio-pci")
    assert modprobe.calls == ["-- vfio-pci C"]


def test_a_module_the_kernel_has_not_got_says_what_to_install(host: LocalHost, modprobe: Modprobe) -> None:
    modprobe.does(r"printf 'modprobe: FATAL: Module vfio-pci not found\033[0m\n' >&2; exit 1")
    with pytest.raises(NotSupportedError, match="vfio-pci could not be loaded") as caught:
        host.load_module("vfio-pci")
    assert "not found" in caught.value.cause
    assert "\x1b" not in caught.value.cause
    assert caught.value.fix


def test_a_modprobe_that_hangs_is_given_up(
    host: LocalHost, monkeypatch: pytest.MonkeyPatch, modprobe: Modprobe
) -> None:
    monkeypatch.setattr("nvmelm.host.local.machine._MODPROBE_TIMEOUT_S", 0.2)
    modprobe.does("exec tail -f /dev/null")
    with pytest.raises(TimedOutError, match="modprobe did not end") as caught:
        host.load_module("vfio-pci")
    assert "dmesg" in caught.value.fix


def test_a_system_without_modprobe_is_told_to_get_it(host: LocalHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nvmelm.host.local.machine._MODPROBE_PLACES", ("/nonexistent/modprobe",))
    with pytest.raises(NotSupportedError, match="vfio-pci") as caught:
        host.load_module("vfio-pci")
    assert "kmod" in caught.value.fix


def test_loading_a_module_needs_root(tree: Path, host: LocalHost) -> None:
    (tree / "proc/self/status").write_text("CapEff:\t0000000000000000\n")
    with pytest.raises(PermissionDeniedError):
        host.load_module("vfio-pci")


@pytest.mark.parametrize("name", ["", "vfio pci", "-r", "../x", "a;b", "x" * 100])
def test_a_module_with_a_strange_name_is_never_asked_for(host: LocalHost, name: str) -> None:
    with pytest.raises(MalformedError):
        host.load_module(name)
