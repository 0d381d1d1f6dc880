"""Step 5 through libvirt: what the daemon is told, what its answers mean, and what is left alone."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from nvmelm.errors import (
    BusyError,
    HostError,
    MalformedError,
    NotReadyError,
    NotSupportedError,
    NvmelmError,
    PermissionDeniedError,
    RolledBackError,
    TimedOutError,
    UncertainError,
    UsageError,
)
from nvmelm.inventory.picture import Role
from nvmelm.process.waiting import wait_until
from nvmelm.vm import verbs as vm
from nvmelm.vm.libvirt.client import DomainRef
from nvmelm.vm.report import VmReport
from tests.unit import fake_libvirt
from tests.unit.fake_libvirt import REMOVAL_FAILED, REMOVED, FakeError, FakeLibvirt
from tests.unit.vm_bench import NAME, QEMU, Bench, mark

ALIAS = f"ua-{NAME}"
PLACE = "<address domain='0x0000' bus='0x01' slot='0x00' function='0x1'/>"


def hostdev(alias: str = ALIAS, managed: str = "no") -> str:
    body = f"<source>{PLACE}</source><alias name='{alias}'/>"
    return f"<hostdev mode='subsystem' type='pci' managed='{managed}'>{body}</hostdev>"


class LibvirtBench(Bench):
    """The host of the other tests, and a domain of libvirt."""

    def __init__(self, directory: Path, libvirt: FakeLibvirt) -> None:
        super().__init__(directory)
        self.host.kind = "local"
        self.libvirt = libvirt
        self.domain = libvirt.domain

    def attach(self, name: str = "vm1", uri: str | None = None, *, may_taint: bool = False, **options: Any) -> VmReport:
        domain = DomainRef(name, uri, may_taint)
        return vm.attach(self.session, 1, libvirt=domain, **{"confirm": self.asked.append, **options})

    def detach(self, name: str = "vm1", uri: str | None = None, **options: Any) -> VmReport:
        return vm.detach(self.session, 1, libvirt=DomainRef(name, uri), **{"confirm": self.asked.append, **options})

    def attached(self) -> None:
        self.domain.devices = [hostdev()]
        self.host.open_by.append(QEMU)

    def answering(self, answer: Callable[[], None]) -> None:
        self.domain.answer = lambda _verb, _xml: answer()

    def letting_go(self) -> None:
        def answer() -> None:
            self.domain.devices.clear()
            self.host.open_by.clear()
            self.libvirt.said(REMOVED, "another")
            self.libvirt.said(REMOVED, ALIAS)

        self.answering(answer)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LibvirtBench:
    libvirt = FakeLibvirt()
    monkeypatch.setitem(sys.modules, "libvirt", libvirt)
    monkeypatch.setitem(sys.modules, "libvirt_qemu", fake_libvirt.monitor(libvirt))
    return LibvirtBench(tmp_path, libvirt)


def refusing(bench: LibvirtBench, message: str, code: int = fake_libvirt.INTERNAL) -> None:
    def answer() -> None:
        raise FakeError(message, code)

    bench.answering(answer)


def test_a_ready_vf_is_plugged_into_the_running_domain_alone(bench: LibvirtBench) -> None:
    report = bench.attach()
    ((verb, xml, flags),) = bench.domain.changes
    assert (verb, flags) == ("attach", 1)  # VIR_DOMAIN_AFFECT_LIVE
    element = ET.fromstring(xml)
    assert (element.tag, element.get("managed"), element.get("type")) == ("hostdev", "no", "pci")
    place = element.find("source/address")
    assert place is not None
    assert place.attrib == {"domain": "0x0000", "bus": "0x01", "slot": "0x00", "function": "0x1"}
    assert (report.changed, report.attached, report.device_id) == (True, True, ALIAS)
    assert (report.vmm.name, report.vmm.version, report.vmm.status) == ("vm1", "7.2.22", "running")
    assert bench.libvirt.calls == ["quiet", "loop", "open", "keepalive", "close"]


def test_a_vf_that_a_booting_guest_hands_back_is_no_success(bench: LibvirtBench) -> None:
    bench.answering(lambda: bench.libvirt.said(REMOVED, ALIAS))  # plugged in, and powered off by the guest
    with pytest.raises(RolledBackError) as caught:
        bench.attach()
    assert (caught.value.reason, bench.domain.devices) == ("handed-back", [])


def test_the_printed_command_does_the_same_by_hand(bench: LibvirtBench) -> None:
    report = bench.attach(uri="qemu:///session", dry_run=True)
    assert bench.domain.changes == []
    assert (report.dry_run, report.changed, report.attached) == (True, False, False)
    words = shlex.split(report.commands[0])
    start = ["virsh", "-c", "qemu:///session", "attach-device", "--live", "vm1", "/dev/stdin", "<<<"]
    assert words[:-1] == start
    assert ET.fromstring(words[-1]).get("managed") == "no"


def test_a_second_run_changes_nothing_whatever_the_alias(bench: LibvirtBench) -> None:
    bench.attached()
    bench.domain.devices = [hostdev("hostdev0")]
    report = bench.attach()
    assert (report.changed, report.attached, report.device_id, report.commands) == (False, True, "hostdev0", ())
    assert bench.domain.changes == []


def test_a_name_of_the_operators_becomes_an_alias_libvirt_takes(bench: LibvirtBench) -> None:
    assert bench.attach(device_id="disk1").device_id == "ua-disk1"
    for name in ("disk1", "ua-disk1", None):
        assert bench.attach(device_id=name).changed is False
    with pytest.raises(BusyError) as caught:
        bench.attach(device_id="disk2")
    assert caught.value.reason == "other-device-id"
    assert bench.detach(device_id="disk1", dry_run=True).device_id == "ua-disk1"


def test_a_domain_is_found_by_its_uuid_too(bench: LibvirtBench) -> None:
    assert bench.attach("6695eb01-f6a4-8304-79aa-97f2502e193f").changed


@pytest.mark.parametrize(
    ("device", "lasting"),
    [
        (hostdev(managed="yes"), False),
        (hostdev(managed="yes"), True),
        (f"<disk type='nvme'><source type='pci' managed='yes' namespace='1'>{PLACE}</source></disk>", True),
        (f"<interface type='hostdev'><source>{PLACE}</source></interface>", False),
    ],
    ids=["now", "at the next start", "as a disk", "as an interface"],
)
def test_a_vf_that_libvirt_binds_itself_is_left_to_it(bench: LibvirtBench, device: str, lasting: bool) -> None:
    if lasting:
        bench.domain.lasting = [device]
    else:
        bench.domain.devices = [device]
    for verb in (bench.attach, bench.detach):
        with pytest.raises(BusyError) as caught:
            verb()
        assert caught.value.reason == "libvirt-managed"
    assert bench.domain.changes == []


def test_a_vf_somebody_else_has_is_refused(bench: LibvirtBench) -> None:
    bench.host.open_by.append(QEMU)
    with pytest.raises(BusyError) as caught:
        bench.attach()
    assert "pid 4711" in caught.value.cause
    assert bench.domain.changes == []


def test_a_running_guest_gets_a_resumable_vf_only_when_the_operator_agrees(bench: LibvirtBench) -> None:
    bench.values["mark"] = mark(Role.RESUMABLE)
    bench.attach()
    assert "should wait" in bench.asked[0]


@pytest.mark.parametrize("state", [[3, 11], [3, 2], [3, 1]], ids=["starting", "migrating", "paused"])
def test_a_domain_that_waits_gets_it_without_a_question(bench: LibvirtBench, state: list[int]) -> None:
    bench.domain.now = state
    bench.values["mark"] = mark(Role.RESUMABLE)
    assert bench.attach().changed
    assert bench.asked == []


def test_qemu_is_not_asked_for_a_price_that_nobody_agreed_to(bench: LibvirtBench) -> None:
    report = bench.attach()
    assert (report.migration_blockers, bench.domain.tainted) == ((), [])
    assert any("tainted" in note and "through the PF" in note for note in report.notes)


def test_qemu_is_asked_when_the_operator_agrees_and_when_it_costs_nothing_any_more(bench: LibvirtBench) -> None:
    for may_taint in (True, False):
        report = bench.attach(may_taint=may_taint)
        assert report.migration_blockers == ("0000:01:00.1: VFIO device doesn't support migration",)
        assert "through the PF" in report.migration_note
        assert report.notes == ()


@pytest.mark.parametrize("answer", [{"blocked-reasons": 5}, {}, ["a\x1b[2J"]], ids=["no list", "none", "control"])
def test_what_qemu_answers_is_data(bench: LibvirtBench, answer: Any) -> None:
    bench.domain.blocked = answer
    report = bench.attach(may_taint=True)
    assert report.changed
    assert "\x1b" not in json.dumps(report.to_json())


def test_a_vf_is_taken_back_when_the_guest_lets_go(bench: LibvirtBench) -> None:
    bench.attached()
    bench.letting_go()
    report = bench.detach()
    ((verb, _, flags),) = bench.domain.changes
    assert (verb, flags) == ("detach", 1)
    assert (report.changed, report.attached, report.device_id, report.notes) == (True, False, ALIAS, ())
    assert "loses the controller" in bench.asked[0]


def test_the_daemon_is_answered_while_the_operator_thinks(bench: LibvirtBench) -> None:
    bench.attached()
    bench.letting_go()

    def think(_question: str) -> None:
        with bench.libvirt.news:
            bench.libvirt.pending.append((REMOVED, "another"))
            bench.libvirt.news.notify_all()
        wait_until(lambda: not bench.libvirt.pending, "the message to be taken", deadline_s=30)

    assert bench.detach(confirm=think).changed
    assert "libvirt" not in [thread.name for thread in threading.enumerate()]


def test_a_domain_that_has_not_begun_to_run_loses_nothing(bench: LibvirtBench) -> None:
    bench.attached()
    bench.letting_go()
    bench.domain.now = [3, 11]
    bench.detach()
    assert bench.asked == []


@pytest.mark.parametrize("by_event", [True, False], ids=["event", "error"])
def test_a_guest_that_refuses_keeps_the_vf(bench: LibvirtBench, by_event: bool) -> None:
    bench.attached()
    if by_event:
        bench.answering(lambda: bench.libvirt.said(REMOVAL_FAILED, ALIAS))
    else:
        refusing(bench, "operation failed: unplug of device was rejected by the guest", fake_libvirt.OPERATION_FAILED)
    with pytest.raises(BusyError) as caught:
        bench.detach()
    assert caught.value.reason == "unplug-refused"


def test_a_guest_that_says_nothing_keeps_the_request(bench: LibvirtBench) -> None:
    bench.attached()
    bench.answering(lambda: None)
    with pytest.raises(TimedOutError) as caught:
        bench.detach(timeout_s=0.1)
    assert (caught.value.reason, "0.1 s" in caught.value.message) == ("unplug-pending", True)


def test_a_guest_that_was_asked_before_is_waited_for_again(bench: LibvirtBench) -> None:
    bench.attached()

    def answer() -> None:
        bench.domain.devices.clear()
        bench.host.open_by.clear()
        bench.libvirt.said(REMOVED, ALIAS)
        sentence = f"unable to execute QEMU command 'device_del': Device {ALIAS} is already in the process of unplug"
        raise FakeError(f"internal error: {sentence}")

    bench.answering(answer)
    assert bench.detach().changed


@pytest.mark.parametrize("end", ["the device went", "the domain ended"])
def test_a_vf_that_left_without_a_word_is_as_good_as_taken_back(bench: LibvirtBench, end: str) -> None:
    bench.attached()

    def answer() -> None:
        bench.domain.devices.clear()
        bench.host.open_by.clear()
        bench.domain.vanished = end == "the domain ended"

    bench.answering(answer)
    assert bench.detach(timeout_s=0.1).changed


def test_a_vf_that_is_not_in_the_domain_needs_nothing(bench: LibvirtBench) -> None:
    bench.host.open_by.append(QEMU)
    report = bench.detach()
    assert (report.changed, report.attached, bench.domain.changes) == (False, False, [])
    assert "pid 4711" in report.notes[0]


def test_a_vf_that_comes_back_with_the_next_start_is_told(bench: LibvirtBench) -> None:
    bench.attached()
    bench.domain.lasting = [hostdev()]
    bench.letting_go()
    assert "next start" in bench.detach().notes[0]


def test_a_transient_domain_has_no_next_start(bench: LibvirtBench) -> None:
    bench.domain.lasting = None
    assert bench.attach().changed


@pytest.mark.parametrize("verb", ["attach", "detach"])
def test_lost_contact_after_the_request_is_uncertain(bench: LibvirtBench, verb: str) -> None:
    def answer() -> None:
        bench.libvirt.alive = False
        raise FakeError("internal error: client socket is closed")

    bench.answering(answer)
    if verb == "detach":
        bench.attached()
    with pytest.raises(UncertainError) as caught:
        getattr(bench, verb)()
    assert caught.value.reason == "libvirt-lost"


def test_a_daemon_that_ends_while_the_guest_is_waited_for_is_uncertain(bench: LibvirtBench) -> None:
    bench.attached()
    bench.answering(bench.libvirt.hang_up)
    with pytest.raises(UncertainError):
        bench.detach()


def test_a_domain_that_does_not_show_the_vf_afterwards_is_uncertain(bench: LibvirtBench) -> None:
    bench.answering(lambda: None)
    with pytest.raises(UncertainError):
        bench.attach()


def test_a_domain_that_does_not_run_is_told_how_to_get_it(bench: LibvirtBench) -> None:
    bench.domain.active = False
    with pytest.raises(NotReadyError) as caught:
        bench.attach()
    assert caught.value.reason == "domain-not-running"
    assert "--print" in caught.value.fix
    assert bench.libvirt.calls[-1] == "close"


def test_a_libvirt_of_another_host_is_refused_however_it_was_chosen(bench: LibvirtBench) -> None:
    for uri in ("qemu+ssh://root@elsewhere/system", None):
        bench.libvirt.uri = "qemu+tls://elsewhere/system"
        with pytest.raises(UsageError) as caught:
            bench.attach(uri=uri)
        assert caught.value.reason == "libvirt-elsewhere"


def test_a_missing_package_is_named_with_what_installs_it(bench: LibvirtBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    with pytest.raises(NotSupportedError) as caught:
        bench.attach()
    assert caught.value.reason == "no-libvirt-package"
    assert "pip install '.[libvirt]'" in caught.value.fix


def test_the_port_is_libvirts_choice(bench: LibvirtBench) -> None:
    with pytest.raises(UsageError) as caught:
        bench.attach(bus="rp1")
    assert caught.value.reason == "libvirt-bus"


def test_a_name_that_is_another_devices_is_refused(bench: LibvirtBench) -> None:
    bench.domain.devices = [hostdev("ua-other").replace("function='0x1'", "function='0x2'")]
    with pytest.raises(UsageError) as caught:
        bench.detach(device_id="other")
    assert caught.value.reason == "other-device-id"


def test_xml_that_libvirt_would_not_write_is_refused(bench: LibvirtBench) -> None:
    bench.domain.devices = ["<hostdev>"]
    with pytest.raises(MalformedError):
        bench.attach()


@pytest.mark.parametrize("name", ["nosuch", "a\x1b[2Jb", ""])
def test_an_unknown_domain_is_named_without_control_characters(bench: LibvirtBench, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        bench.attach(name)
    assert caught.value.reason == "no-such-domain"
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(("uri", "kind", "reason"), [("qemu:///none", HostError, "no-libvirt")], ids=["no daemon"])
def test_a_libvirt_that_cannot_be_reached_is_an_error_of_ours(
    bench: LibvirtBench, uri: str, kind: type[NvmelmError], reason: str
) -> None:
    with pytest.raises(kind) as caught:
        bench.attach(uri=uri)
    assert caught.value.reason == reason


def test_libvirts_refusal_to_let_this_user_in_is_a_permission(bench: LibvirtBench) -> None:
    refusing(bench, "access denied: 'QEMU' denied access", 88)
    with pytest.raises(PermissionDeniedError):
        bench.attach()
