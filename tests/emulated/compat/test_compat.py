"""``nvmelm compat export`` and ``check`` as whole command lines, on emulated hosts and through a stand-in for ssh."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

from nvmelm import cli
from nvmelm.compat import describe
from nvmelm.compat.facts import FACTS, missing
from nvmelm.compat.manifest import Manifest
from nvmelm.compat.verdict import judge
from nvmelm.emulator.machine.generations import GENERATIONS, NVME_2_1
from nvmelm.errors import NotSupportedError, UsageError
from nvmelm.inventory.opened import open_primary
from tests.emulated.conftest import MakeHost

SCHEMAS = Path(__file__).parents[3] / "docs" / "schemas"
ONE, TWO = "0x0042", "0x0043"


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        document = json.loads(self.out)
        schema = json.loads((SCHEMAS / f"{document['schema']}.json").read_text())
        jsonschema.Draft202012Validator(schema).validate(document)
        return document


Cli = Callable[..., Result]


@pytest.fixture
def nvmelm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run a command line in this process."""
    monkeypatch.delenv("NVMELM_HOST", raising=False)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    def run(*words: str | Path) -> Result:
        code = cli.main([str(word) for word in words])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def hosts(nvmelm: Cli) -> Cli:
    """Make host ``a`` with two prepared functions and host ``b`` with none; both are where the command lines run."""
    for name in ("a", "b"):
        assert nvmelm("emulate", "create", name, "--max-vfs", "4", "--shared-media", "media").code == 0
    prepare = ("source", "prepare", "nvme0", "--vfs", "2", "--vq", "4", "--vi", "2")
    assert nvmelm("--host", "emulated:a", *prepare).code == 0
    return nvmelm


def exported(nvmelm: Cli, host: str, *words: str) -> Manifest:
    result = nvmelm("--host", f"emulated:{host}", "compat", "export", *words, "--json")
    assert result.code == 0, result.err
    assert result.json["schema"] == "nvmelm.manifest"
    return Manifest.parse(result.out)


def test_a_function_is_exported_with_every_fact_and_no_serial_number(hosts: Cli) -> None:
    manifest = exported(hosts, "a", "nvme0", ONE)
    assert missing(manifest.facts) == []
    assert set(manifest.facts) == set(FACTS)
    assert manifest.level == "device"
    assert (manifest.facts["resources.vq"], manifest.facts["resources.vi"]) == (4, 2)
    assert manifest.facts["namespaces.ids"] == [1]
    assert manifest.facts["namespaces.blocks"] == [131072]
    assert manifest.facts["limits.vf_bar_bytes"] == [16384, 0, 0, 0, 0, 0]
    assert manifest.facts["host.vfio_driver"] == "vfio-pci"
    assert NVME_2_1.serial not in manifest.dumps()


def test_a_function_that_is_not_there_yet_has_an_answer_already(hosts: Cli) -> None:
    source = exported(hosts, "a", "nvme0", ONE)
    destination = exported(hosts, "b", "nvme0", "--vq", "4", "--vi", "2")
    assert destination.level == "prospective"
    assert destination.facts == source.facts
    assert destination.digest == source.digest


def test_what_was_promised_before_is_what_is_there_after(hosts: Cli) -> None:
    before = exported(hosts, "b", "nvme0", "--vq", "3", "--vi", "2")
    words = ("destination", "prepare", "nvme0", "--vfs", "1", "--vq", "3", "--vi", "2")
    assert hosts("--host", "emulated:b", *words).code == 0
    assert exported(hosts, "b", "nvme0", ONE).digest == before.digest


def test_a_promise_is_never_more_than_the_controlling_function_can_give(hosts: Cli) -> None:
    most = exported(hosts, "b", "nvme0")
    assert (most.facts["resources.vq"], most.facts["resources.vi"]) == (8, 8)
    asked = exported(hosts, "b", "nvme0", "--vq", "500", "--vi", "500")
    assert asked.digest == most.digest


def test_looking_changes_nothing_so_a_second_look_has_the_same_digest(hosts: Cli) -> None:
    assert exported(hosts, "a", "nvme0", ONE).digest == exported(hosts, "a", "nvme0", ONE).digest
    assert exported(hosts, "a", "nvme0", ONE).digest == exported(hosts, "a", "nvme0", TWO).digest


