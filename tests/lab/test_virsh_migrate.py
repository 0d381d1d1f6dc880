"""``virsh migrate`` of a domain with its function, between two daemons of stock libvirt.

Each has its own identity, directories and sockets on the one kernel of the lab (:mod:`tests.lab.libvirt_hosts`).
"""

from __future__ import annotations

import shutil

import pytest

from tests.lab.libvirt_hosts import libvirt_host
from tests.lab.machine import Pf
from tests.lab.moves import Two, prepared
from tests.lab.vms import VECTORS, begun, busy, goes_on

#: Two daemons each ask a nested QEMU what it can do, and everything is emulated twice.
pytestmark = pytest.mark.timeout(1200)


def test_virsh_migrates_a_domain_with_its_function_and_the_guest_notices_nothing(
    two: Two, vmm: str, pf_a: Pf, pf_b: Pf
) -> None:
    missing = [name for name in ("libvirtd", "virsh") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)}: libvirt-daemon-driver-qemu, libvirt-clients")
    prepared(two.here, "source", pf_a, vectors=VECTORS)
    prepared(two.there, "destination", pf_b, vectors=VECTORS)
    with libvirt_host("here", two.here, vmm) as here, libvirt_host("there", two.there, vmm) as there:
        here.start(pf_a.vfs[0])
        driver, pair = begun(here.processor())
        busy(driver, pair, 1000)
        here.migrate(there, pf_b.vfs[0])
        driver.follow(there.processor())
        goes_on(driver, pair, 2000)
        assert there.virsh("domstate", "vm").stdout.strip() == "running"
        assert here.virsh("list", "--name").stdout.split() == []
