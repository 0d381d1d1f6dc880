"""Step 5 through a real libvirtd with a nested QEMU: attach, who holds the VF, detach, and the hook it runs itself.

The domains wait before their first instruction and hold no guest; see :mod:`tests.lab.test_vm` for what that means for
hot-unplug.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from nvmelm.errors import BusyError, NotReadyError, NotSupportedError, TimedOutError, UsageError
from nvmelm.host.local.machine import LocalHost
from nvmelm.inventory.opened import OpenPrimary, open_primary
from nvmelm.inventory.picture import Role, Secondary
from nvmelm.prepare import binding, release, secondaries, sequence
from nvmelm.vm import verbs as vm
from nvmelm.vm.libvirt.client import DomainRef
from tests.lab import libvirtd, machine
from tests.lab.libvirtd import Domains
from tests.lab.machine import Cli, Pf, Snapshot

#: libvirt asks a nested QEMU what it can do before the first domain, and everything is emulated twice.
pytestmark = pytest.mark.timeout(600)


def agree(question: str) -> None:
    """Say yes."""


@pytest.fixture(scope="module")
def daemon() -> Iterator[None]:
    if shutil.which("libvirtd") is None:
        pytest.skip("libvirtd is not installed: libvirt-daemon-driver-qemu")
    pytest.importorskip("libvirt", reason="libvirt-python is not installed: nvmelm[libvirt]", exc_type=ImportError)
    with libvirtd.daemon():
        yield


@pytest.fixture
def domains(daemon: None) -> Iterator[Domains]:
    with Domains() as one:
        yield one


@pytest.fixture
def pf(host: LocalHost, pf_a: Pf, clean_host: Snapshot) -> Iterator[OpenPrimary]:
    """Return the source with two VFs online and bound, unmarked; afterwards it is released."""
    with open_primary(host, pf_a.address, change=True) as one:
        sequence.prepare(one, Role.MIGRATABLE, 2, vq=2, vi=1, unmarked=True, confirm=agree)
        yield one
    with open_primary(host, pf_a.address, change=True) as one:
        release.release(one, confirm=agree)


def vf(pf: OpenPrimary, number: int = 1) -> Secondary:
    return pf.picture().secondaries[number - 1]


def attach(pf: OpenPrimary, domain: str, number: int = 1, *, may_taint: bool = False, **options: Any) -> Any:
    which = DomainRef(domain, libvirtd.URI, may_taint)
    cntlid = pf.picture(users=False).secondaries[number - 1].cntlid
    return vm.attach(pf, cntlid, **{"libvirt": which, "unmarked": True, "confirm": agree, **options})


def detach(pf: OpenPrimary, domain: str, number: int = 1, **options: Any) -> Any:
    cntlid = pf.picture(users=False).secondaries[number - 1].cntlid
    return vm.detach(pf, cntlid, libvirt=DomainRef(domain, libvirtd.URI), confirm=agree, **options)


def test_a_waiting_domain_takes_a_vf_is_named_as_its_holder_and_gives_it_back(
    pf: OpenPrimary, domains: Domains
) -> None:
    domain = domains.start("vm1")
    address = str(vf(pf).address)
    report = attach(pf, "vm1")
    assert (report.changed, report.attached, report.vmm.name, report.vmm.running) == (True, True, "vm1", False)
    assert report.migration_blockers == ()
    assert not any("custom monitor" in message for message in domain.messages(0))
    assert (report.device_id in domain.XMLDesc(), "managed='no'" in domain.XMLDesc()) == (True, True)
    assert "VM vm1" in vf(pf).used_by[0]
    again = attach(pf, "vm1", may_taint=True)
    assert (again.changed, again.device_id) == (False, report.device_id)
    assert again.migration_blockers
    assert "through the PF" in again.migration_note
    back = detach(pf, "vm1")
    assert (back.changed, back.attached, back.notes) == (True, False, ())
    assert ("hostdev" in domain.XMLDesc(), vf(pf).used_by) == (False, ())
    assert machine.driver_of(address) == "vfio-pci"
    assert detach(pf, "vm1").changed is False


def test_a_domain_that_waits_with_acpi_keeps_the_request_until_its_reset(pf: OpenPrimary, domains: Domains) -> None:
    domain = domains.start("vm1", native=False)
    attach(pf, "vm1")
    with pytest.raises(TimedOutError) as caught:
        detach(pf, "vm1", timeout_s=1)
    assert caught.value.reason == "unplug-pending"
    domain.reset()
    machine.wait_for(lambda: "hostdev" not in domain.XMLDesc(), "the domain to give the VF back")
    assert detach(pf, "vm1").changed is False


def test_a_vf_has_one_domain_and_a_domain_without_ports_takes_none(pf: OpenPrimary, domains: Domains) -> None:
    domains.start("vm1")
    domains.start("vm2", ports=0)
    with pytest.raises(NotSupportedError) as full:
        attach(pf, "vm2")
    assert full.value.reason == "no-hotplug-bus"
    attach(pf, "vm1")
    with pytest.raises(BusyError) as busy:
        attach(pf, "vm2")
    assert "VM vm1" in busy.value.cause
    report = detach(pf, "vm2")
    assert (report.changed, "VM vm1" in report.notes[0]) == (False, True)


def test_a_domain_that_cannot_be_given_a_vf_is_told_why(pf: OpenPrimary, domains: Domains) -> None:
    domains.define("asleep")
    for name, kind, reason in (
        ("asleep", NotReadyError, "domain-not-running"),
        ("nobody", UsageError, "no-such-domain"),
    ):
        with pytest.raises(kind) as caught:
            attach(pf, name)
        assert caught.value.reason == reason


def test_libvirts_own_hook_binds_before_the_start_and_gives_back_after_the_end(
    pf: OpenPrimary, domains: Domains
) -> None:
    address = str(vf(pf).address)
    binding.unbind(pf, [vf(pf).cntlid], confirm=agree)
    domain = domains.start("vm1", vfs=[address], wanted=[address])
    assert machine.driver_of(address) == "vfio-pci"
    assert "VM vm1" in vf(pf).used_by[0]
    domain.destroy()
    machine.wait_for(lambda: not machine.driver_of(address), "the hook to give the VF back")
    assert machine.driver_of(str(vf(pf, 2).address)) == "vfio-pci"


def test_libvirt_does_not_start_a_domain_whose_vf_cannot_be_prepared_and_hands_the_sentence_on(
    pf: OpenPrimary, domains: Domains
) -> None:
    address = str(vf(pf).address)
    binding.unbind(pf, [vf(pf).cntlid], confirm=agree)
    secondaries.offline(pf, vf(pf).cntlid, confirm=agree)
    with pytest.raises(domains.error) as caught:
        domains.start("vm1", vfs=[address], wanted=[address])
    assert "nvmelm: vm1: controller 0x0001 is offline" in str(caught.value)
    assert machine.driver_of(address) == ""


def test_step_5_by_the_command_line(nvmelm: Cli, pf_a: Pf, clean_host: Snapshot, domains: Domains) -> None:
    nvmelm("source", "prepare", pf_a.address, "--vfs", "1", "--vq", "2", "--vi", "1", "--unmarked", check=True)
    domains.start("vm1")
    words = (pf_a.vfs[0], "--libvirt", "vm1", "--json")
    done = nvmelm("vm", "attach", *words, "--unmarked", check=True)
    assert done.json["changed"] is True
    held = nvmelm("release", pf_a.address)
    assert (held.code, "VM vm1" in held.stderr) == (5, True)
    back = nvmelm("vm", "detach", *words, "--yes", check=True)
    assert (back.json["changed"], back.json["attached"]) == (True, False)
    nvmelm("release", pf_a.address, "--yes", check=True)
