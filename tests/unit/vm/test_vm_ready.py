"""What a VM is looked at for before it gets a VF, who has a VF by the VM's own name, and the line for Nova."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.errors import NotReadyError, NvmelmError
from nvmelm.host import Opener
from nvmelm.host.local.machine import LocalHost
from nvmelm.host.recording.events import OpenerFact
from nvmelm.inventory.pci import Bdf
from nvmelm.inventory.picture import Role
from nvmelm.vm import verbs as vm
from nvmelm.vm.qemu import view
from tests.unit.vm_bench import Bench, mark


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def capabilities(*on: str) -> Any:
    """Answer as QEMU 7.2 does: every capability it has, most of them off."""
    known = ("xbzrle", "events", "postcopy-ram", "return-path", "multifd", "background-snapshot")
    return lambda _: [{"capability": name, "state": name in on} for name in known]


@pytest.mark.parametrize("on", [("postcopy-ram",), ("background-snapshot",), ("events", "postcopy-ram")])
def test_a_vf_that_is_to_be_migrated_goes_into_no_vm_that_cannot_be(bench: Bench, on: tuple[str, ...]) -> None:
    with bench.running(**{"query-migrate-capabilities": capabilities(*on)}) as server:
        with pytest.raises(NotReadyError) as caught:
            bench.attach()
        assert caught.value.reason == "vm-capability"
    assert server.changes == []
    command = json.loads(caught.value.fix[caught.value.fix.index("{") :])
    assert command["execute"] == "migrate-set-capabilities"
    assert {"capability": on[-1], "state": False} in command["arguments"]["capabilities"]


def test_a_vf_that_stays_is_attached_all_the_same_and_the_report_says_so(bench: Bench) -> None:
    bench.values["mark"] = None
    with bench.running(**{"query-migrate-capabilities": capabilities("postcopy-ram")}):
        report = bench.attach(unmarked=True)
    assert report.changed
    assert "postcopy-ram" in report.notes[0]


@pytest.mark.parametrize(
    "answer",
    [capabilities("events", "xbzrle"), lambda _: [], lambda _: {"a": 1}, lambda _: ["postcopy-ram", None, {"x": 1}]],
    ids=["others", "none", "an object", "not rows"],
)
def test_other_capabilities_and_nonsense_keep_nothing_away(bench: Bench, answer: Any) -> None:
    with bench.running(**{"query-migrate-capabilities": answer}):
        assert bench.attach().changed


def test_a_vm_that_waits_for_its_guest_from_elsewhere_gets_the_vf_unasked(bench: Bench) -> None:
    bench.machine.status = "inmigrate"
    bench.values["mark"] = mark(Role.RESUMABLE)
    with bench.running():
        assert bench.attach().changed
    assert bench.asked == []


def test_nova_gets_a_line_by_its_documented_keys(bench: Bench) -> None:
    arguments = vm.arguments(bench.session, 1)
    assert arguments.nova_device_spec == (
        'device_spec = {"vendor_id": "1b36", "product_id": "0010", "address": "0000:01:00.1", '
        '"managed": "no", "live_migratable": "no"}'
    )


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("/usr/bin/qemu-system-x86_64", "-name", "guest=vm1,debug-threads=on", "-S"), "vm1"),
        (("/usr/libexec/qemu-kvm", "-S", "-name", "vm1"), "vm1"),
        (("qemu-system-aarch64", "-name", "debug-threads=on,guest=a,,b=c,process=x"), "a,b=c"),
        (("qemu-system-x86_64", "-name", "guest=a\x1b[2Jb"), "a\\x1b[2Jb"),
        (("qemu-system-x86_64", "-name", f"guest={'x' * 100}"), "x" * 80),
        (("qemu-system-x86_64", "-name", "debug-threads=on"), ""),
        (("qemu-system-x86_64", "-name"), ""),
        (("qemu-system-x86_64",), ""),
        (("/usr/bin/find", "/", "-name", "vm1"), ""),
        (("",), ""),
    ],
)
def test_a_qemu_is_called_by_the_name_of_its_vm(tmp_path: Path, words: tuple[str, ...], name: str) -> None:
    (tmp_path / "dev/vfio").mkdir(parents=True)
    (tmp_path / "dev/vfio/7").write_text("")
    process = tmp_path / "proc/51"
    (process / "fd").mkdir(parents=True)
    (process / "comm").write_text("qemu-system-x86\n")
    (process / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in words))
    (process / "fd/9").symlink_to(tmp_path / "dev/vfio/7")
    host = LocalHost(state_dir=tmp_path / "state", dev=tmp_path / "dev", proc=tmp_path / "proc")
    assert host.openers(["vfio/7"]) == [Opener("vfio/7", 51, "qemu-system-x86", name)]


def test_a_holder_is_printed_with_its_vm_when_that_is_known() -> None:
    assert str(Opener("vfio/7", 51, "qemu-system-x86", "vm1")) == "qemu-system-x86 (pid 51, VM vm1)"
    assert str(Opener("vfio/7", 51, "qemu-system-x86")) == "qemu-system-x86 (pid 51)"


def test_recordings_made_before_have_no_names_of_vms_and_are_read_all_the_same() -> None:
    old = OpenerFact.model_validate({"node": "vfio/7", "pid": 1, "name": "qemu"})
    assert old.vm == ""
    assert old.model_dump(exclude_defaults=True) == {"node": "vfio/7", "pid": 1, "name": "qemu"}


#: Keys that answers of QMP have.
_WORDS = (
    "capability",
    "state",
    "name",
    "type",
    "blocked-reasons",
    "status",
    "running",
    "package",
    "qemu",
    "parent_bus",
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_WORDS) | st.text(max_size=4), inner),
    max_leaves=8,
)


class Liar:
    """A monitor that answers anything to everything."""

    version = "9.0"

    def __init__(self, answers: st.DataObject) -> None:
        self._answers = answers

    def execute(self, *_: object) -> Any:
        return self._answers.draw(_JSON)


@given(st.data())
def test_a_vmm_that_answers_anything_is_nonsense_or_is_understood(answers: st.DataObject) -> None:
    liar = cast("Any", Liar(answers))
    device = view.QomDevice("/machine/peripheral/a", "vfio-pci", "a")
    for ask in (
        lambda: view.blocking_capabilities(liar),
        lambda: view.blockers(liar),
        lambda: view.status(liar),
        lambda: view.devices(liar),
        lambda: view.bus_of(liar, "/machine/a"),
        lambda: view.free_port(liar, [device]),
        lambda: view.taken(liar, [device], "a"),
        lambda: view.find(liar, [device], Bdf.parse("0000:01:00.1")),
    ):
        with suppress(NvmelmError):
            ask()


@pytest.mark.parametrize("name", [{}, [], {"a": 1}, None, 1])
def test_a_capability_whose_name_is_no_text_is_none_that_is_known(name: object) -> None:
    class Odd:
        def execute(self, *_: object) -> Any:
            return [{"capability": name, "state": True}, {"capability": "postcopy-ram", "state": True}]

    assert view.blocking_capabilities(cast("Any", Odd())) == ("postcopy-ram",)
