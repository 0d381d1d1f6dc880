"""With ``--json`` every verb that fails ends, with one valid document and the exit code of its text form."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import jsonschema
import pytest

from nvmelm import cli
from nvmelm.emulator.guest.vmm import EmulatedVmm
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.machine.faults import EmulatedCrash
from nvmelm.prepare import executor
from tests.emulated.two_hosts import copy as copy_world

SCHEMAS = Path(__file__).parents[3] / "docs" / "schemas"
PF, VF = "0000:01:00.0", "0000:01:00.1"


class Case(NamedTuple):
    """A changing verb, and what is done on an empty host before it."""

    before: tuple[str, ...]
    words: str


PREPARED = "source prepare nvme0 --vfs 2 --vq 2 --vi 2"
SUSPENDED = (PREPARED, "state suspend nvme0 0x42 --yes")
RESTORABLE = (
    *SUSPENDED,
    "state save nvme0 0x42 {host}/image",
    "secondary allow-resume nvme0 0x43",
    "state suspend nvme0 0x43 --yes",
)

VERBS = {
    "source prepare": Case((), PREPARED),
    "destination prepare": Case((), "destination prepare nvme0 --vfs 2"),
    "sriov enable": Case((), "sriov enable nvme0 --vfs 1"),
    "sriov disable": Case((PREPARED,), "sriov disable nvme0"),
    "secondary assign": Case((), "secondary assign nvme0 0x42 --vq 2 --vi 2"),
    "secondary online": Case((PREPARED, "secondary offline nvme0 0x42 --yes"), "secondary online nvme0 0x42"),
    "secondary offline": Case((PREPARED,), "secondary offline nvme0 0x42"),
    "secondary allow-migration": Case(
        (PREPARED, "secondary revoke nvme0 0x42"), "secondary allow-migration nvme0 0x42"
    ),
    "secondary allow-resume": Case((PREPARED,), "secondary allow-resume nvme0 0x42"),
    "secondary revoke": Case((PREPARED,), "secondary revoke nvme0 0x42"),
    "vfio bind": Case((PREPARED, f"vfio unbind {VF} --yes"), f"vfio bind {VF} --unmarked"),
    "vfio unbind": Case((PREPARED,), f"vfio unbind {VF}"),
    "release": Case((PREPARED,), "release nvme0"),
    "recover": Case(("emulate fault add {host} sysfs/*drivers_probe=raise-before", PREPARED), "recover"),
    "state suspend": Case((PREPARED,), "state suspend nvme0 0x42"),
    "state resume": Case(SUSPENDED, "state resume nvme0 0x42"),
    "state save": Case(SUSPENDED, "state save nvme0 0x42 {host}/saved"),
    "state restore": Case(RESTORABLE, "state restore nvme0 0x43 {host}/image"),
    "apply": Case((), "apply --config {host}"),
    "compat parameters apply": Case((PREPARED,), "compat parameters apply {host}/parameters nvme0 0x42"),
    "libvirt-hook": Case((PREPARED, f"vfio unbind {VF} --yes"), "libvirt-hook vm1 prepare begin -"),
    "vm attach": Case((PREPARED,), f"vm attach {VF} --qmp {{host}}/qmp"),
    "vm detach": Case((PREPARED,), f"vm detach {VF} --qmp {{host}}/qmp"),
}
CONFIG = f"[[pf]]\naddress = '{PF}'\nvfs = 1\nrole = 'source'\n"
DOMAIN = (
    f"<domain><name>vm1</name><metadata><nvmelm:vfs xmlns:nvmelm='urn:nvmelm:domain:1'><nvmelm:vf address='{VF}'/>"
    "</nvmelm:vfs></metadata><devices><hostdev mode='subsystem' type='pci' managed='no'><source>"
    "<address domain='0x0000' bus='0x01' slot='0x00' function='0x1'/></source></hostdev></devices></domain>"
)
FAULTS = (
    "admin/0x1c=status:0x4006",
    "admin/0x1c#2=lose",
    "admin/0x1c#3=errno:EIO",
    "admin/0x1c#2=reset",
    "admin/0x1c#2=vanish",
    "admin/0x41=lose",
    "admin/0x41=status:0x0006",
    "admin/0x41=status:0x4006",
    "admin/0x41=reset",
    "admin/0x42=lose",
    "admin/0x42=nonsense:huge",
    "admin/0x06#1=status:0x4006",
    "admin/0x06#1=lose",
    "admin/0x06#5=vanish",
    "admin/0x06#4=nonsense:ones",
    "sysfs/*=errno:EBUSY",
    "sysfs/*#2=errno:EACCES",
    "sysfs/*#4=errno:ENODEV",
    "sysfs/*reset=errno:ENOTTY",
    "sysfs/*bind=silent",
    "sysfs/*sriov_numvfs=silent",
)

Run = Callable[..., tuple[int, str]]


@contextmanager
def vmm(place: Path, *, holds: bool) -> Iterator[None]:
    """Have a VM that waits for its guest, or a running one with the VF in it as far as the faults let it have one."""
    with EmulatedHost(place) as host, EmulatedVmm(host, socket=place / "qmp", running=holds) as machine:
        if holds:
            with suppress(Exception):
                machine.device_add({"driver": "vfio-pci", "host": VF, "id": "vf", "bus": "rp1"})
        yield


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command line on an emulated host; what it waits for is not going to come, so it does not wait long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(executor, "_VFS_DEADLINE_S", 0.1)
    monkeypatch.setattr(executor, "_IDLE_DEADLINE_S", 0.1)

    def line(host: Path, words: str, *more: str) -> tuple[int, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(DOMAIN.encode())))
        with vmm(host, holds=words.startswith("vm detach")) if words.startswith("vm ") else nullcontext():
            code = cli.main(["--host", f"emulated:{host}", *words.format(host=host).split(), *more])
        return code, capsys.readouterr().out

    return line


def copy(template: Path, place: Path, fault: str) -> Path:
    shutil.copytree(template, place)
    with EmulatedHost(place) as host:
        with host.machine.change() as state:
            state["storage"] = str(place)
        host.arm(fault)
    return place


def require_one_document(out: str, code: int) -> None:
    document = json.loads(out)
    schema = json.loads((SCHEMAS / f"{document['schema']}.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)
    if document["schema"] == "nvmelm.error":
        assert document["exit_code"] == code


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", VERBS)
def test_whatever_fails_json_is_one_document_with_the_exit_code_of_the_text(
    name: str, tmp_path: Path, run: Run
) -> None:
    before, words = VERBS[name]
    template = tmp_path / "template"
    assert cli.main(["emulate", "create", str(template), "--max-vfs", "2"]) == 0
    for line in before:
        with suppress(EmulatedCrash):
            assert run(template, line)[0] == 0
    (template / "nvmelm.toml").write_text(CONFIG)
    if "{host}/parameters" in words:
        wanted = json.loads(run(template, f"compat parameters list {PF}/0x42 --json")[1])
        (template / "parameters").write_text(json.dumps(wanted | {"params": {"namespaces.ids": ""}}))
    failures = 0
    for number, fault in enumerate(FAULTS):
        text, _ = run(copy(template, tmp_path / f"text{number}", fault), words, "--yes")
        code, out = run(copy(template, tmp_path / f"json{number}", fault), words, "--yes", "--json")
        require_one_document(out, code)
        assert (fault, code) == (fault, text)
        failures += code != 0
    assert failures, "no fault struck"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("side", "fault"),
    [
        ("source", "admin/0x41=lose"),
        ("source", "admin/0x42#2=status:0x4006"),
        ("source", "admin/0x42=vanish"),
        ("destination", "admin/0x41=lose"),
        ("destination", "admin/0x41#2=status:0x4006"),
    ],
)
def test_a_migration_that_fails_is_one_document_with_the_exit_code_of_the_text(
    side: str, fault: str, two_hosts: Path, tmp_path: Path, run: Run
) -> None:
    results = []
    for form in ([], ["--json"]):
        place = tmp_path / f"world{len(form)}"
        world = copy_world(two_hosts, place)
        world.host(side).arm(fault)
        world.close()
        rsh = shlex.join([sys.executable, "-m", "nvmelm", "emulate", "rsh", str(place)])
        words = ["--to", "ssh://destination/nvme0", "--rsh", rsh, "--yes", *form]
        results.append(run(place / "source", "migrate nvme0 0x42", *words))
    (text, _), (code, out) = results
    require_one_document(out, code)
    assert code == text != 0
