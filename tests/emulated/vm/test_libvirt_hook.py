"""libvirt's hook as it is shipped: the script, run as libvirt runs it, on an emulated host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nvmelm.emulator.guest.vmm import EmulatedVmm
from nvmelm.emulator.host import EmulatedHost
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.prepare import allow, binding, secondaries, sequence, sriov
from nvmelm.vm import verbs as vm
from nvmelm.vm.libvirt import domain_xml
from nvmelm.vm.libvirt import hook as domain_hook
from tests.emulated.answers import agree, decline
from tests.emulated.conftest import MakeHost

SCRIPT = str(files("nvmelm") / "share/libvirt/nvmelm")
SCHEMA = Path(__file__).parents[3] / "docs/schemas/nvmelm.libvirt_hook.json"
FIRST, SECOND = "0000:01:00.1", "0000:01:00.2"
HOOK_BEGIN, HOOK_END = ("prepare", "begin", "-"), ("release", "end", "shutdown")


def domain(*wanted: str, managed: str = "no", unmarked: str = "no") -> str:
    """Return a domain that has the first VF and whose metadata names some for nvmelm."""
    vfs = "".join(f"<nvmelm:vf address='{address}' unmarked='{unmarked}'/>" for address in wanted)
    metadata = f"<nvmelm:vfs xmlns:nvmelm='urn:nvmelm:domain:1'>{vfs}</nvmelm:vfs>" if wanted else ""
    place = "<address domain='0x0000' bus='0x01' slot='0x00' function='0x1'/>"
    return (
        f"<domain type='kvm' id='1'>\n  <name>vm1</name>\n  <metadata>{metadata}</metadata>\n  <devices>"
        f"<hostdev mode='subsystem' type='pci' managed='{managed}'><source>{place}</source></hostdev>"
        "</devices>\n</domain>\n"
    )


class Bench:
    """An emulated host with two VFs that are marked and not bound."""

    def __init__(self, host: EmulatedHost) -> None:
        self.host = host
        with open_primary(host, "nvme0", change=True) as pf:
            sequence.prepare(pf, Role.MIGRATABLE, 2, confirm=agree)
        self.unbind(FIRST, SECOND)

    def unbind(self, *addresses: str) -> None:
        with open_primary(self.host, "nvme0", change=True) as pf:
            cntlids = [secondary.cntlid for secondary in pf.picture().secondaries if secondary.address in addresses]
            binding.unbind(pf, cntlids, confirm=agree)

    def hook(self, *words: str, xml: str = "", name: str = "vm1") -> subprocess.CompletedProcess[str]:
        """Run the script as libvirt does: XML on stdin, few variables, the domain's name first."""
        places = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {"PATH": places, "LC_ALL": "C.UTF-8", "NVMELM_HOST": self.host.name}
        return subprocess.run(
            [SCRIPT, name, *words], input=xml, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    def drivers(self) -> list[str | None]:
        with open_primary(self.host, "nvme0") as pf:
            return [secondary.driver for secondary in pf.picture().secondaries if secondary.present]


@pytest.fixture
def bench(make_host: MakeHost) -> Bench:
    return Bench(make_host())


def test_a_domain_finds_its_vfs_bound_and_leaves_them_as_they_were_found(bench: Bench) -> None:
    xml = domain(FIRST, SECOND)
    begun = bench.hook(*HOOK_BEGIN, xml=xml)
    assert (begun.returncode, begun.stdout) == (0, "")
    assert bench.drivers() == ["vfio-pci", "vfio-pci"]
    for words in (("start", "begin", "-"), ("started", "begin", "-"), ("stopped", "end", "-")):
        assert bench.hook(*words, xml=xml).returncode == 0
    assert bench.drivers() == ["vfio-pci", "vfio-pci"]
    ended = bench.hook(*HOOK_END, xml=xml)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert bench.drivers() == [None, None]
    assert bench.hook(*HOOK_END, xml=xml).returncode == 0


def test_a_second_preparation_changes_nothing(bench: Bench) -> None:
    bench.hook(*HOOK_BEGIN, xml=domain(FIRST))
    again = bench.hook(*HOOK_BEGIN, xml=domain(FIRST))
    assert (again.returncode, again.stderr) == (0, "")
    bench.hook(*HOOK_END, xml=domain(FIRST))
    assert bench.drivers() == [None, None]


def test_a_vf_that_was_bound_before_stays_bound_afterwards(bench: Bench) -> None:
    with open_primary(bench.host, "nvme0", change=True) as pf:
        binding.bind(pf, [0x42], confirm=agree)
    assert bench.hook(*HOOK_BEGIN, xml=domain(FIRST, SECOND)).returncode == 0
    bench.hook(*HOOK_END, xml=domain(FIRST, SECOND))
    assert bench.drivers() == ["vfio-pci", None]


def test_a_hook_that_was_killed_before_it_bound_does_not_give_back_what_the_operator_bound(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    xml = domain_xml.read(domain(FIRST).encode())
    bind = binding.bind

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(binding, "bind", killed)
    with pytest.raises(KeyboardInterrupt):
        domain_hook.prepare(bench.host, "vm1", xml, confirm=agree)
    monkeypatch.setattr(binding, "bind", bind)
    with open_primary(bench.host, "nvme0", change=True) as pf:
        assert binding.bind(pf, [0x42], confirm=agree).changed
    assert domain_hook.prepare(bench.host, "vm1", xml, confirm=agree) == ((), ())
    assert domain_hook.release(bench.host, "vm1", xml, confirm=agree) == ((), ())
    assert bench.drivers()[0] == "vfio-pci"


def test_a_vf_bound_for_one_domain_is_not_given_back_by_another(bench: Bench) -> None:
    bench.hook(*HOOK_BEGIN, xml=domain(FIRST))
    assert bench.hook(*HOOK_END, xml=domain(FIRST), name="vm2").returncode == 0
    assert bench.drivers() == ["vfio-pci", None]


@pytest.mark.parametrize(
    "words",
    [("migrate", "begin", "-"), ("restore", "begin", "-"), ("reconnect", "begin", "-"), ("attach", "begin", "-"), ()],
    ids=lambda words: words[0] if words else "no words",
)
def test_every_other_operation_does_nothing_and_lets_libvirt_go_on(bench: Bench, words: tuple[str, ...]) -> None:
    done = bench.hook(*words, xml=domain(FIRST))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert bench.drivers() == [None, None]


def test_a_domain_that_names_nothing_starts_without_nvmelm(bench: Bench, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "head").symlink_to("/usr/bin/head")
    done = subprocess.run(
        [SCRIPT, "vm1", *HOOK_BEGIN],
        input=domain(),
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_domain_that_names_nothing_costs_no_models_and_no_host() -> None:
    program = (
        "import sys; from nvmelm import cli; code = cli.main(['libvirt-hook', 'vm1', 'prepare', 'begin', '-'])\n"
        "print(code, sorted({'pydantic', 'pyudev', 'libvirt', 'asyncio', 'xml.parsers.expat'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], input=domain(), capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0 []\n", "")


def test_its_document_is_the_published_one(bench: Bench) -> None:
    words = ("libvirt-hook", "--json", "vm1", *HOOK_BEGIN)
    environment = {**os.environ, "NVMELM_HOST": bench.host.name}
    for xml, bound in ((domain(), []), (domain(FIRST), [FIRST])):
        done = subprocess.run(
            [sys.executable, "-m", "nvmelm", *words],
            input=xml,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        document = json.loads(done.stdout)
        jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
        assert (document["vfs"], document["bound"], document["changed"]) == (bound, bound, bool(bound))


@pytest.mark.parametrize("name", ["--help", "-", "a b;$(touch /tmp/x)", "ä\x1b[31m"])
def test_a_domain_may_be_called_what_it_likes(bench: Bench, name: str) -> None:
    assert bench.hook(*HOOK_BEGIN, xml=domain(FIRST), name=name).returncode == 0
    assert bench.drivers() == ["vfio-pci", None]
    assert "\x1b" not in bench.hook(*HOOK_END, xml=domain(FIRST), name=name).stderr
    assert bench.drivers() == [None, None]


def revoke(bench: Bench) -> None:
    with open_primary(bench.host, "nvme0", change=True) as pf:
        allow.revoke(pf, [0x42], confirm=agree)


def offline(bench: Bench) -> None:
    with open_primary(bench.host, "nvme0", change=True) as pf:
        secondaries.offline(pf, 0x42, confirm=agree)


def disable(bench: Bench) -> None:
    with open_primary(bench.host, "nvme0", change=True) as pf:
        sriov.disable_sriov(pf, confirm=agree)


@pytest.mark.parametrize(
    ("spoil", "xml", "code", "words"),
    [
        (revoke, domain(FIRST), 10, ("not marked", "allow-migration")),
        (offline, domain(FIRST), 10, ("not marked",)),
        (offline, domain(FIRST, unmarked="yes"), 10, ("offline", "secondary online")),
        (disable, domain(FIRST), 10, (FIRST,)),
        (None, domain(FIRST, managed="yes"), 5, ("libvirt would bind", "managed='no'")),
        (None, domain("0000:77:00.1"), 2, ("0000:77:00.1",)),
        (None, domain("somewhere"), 1, ("'somewhere'",)),
        (None, domain(FIRST)[:-20], 1, ("the domain's XML",)),
        (None, f"<!DOCTYPE x [<!ENTITY a 'b'>]>{domain(FIRST)}", 1, ("document type",)),
    ],
    ids=[
        "no mark",
        "offline",
        "offline and unmarked",
        "no VFs",
        "managed",
        "no such VF",
        "no address",
        "cut off",
        "entities",
    ],
)
def test_a_domain_that_cannot_have_its_vf_does_not_start_and_one_line_says_why(
    bench: Bench, spoil: Callable[[Bench], None] | None, xml: str, code: int, words: tuple[str, ...]
) -> None:
    if spoil is not None:
        spoil(bench)
    done = bench.hook(*HOOK_BEGIN, xml=xml)
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("nvmelm: vm1: ")
    for word in words:
        assert word in line


def test_an_unmarked_vf_is_prepared_when_the_domain_says_that_this_is_meant(bench: Bench) -> None:
    revoke(bench)
    assert bench.hook(*HOOK_BEGIN, xml=domain(FIRST, unmarked="yes")).returncode == 0
    assert bench.drivers() == ["vfio-pci", None]


def test_a_vf_that_another_vm_has_is_refused_and_that_vm_named(bench: Bench, tmp_path: Path) -> None:
    with open_primary(bench.host, "nvme0", change=True) as pf:
        binding.bind(pf, [0x42], confirm=agree)
    with EmulatedVmm(bench.host, socket=tmp_path / "qmp", vm="first-vm"):
        with open_primary(bench.host, "nvme0", change=True) as pf:
            vm.attach(pf, 0x42, qmp=str(tmp_path / "qmp"), confirm=agree)
        done = bench.hook(*HOOK_BEGIN, xml=domain(FIRST))
    assert done.returncode == 5
    assert "VM first-vm" in done.stderr


def test_a_vf_that_went_away_while_the_domain_ran_is_nobodys_any_more(bench: Bench) -> None:
    bench.hook(*HOOK_BEGIN, xml=domain(FIRST))
    disable(bench)
    assert bench.hook(*HOOK_END, xml=domain(FIRST)).returncode == 0
    assert list((bench.host.state_dir / "libvirt").iterdir()) == []


def test_one_vf_that_cannot_be_given_back_does_not_keep_the_others(bench: Bench, tmp_path: Path) -> None:
    bench.hook(*HOOK_BEGIN, xml=domain(FIRST, SECOND))
    with EmulatedVmm(bench.host, socket=tmp_path / "qmp", vm="thief"):
        with open_primary(bench.host, "nvme0", change=True) as pf:
            vm.attach(pf, 0x42, qmp=str(tmp_path / "qmp"), confirm=agree)
        done = bench.hook(*HOOK_END, xml=domain(FIRST, SECOND))
        assert bench.drivers() == ["vfio-pci", None]
    assert done.returncode != 0
    assert "VM thief" in done.stderr


def test_what_was_written_down_before_a_reboot_counts_no_more(bench: Bench) -> None:
    bench.hook(*HOOK_BEGIN, xml=domain(FIRST))
    path = bench.host.state_dir / "libvirt" / f"{FIRST}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))
    bench.hook(*HOOK_END, xml=domain(FIRST))
    assert bench.drivers() == ["vfio-pci", None]


def test_a_vf_that_was_made_anew_meanwhile_is_not_given_back(bench: Bench) -> None:
    bench.hook(*HOOK_BEGIN, xml=domain(FIRST))
    disable(bench)
    with open_primary(bench.host, "nvme0", change=True) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 2, confirm=agree)
    bench.hook(*HOOK_END, xml=domain(FIRST))
    assert bench.drivers() == ["vfio-pci", "vfio-pci"]


def test_a_dry_run_says_what_would_be_bound_and_binds_nothing(bench: Bench) -> None:
    xml = domain_xml.read(domain(FIRST).encode())
    values: dict[str, Any] = {"confirm": decline, "dry_run": True}
    assert domain_hook.prepare(bench.host, "vm1", xml, **values).vfs == (FIRST,)
    assert bench.drivers() == [None, None]
    assert domain_hook.release(bench.host, "vm1", xml, **values).vfs == ()
