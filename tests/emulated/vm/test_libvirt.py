"""Step 5 against libvirt itself, by its own test driver: finding a domain, what it has, and what is refused.

That driver runs no VM and plugs nothing; what plugging means is shown with a real daemon in tests/lab/test_libvirt.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nvmelm import cli
from nvmelm.errors import BusyError, NotReadyError, NotSupportedError, NvmelmError, UsageError
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.prepare import sequence
from nvmelm.vm import verbs as vm
from nvmelm.vm.libvirt.client import DomainRef
from nvmelm.vm.report import VmReport
from tests.emulated.answers import agree
from tests.emulated.conftest import MakeHost

pytest.importorskip("libvirt", reason="libvirt-python is not installed: nvmelm[libvirt]", exc_type=ImportError)

PUBLISHED = Path(__file__).parents[3] / "docs" / "schemas"
URI = "test:///default"
PLACE = "<address domain='0x0000' bus='0x01' slot='0x00' function='0x1'/>"


class Bench:
    """An emulated host with a VF, and libvirt's test driver, whose domains live as long as a connection to it."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.libvirt: Any = import_module("libvirt")
        self.libvirt.registerErrorHandler(lambda *_about: None, None)
        self.connection = self.libvirt.open(URI)
        with open_primary(host, "nvme0", change=True) as pf:
            sequence.prepare(pf, Role.MIGRATABLE, 1, confirm=agree)

    def define(self, name: str, devices: str = "", *, start: bool = True) -> None:
        os = "<os><type arch='x86_64'>hvm</type></os>"
        memory = "<memory unit='MiB'>64</memory>"
        domain = self.connection.defineXML(
            f"<domain type='test'><name>{name}</name>{memory}{os}<devices>{devices}</devices></domain>"
        )
        if start:
            domain.create()

    def attach(self, name: str, uri: str | None = URI, **options: Any) -> VmReport:
        with open_primary(self.host, "nvme0", change=True) as pf:
            return vm.attach(pf, 0x42, libvirt=DomainRef(name, uri), **{"confirm": agree, **options})

    def detach(self, name: str, **options: Any) -> VmReport:
        with open_primary(self.host, "nvme0", change=True) as pf:
            return vm.detach(pf, 0x42, libvirt=DomainRef(name, URI), **{"confirm": agree, **options})


@pytest.fixture
def bench(make_host: MakeHost) -> Iterator[Bench]:
    bench = Bench(make_host())
    yield bench
    for domain in bench.connection.listAllDomains():
        if domain.name() != "test":
            with suppress(bench.libvirt.libvirtError):
                domain.destroy()
            domain.undefine()
    bench.connection.close()


def hostdev(managed: str) -> str:
    return f"<hostdev mode='subsystem' type='pci' managed='{managed}'><source>{PLACE}</source></hostdev>"


def test_a_domain_that_has_the_vf_already_needs_nothing(bench: Bench) -> None:
    bench.define("vm1", hostdev("no"))
    report = bench.attach("vm1")
    assert (report.changed, report.attached, report.vmm.name, report.vmm.running) == (False, True, "vm1", True)


def test_a_domain_whose_vf_libvirt_binds_itself_is_refused_running_or_not_yet(bench: Bench) -> None:
    bench.define("vm1", hostdev("yes"))
    for verb in (bench.attach, bench.detach):
        with pytest.raises(BusyError) as caught:
            verb("vm1")
        assert caught.value.reason == "libvirt-managed"


def test_a_domain_without_the_vf_gives_none_back(bench: Bench) -> None:
    bench.define("vm1")
    report = bench.detach("vm1")
    assert (report.changed, report.attached) == (False, False)


