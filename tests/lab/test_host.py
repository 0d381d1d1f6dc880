"""What the real machine answers besides sysfs: openers, mounts, locks, modules, privileges."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nvmelm.errors import BusyError, NotSupportedError
from nvmelm.host import Mount
from nvmelm.host.local.machine import LocalHost
from tests.lab.machine import Pf, group_of, medium, put, wait_for

HOLD_THE_LOCK = """
import sys
from pathlib import Path
from nvmelm.host.local.machine import LocalHost
with LocalHost(state_dir=Path(sys.argv[1])).lock(sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holding(host: LocalHost, name: str) -> Iterator[subprocess.Popen[str]]:
    """Hold a lock in another process for the length of the block."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_THE_LOCK, str(host.state_dir), name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_process_that_holds_a_vf_is_named(host: LocalHost, enabled: list[str]) -> None:
    host.load_module("vfio-pci")
    for vf in enabled:
        put(f"/sys/bus/pci/devices/{vf}/driver_override", "vfio-pci")
        put("/sys/bus/pci/drivers_probe", vf)
    nodes = [f"vfio/{group_of(vf)}" for vf in enabled]
    wait_for(lambda: all(host.node_exists(node) for node in nodes), "the vfio nodes")
    assert host.openers(nodes) == []
    with Path("/dev", nodes[0]).open("r+b", buffering=0) as group:
        # This process holds it too, and is left out.
        holder = subprocess.Popen(["sleep", "600"], stdin=group)
        try:
            found = host.openers(nodes)
        finally:
            holder.kill()
            holder.wait()
    assert [(one.node, one.pid, one.name) for one in found] == [(nodes[0], holder.pid, "sleep")]
    assert host.openers(nodes) == []


def test_a_mounted_namespace_is_in_the_mounts(host: LocalHost, pf_a: Pf, pf_b: Pf, tmp_path: Path) -> None:
    namespace = medium().name
    where = tmp_path / "a place"
    where.mkdir()
    subprocess.run(["mkfs.ext4", "-q", "-F", f"/dev/{namespace}"], check=True)
    subprocess.run(["mount", f"/dev/{namespace}", where], check=True)
    try:
        assert Mount(namespace, str(where)) in host.mounts()
    finally:
        subprocess.run(["umount", where], check=True)
    assert namespace not in {mount.device for mount in host.mounts()}


def test_a_lock_held_by_another_process_names_it(host: LocalHost, pf_a: Pf) -> None:
    with holding(host, pf_a.address) as process:
        with pytest.raises(BusyError, match=f"process {process.pid}"), host.lock(pf_a.address, timeout_s=0.2):
            pass
        with host.lock("0000:ff:00.0", timeout_s=0.2):
            pass


def test_a_lock_ends_with_its_holder_however_that_ends(host: LocalHost, pf_a: Pf) -> None:
    with holding(host, pf_a.address) as process:
        process.kill()
        with host.lock(pf_a.address, timeout_s=60):
            pass


def test_a_module_is_loaded_once_and_an_unknown_one_is_named(host: LocalHost) -> None:
    host.load_module("vfio-pci")
    assert Path("/sys/bus/pci/drivers/vfio-pci").is_dir()
    host.load_module("vfio-pci")
    with pytest.raises(NotSupportedError, match="no_such_module"):
        host.load_module("no_such_module")


def test_root_in_the_guest_is_privileged_and_knows_its_boot(host: LocalHost) -> None:
    facts = host.facts()
    assert facts.privileged
    assert facts.kernel_release == os.uname().release
    assert facts.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