def test_export_writes_a_file_that_reads_back(hosts: Cli, tmp_path: Path) -> None:
    words = ("compat", "export", "nvme0", ONE, "-o", "a.json", "--label", "rack=r1", "--label", "site=north")
    result = hosts("--host", "emulated:a", *words)
    assert result.code == 0
    assert "written to a.json" in result.out
    manifest = Manifest.parse((tmp_path / "a.json").read_bytes())
    assert manifest.labels == {"rack": "r1", "site": "north"}
    assert manifest.digest == exported(hosts, "a", "nvme0", ONE).digest
    shown = hosts("--host", "emulated:a", "compat", "export", "nvme0", ONE).out
    assert all(name in shown for name in FACTS)
    assert manifest.digest in shown


@pytest.mark.parametrize(
    "words",
    [
        ("export", "nvme0", ONE, "--vq", "4"),
        ("export", "nvme0", "--nsid", "9"),
        ("export", "nvme0", "0x0099"),
        ("export", "nvme7"),
        ("export", "nvme0", "--label", "rack"),
        ("export", "nvme0", "--label", "bad key=1"),
        ("check", "nvme7", "nvme0"),
        ("check", "no-such.json", "nvme0"),
        ("check", f"nvme0/{ONE}", f"nvme0/{TWO}", "--vq", "4"),
        ("check", "nvme0", "ssh://far"),
        ("check", "nvme0", f"ssh://far/nvme0/{ONE},{TWO}"),
        ("check", "nvme0", "ssh://-oProxyCommand=id/nvme0"),
        ("check", "nvme0", "ssh://-l@far/nvme0"),
        ("check", "nvme0", "ssh://far/--help"),
        ("check", "nvme0", "nvme0", "--timeout", "soon"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_a_usage_error(hosts: Cli, words: tuple[str, ...]) -> None:
    result = hosts("--host", "emulated:a", "compat", *words)
    assert result.code == 2, result
    assert "fix:" in result.err or "error:" in result.err


def test_two_files_that_fit_are_exit_0_and_that_do_not_are_exit_4_with_every_reason(hosts: Cli) -> None:
    hosts("--host", "emulated:a", "compat", "export", "nvme0", ONE, "-o", "a.json")
    hosts("--host", "emulated:b", "compat", "export", "nvme0", "--vq", "2", "--vi", "1", "-o", "b.json")
    fits = hosts("compat", "check", "a.json", "a.json")
    assert (fits.code, fits.out.splitlines()[-1], fits.err) == (0, "compatible", "")
    fewer = hosts("compat", "check", "a.json", "b.json")
    assert fewer.code == 4
    assert "vq-fewer" in fewer.out
    assert "vi-fewer" in fewer.out
    assert fewer.out.splitlines()[-1] == "incompatible: 2 reasons block"
    document = hosts("compat", "check", "a.json", "b.json", "--json").json
    assert document["compatible"] is False
    assert [reason["code"] for reason in document["reasons"]] == ["vq-fewer", "vi-fewer"]
    assert document["reasons"][0]["source"] == 4
    assert document["reasons"][0]["destination"] == 2
    digests = [json.loads(Path(name).read_text())["digest"] for name in ("a.json", "b.json")]
    assert [document["source_digest"], document["destination_digest"]] == digests


def test_devices_of_this_host_can_be_compared_by_every_name(hosts: Cli) -> None:
    hosts("--host", "emulated:a", "compat", "export", "nvme0", ONE, "-o", "a.json")
    for name in (f"nvme0/{TWO}", f"/dev/nvme0/{TWO}", "0000:01:00.2", f"0000:01:00.0/{TWO}", "nvme0", "0000:01:00.0"):
        result = hosts("--host", "emulated:a", "compat", "check", "a.json", name)
        assert result.code == 0, (name, result)


def test_a_function_that_is_not_prepared_is_refused_with_what_to_type(hosts: Cli) -> None:
    hosts("--host", "emulated:a", "compat", "export", "nvme0", ONE, "-o", "a.json")
    result = hosts("--host", "emulated:b", "compat", "check", "a.json", f"nvme0/{ONE}", "--json")
    assert result.code == 4
    blocking = {reason["code"]: reason for reason in result.json["reasons"] if reason["severity"] == "blocks"}
    assert set(blocking) == {"vq-fewer", "vi-fewer", "vfio-driver-unsuitable", "no-iommu"}
    assert "nvmelm vfio bind" in blocking["vfio-driver-unsuitable"]["fix"]


def test_a_policy_is_used_and_its_use_is_shown(hosts: Cli) -> None:
    hosts("--host", "emulated:a", "compat", "export", "nvme0", ONE, "-o", "a.json")
    hosts("--host", "emulated:b", "compat", "export", "nvme0", "--vq", "2", "-o", "b.json")
    rules = '[[allow]]\nfact = "resources.vq"\nwhy = "this guest uses one queue"\n'
    Path("site.toml").write_text(f'schema = "nvmelm.policy"\nversion = 1\n{rules}')
    result = hosts("compat", "check", "a.json", "b.json", "--policy", "site.toml")
    assert result.code == 0
    assert "policy allow[1] (resources.vq) relaxed: this guest uses one queue" in result.out
    document = hosts("compat", "check", "a.json", "b.json", "--policy", "site.toml", "--json").json
    assert document["policy_uses"][0]["why"] == "this guest uses one queue"
    assert document["policy_digest"].startswith("sha256:")
    Path("site.toml").write_text("nonsense = 1\n")
    assert hosts("compat", "check", "a.json", "b.json", "--policy", "site.toml").code == 1
    assert hosts("compat", "check", "a.json", "b.json", "--policy", "none.toml").code == 1


def test_a_manifest_that_was_altered_is_refused(hosts: Cli) -> None:
    hosts("--host", "emulated:a", "compat", "export", "nvme0", ONE, "-o", "a.json")
    text = Path("a.json").read_text()
    Path("b.json").write_text(text.replace('"resources.vq": 4', '"resources.vq": 8'))
    result = hosts("compat", "check", "a.json", "b.json", "--json")
    assert result.code == 1
    assert json.loads(result.out)["reason"] == "manifest-altered"


@pytest.fixture
def far(hosts: Cli, tmp_path: Path) -> list[str]:
    """Return the options that reach host ``b`` through what stands for ssh: it runs its last word in a shell."""
    script = tmp_path / "stand-in for ssh"
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$#" "$@" > called\nexec sh -c "$2"\n')
    script.chmod(0o700)
    program = f"{shlex.quote(sys.executable)} -m nvmelm --host emulated:b"
    return ["--rsh", shlex.quote(str(script)), "--program", program]


def test_another_host_is_asked_through_ssh(hosts: Cli, far: list[str], tmp_path: Path) -> None:
    hosts("--host", "emulated:a", "compat", "export", "nvme0", ONE, "-o", "a.json")
    result = hosts("compat", "check", "a.json", "ssh://root@far/nvme0", "--vq", "4", "--vi", "2", *far, "--json")
    assert result.code == 0, result
    assert result.json["destination"]["level"] == "prospective"
    count, where, line = (tmp_path / "called").read_text().splitlines()
    assert (count, where) == ("2", "root@far")
    assert line.endswith("compat export --json --vq 4 --vi 2 -- nvme0")
    assert hosts("compat", "check", "a.json", "ssh://far/nvme0", "--vq", "1", *far).code == 4


def test_nothing_an_operator_types_is_taken_apart_by_the_far_shell(hosts: Cli, far: list[str], tmp_path: Path) -> None:
    hosts("--host", "emulated:a", "compat", "export", "nvme0", ONE, "-o", "a.json")
    result = hosts("compat", "check", "a.json", "ssh://far/nvme0 $(touch$IFS'owned')", *far)
    assert result.code == 2
    result = hosts("compat", "check", "a.json", "ssh://far/nvme0 ;a", *far)
    assert result.code == 2
    assert not (tmp_path / "owned").exists()


def test_what_goes_wrong_over_there_is_told_here(hosts: Cli, far: list[str]) -> None:
    hosts("--host", "emulated:a", "compat", "export", "nvme0", ONE, "-o", "a.json")
    result = hosts("compat", "check", "a.json", "ssh://far/nvme7", *far)
    assert result.code == 2
    assert "far: there is no controlling function" in result.err


@pytest.mark.parametrize(
    ("script", "code", "told"),
    [
        ("exit 255", 1, "could not connect"),
        ("exit 127", 1, "not installed there"),
        ("echo broken pipe >&2; exit 3", 3, "broken pipe"),
        ("echo '{}'", 1, "not a manifest"),
        ("echo '[[[['", 1, "not JSON"),
        ("head -c 20000000 /dev/zero", 1, "printed more than"),
        ("exec sleep 60", 7, "did not end within"),
        ('printf \'{"schema":"nvmelm.error","message":"\\\\u001b[31mred"}\'; exit 1', 1, "far: \\x1b[31mred"),
        ('printf \'{"schema":"nvmelm.error","message":7,"fix":[1]}\'; exit 1', 1, "far: "),
    ],
)
def test_a_hostile_answer_is_an_error(hosts: Cli, script: str, code: int, told: str) -> None:
    hosts("--host", "emulated:a", "compat", "export", "nvme0", ONE, "-o", "a.json")
    Path("far.sh").write_text(f"#!/bin/sh\n{script}\n")
    Path("far.sh").chmod(0o700)
    result = hosts("compat", "check", "a.json", f"ssh://far/nvme0/{ONE}", "--rsh", "./far.sh", "--timeout", "1s")
    assert result.code in (code, 1), result
    assert told in result.err
    assert "\x1b" not in result.err


def test_an_rsh_that_is_not_there_is_an_error(hosts: Cli) -> None:
    hosts("--host", "emulated:a", "compat", "export", "nvme0", ONE, "-o", "a.json")
    result = hosts("compat", "check", "a.json", "ssh://far/nvme0", "--rsh", "./no-such-program")
    assert result.code == 2
    assert "cannot start" in result.err


def test_a_pipe_is_as_good_as_a_file(hosts: Cli, tmp_path: Path) -> None:
    hosts("--host", "emulated:a", "compat", "export", "nvme0", ONE, "-o", "a.json")
    incoming, outgoing = os.pipe()
    os.write(outgoing, (tmp_path / "a.json").read_bytes())
    os.close(outgoing)
    try:
        assert hosts("compat", "check", f"/dev/fd/{incoming}", "a.json").code == 0
    finally:
        os.close(incoming)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_every_kind_of_device_can_be_described_and_fits_itself_only_with_live_migration(
    make_host: MakeHost, generation: str
) -> None:
    host = make_host(generation)
    with open_primary(host, "nvme0") as pf:
        manifest = describe.prospective(host, pf.queue, pf.picture())
    assert missing(manifest.facts) == []
    assert Manifest.parse(manifest.dumps()) == manifest
    assert judge(manifest, manifest).compatible is GENERATIONS[generation].hmlms


def test_two_kinds_of_device_do_not_fit(make_host: MakeHost, tmp_path: Path) -> None:
    manifests = []
    for generation in ("nvme-2.1", "nvme-2.1-vendor"):
        host = make_host(generation, storage=tmp_path / "media")
        with open_primary(host, "nvme0") as pf:
            manifests.append(describe.prospective(host, pf.queue, pf.picture()))
    assert [reason.code for reason in judge(*manifests).reasons] == ["model-differs"]


def test_a_host_without_an_iommu_and_a_device_without_memory_tracking_are_told_apart(make_host: MakeHost) -> None:
    hosts = make_host(), make_host(NVME_2_1.with_(memory_tracking=False), options={"iommu": False})
    manifests = []
    for host in hosts:
        with open_primary(host, "nvme0") as pf:
            manifests.append(describe.prospective(host, pf.queue, pf.picture()))
    codes = {reason.code: str(reason.severity) for reason in judge(*manifests).reasons}
    assert codes["no-iommu"] == "blocks"
    assert codes["memory-tracking-missing"] == "warns"


def test_a_controlling_function_whose_functions_are_all_in_use_promises_nothing(make_host: MakeHost) -> None:
    host = make_host(NVME_2_1.with_(max_vfs=0))
    with open_primary(host, "nvme0") as pf, pytest.raises(NotSupportedError, match="no secondary controller"):
        describe.prospective(host, pf.queue, pf.picture())


def test_namespaces_that_are_to_be_attached_must_be_there(make_host: MakeHost) -> None:
    host = make_host()
    with open_primary(host, "nvme0") as pf:
        picture = pf.picture()
        none = describe.prospective(host, pf.queue, picture, namespaces=())
        with pytest.raises(UsageError, match="no namespace 9"):
            describe.prospective(host, pf.queue, picture, namespaces=(1, 9))
    assert none.facts["namespaces.ids"] == none.facts["namespaces.blocks"] == []


@pytest.mark.parametrize("cns", ["0x11", "0x12"])
def test_a_command_that_is_refused_leaves_its_facts_out_and_that_blocks(make_host: MakeHost, cns: str) -> None:
    from nvmelm.commands import identify
    from nvmelm.host import AdminCommand, Completion

    host = make_host()
    refused = {"0x11": identify.allocated_namespace(1), "0x12": identify.attached_controllers(1)}[cns]

    class Refusing:
        max_transfer_bytes = 128 * 1024

        def __init__(self, queue: Any) -> None:
            self._queue = queue

        def submit(self, command: AdminCommand) -> Completion:
            same = (command.opcode, command.cdw10 & 0xFF) == (refused.opcode, refused.cdw10 & 0xFF)
            return Completion(0x4002) if same else self._queue.submit(command)

        def close(self) -> None:
            self._queue.close()

    with open_primary(host, "nvme0") as pf:
        picture = pf.picture()
        manifest = describe.of_function(host, Refusing(pf.queue), picture, picture.secondaries[0])
    assert {name.split(".")[0] for name in missing(manifest.facts)} == {"namespaces"}
    assert "fact-missing" in {reason.code for reason in judge(manifest, manifest).blocking()}


@pytest.mark.parametrize(
    ("release", "shown", "known"),
    [("5.15.0-91-generic", False, None), ("5.15.0", True, True), ("5.16.0", False, False), ("6.12-rc1", True, True)],
)
def test_a_controller_memory_buffer_is_known_as_far_as_the_kernel_tells(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch, release: str, shown: bool, known: bool | None
) -> None:
    host = make_host()
    with open_primary(host, "nvme0") as pf:
        picture = pf.picture()
        facts, names = host.facts(), host.sysfs.listdir("class/nvme/nvme0")
        monkeypatch.setattr(type(host), "facts", lambda _: facts._replace(kernel_release=release))
        monkeypatch.setattr(type(host.sysfs), "listdir", lambda *_: [*names, "cmb"] if shown else names)
        manifest = describe.prospective(host, pf.queue, picture)
    assert manifest.facts.get("features.controller_memory_buffer") is known


def test_a_bar_that_could_hold_a_persistent_memory_region_leaves_it_unknown(
    make_host: MakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host()
    with open_primary(host, "nvme0") as pf:
        picture = pf.picture()
        text = host.sysfs.read(f"bus/pci/devices/{picture.primary.address}/resource").splitlines()
        text[9] = "0x00000000fd000000 0x00000000fd03ffff 0x0000000000140204"  # 16 VFs, BAR 2 of 16 KiB each
        usual = type(host.sysfs).read

        def changed(self: Any, path: str) -> str:
            return "\n".join(text) if path.endswith("/resource") else usual(self, path)

        monkeypatch.setattr(type(host.sysfs), "read", changed)
        manifest = describe.prospective(host, pf.queue, picture)
    assert manifest.facts["limits.vf_bar_bytes"] == [16384, 0, 16384, 0, 0, 0]
    assert missing(manifest.facts) == ["features.persistent_memory_region"]
    assert not judge(manifest, manifest).compatible


def test_a_real_ssh_server_brings_the_manifest_of_a_function_with_a_blank_in_its_hosts_name(
    hosts: Cli, tmp_path: Path
) -> None:
    from tests.sshd import NoSshdError, sshd

    hosts("--host", "emulated:a", "compat", "export", "nvme0", ONE, "-o", "a.json")
    (tmp_path / "b").rename(tmp_path / "b $(id)")
    try:
        with sshd(tmp_path / "server") as server:
            words = ("--rsh", server.rsh, "--program", server.program(tmp_path / "b $(id)"))
            fits = hosts("compat", "check", "a.json", "ssh://127.0.0.1/nvme0", *words)
            gone = hosts("compat", "check", "a.json", "ssh://127.0.0.1/nvme0/0x0099", *words)
    except NoSshdError as error:
        pytest.skip(str(error))
    assert (fits.code, fits.out.splitlines()[-1]) == (0, "compatible"), fits
    assert gone.code == 2
    assert "0x0099 is not a controlled function" in gone.err


def test_a_redacted_export_replays_to_the_same_facts_but_for_what_namespaces_are_called(
    hosts: Cli, tmp_path: Path
) -> None:
    words = ("compat", "export", "nvme0", ONE, "--json")
    first = hosts("--host", "emulated:a", "--record", tmp_path / "export.json", "--redact", *words)
    again = hosts("--host", f"replay:{tmp_path / 'export.json'}", *words)
    assert again.code == 0, again.err
    mine, other = first.json["facts"], again.json["facts"]
    assert {name for name in mine if mine[name] != other[name]} == {"namespaces.nguid", "namespaces.uuid"}
    assert other["namespaces.nguid"] == ["ee" * 16]
    assert mine["namespaces.nguid"][0] not in (tmp_path / "export.json").read_text()


def test_a_recorded_export_replays_to_the_same_digest(hosts: Cli, tmp_path: Path) -> None:
    words = ("compat", "export", "nvme0", ONE, "--json")
    first = hosts("--host", "emulated:a", "--record", tmp_path / "export.json", *words)
    again = hosts("--host", f"replay:{tmp_path / 'export.json'}", *words)
    assert again.code == 0, again.err
    assert again.json["digest"] == first.json["digest"]
    sentences = hosts("fixture", "show", tmp_path / "export.json").out
    assert "Allocated Namespace ID list" in sentences
    assert "Identify Namespace, allocated, namespace 1" in sentences