def test_a_dry_run_tells_the_command(bench: Bench) -> None:
    bench.define("vm1")
    report = bench.attach("vm1", dry_run=True)
    assert report.commands[0].startswith("virsh -c test:///default attach-device --live vm1 /dev/stdin <<< ")


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [("nobody", UsageError, "no-such-domain"), ("asleep", NotReadyError, "domain-not-running")],
)
def test_a_domain_that_is_not_there_is_named(
    bench: Bench, name: str, kind: type[NvmelmError], reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.define("asleep", start=False)
    with pytest.raises(kind) as caught:
        bench.attach(name)
    assert caught.value.reason == reason
    assert capfd.readouterr() == ("", "")  # libvirt's own handler would have printed


def test_a_driver_without_hot_plug_says_so(bench: Bench) -> None:
    if bench.libvirt.getVersion() >= 10_000_000:
        pytest.skip("later test drivers plug devices")
    bench.define("vm1")
    with pytest.raises(NotSupportedError) as caught:
        bench.attach("vm1")
    assert caught.value.reason == "libvirt-unsupported"


@pytest.mark.parametrize("uri", ["qemu:///system", None])
def test_this_machines_libvirt_gets_no_function_of_an_emulated_host(bench: Bench, uri: str | None) -> None:
    with pytest.raises(NotSupportedError) as caught:
        bench.attach("vm1", uri)
    assert caught.value.reason == "emulated-no-libvirt"


def test_a_file_that_is_no_libvirt_is_an_error_of_ours(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(NvmelmError) as caught:
        bench.attach("vm1", f"test://{tmp_path}/none.xml")
    assert caught.value.reason == "libvirt-error"


def run(capsys: pytest.CaptureFixture[str], bench: Bench, *words: str) -> tuple[int, str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NVMELM_HOST", bench.host.name)
        code = cli.main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


def test_the_command_line_attaches_by_name_and_uri(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    bench.define("vm1", hostdev("no"))
    code, out, _ = run(capsys, bench, "vm", "attach", "nvme0/0x42", "--libvirt", "vm1", "--connect", URI, "--json")
    document = json.loads(out)
    schema = json.loads((PUBLISHED / "nvmelm.vm.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    assert (code, document["changed"], document["attached"], document["vmm"]["name"]) == (0, False, True, "vm1")
    code, out, _ = run(capsys, bench, "vm", "detach", "nvme0/0x42", "--libvirt", "test", "--connect", URI)
    assert (code, out) == (0, "vm detach 0000:01:00.1 (0x0042): nothing to do\n")


@pytest.mark.parametrize(
    "words",
    [
        ("attach", "--qmp", "/run/a", "--libvirt", "vm1"),
        ("attach", "--print", "--libvirt", "vm1"),
        ("attach", "--print", "--connect", URI),
        ("attach", "--qmp", "/run/a", "--may-taint"),
        ("attach",),
        ("detach", "--qmp", "/run/a", "--libvirt", "vm1"),
        ("detach", "--qmp", "/run/a", "--connect", URI),
        ("detach",),
    ],
)
def test_one_way_to_the_vm_is_named_and_only_its_options(
    bench: Bench, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    verb, *options = words
    code, out, err = run(capsys, bench, "vm", verb, "nvme0/0x42", *options)
    assert (code, out) == (2, "")
    several = sum(option in options for option in ("--qmp", "--libvirt", "--print")) > 1
    assert ("only one of" in err) is several
    assert ("--libvirt" if several else "--libvirt DOMAIN") in err


def test_what_is_printed_names_the_three_ways_by_hand(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, bench, "vm", "attach", "nvme0/0x42", "--print")
    assert code == 0
    assert "-device vfio-pci,host=0000:01:00.1" in out
    assert '<hostdev mode="subsystem" type="pci" managed="no">' in out
    line = next(line for line in out.splitlines() if line.startswith("device_spec = "))
    spec = json.loads(line.removeprefix("device_spec = "))
    assert (spec["address"], spec["managed"], spec["live_migratable"]) == ("0000:01:00.1", "no", "no")
    code, out, _ = run(capsys, bench, "vm", "attach", "nvme0/0x42", "--print", "--json")
    assert json.loads(out)["nova_device_spec"] == line


@pytest.mark.parametrize("verb", ["source", "destination"])
def test_a_preparation_goes_on_to_the_domain_that_is_named(
    bench: Bench, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    bench.define("vm1", hostdev("no"))
    words = (verb, "prepare", "nvme0", "--vfs", "1", "--libvirt", "vm1", "--connect", URI)
    code, out, _ = run(capsys, bench, *words, "--dry-run")
    assert (code, "would be passed to the domain vm1" in out) == (0, True)
    code, out, _ = run(capsys, bench, *words)
    assert (code, "the VM had it already" in out) == (0, True)
    assert run(capsys, bench, *words, "--qmp", "/run/a")[0] == 2
