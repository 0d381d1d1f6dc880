"""Whole command lines on emulated hosts: what they print, what they exit with, and that their JSON keeps its schema."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

from nvmelm import cli
from nvmelm.cli.frame.parser import VerbCommand
from nvmelm.cli.reference import schemas
from nvmelm.errors import ExitCode
from nvmelm.process.waiting import wait_until

ROOT = Path(__file__).parents[3]
PUBLISHED = ROOT / "docs" / "schemas"
PF, VF1 = "0000:01:00.0", "0000:01:00.1"


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Result]


@pytest.fixture
def nvmelm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run a command line in this process; a document on stdout is held against its published schema."""
    monkeypatch.delenv("NVMELM_HOST", raising=False)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()

    def run(*words: str | Path) -> Result:
        code = cli.main([str(word) for word in words])
        result = Result(code, *capsys.readouterr())
        if "--json" in words and "--" not in words:
            validate(result.json)
        return result

    return run


def validate(document: dict[str, Any]) -> None:
    schema = json.loads((PUBLISHED / f"{document['schema']}.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(document)


@pytest.fixture
def host(nvmelm: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An emulated host with one device and 4 VFs at most; NVMELM_HOST names it."""
    directory = tmp_path / "host"
    assert nvmelm("emulate", "create", directory, "--max-vfs", "4").code == 0
    monkeypatch.setenv("NVMELM_HOST", f"emulated:{directory}")
    return directory  # type: ignore[return-value]


@pytest.fixture
def prepared(host: Path, nvmelm: Cli) -> Path:
    """The same host, with two VFs prepared as a source."""
    assert nvmelm("source", "prepare", "nvme0", "--vfs", "2").code == 0
    return host


def test_the_published_schemas_are_current() -> None:
    written = {path.name: path.read_text() for path in PUBLISHED.glob("*.json")}
    made = {f"{name}.json": schemas.render(document) for name, document in schemas.schemas().items()}
    assert written == made, "run: python -m nvmelm.cli.reference.schemas docs/schemas"


@pytest.mark.parametrize("name", sorted(schemas.schemas()))
def test_every_schema_is_a_schema_and_names_its_document(name: str) -> None:
    schema = schemas.schemas()[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["schema"] == {"const": name}
    assert re.fullmatch(r"nvmelm\.[a-z_]+", name)
    for field in schema["properties"]:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", field)


def test_list_shows_a_controlling_function(host: Path, nvmelm: Cli) -> None:
    lines = nvmelm("list").out.splitlines()
    assert lines[0].split() == ["NODE", "ADDRESS", "SERIAL", "MODEL", "FIRMWARE", "CNTLID", "VFS", "MIGRATION"]
    assert "0000:01:00.0" in lines[1]
    assert "0x0041" in lines[1]
    (primary,) = nvmelm("list", "--json").json["primaries"]
    assert (primary["cntlid"], primary["address"], primary["vfs_total"]) == (0x41, PF, 4)


@pytest.mark.parametrize("name", ["nvme0", "/dev/nvme0", PF, "NVMELM0001"])
def test_a_controlling_function_has_four_names(host: Path, nvmelm: Cli, name: str) -> None:
    assert nvmelm("show", name, "--json").json["primary"]["address"] == PF


def test_a_name_that_is_not_there_is_a_usage_error(host: Path, nvmelm: Cli) -> None:
    result = nvmelm("show", "nvme7")
    assert (result.code, result.out) == (2, "")
    assert "fix:   nvmelm list" in result.err


def test_a_vf_is_no_controlling_function_and_its_pf_is_named(prepared: Path, nvmelm: Cli) -> None:
    result = nvmelm("release", VF1)
    assert result.code == 2
    assert f"name its PF, {PF}" in result.err


def test_secondary_list_before_sr_iov_is_on_shows_addresses_to_be(host: Path, nvmelm: Cli) -> None:
    out = nvmelm("secondary", "list", "nvme0").out
    assert "(0000:01:00.1)" in out
    assert "it will have this address" in out


def test_a_preparation_says_what_it_did_and_the_second_changes_nothing(host: Path, nvmelm: Cli) -> None:
    first = nvmelm("source", "prepare", "nvme0", "--vfs", "2", "--json").json
    assert first["changed"] is True
    again = nvmelm("source", "prepare", "nvme0", "--vfs", "2", "--json").json
    assert (again["changed"], again["actions"]) == (False, [])
    assert "nothing to do" in nvmelm("source", "prepare", "nvme0", "--vfs", "2").out


def test_a_dry_run_shows_the_exact_writes_and_commands_and_changes_nothing(host: Path, nvmelm: Cli) -> None:
    before = nvmelm("show", "nvme0", "--json").out
    result = nvmelm("destination", "prepare", "nvme0", "--vfs", "1", "--vq", "2", "--vi", "1", "--dry-run")
    assert "echo 1 > /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs" in result.out
    assert "admin 0x1c cdw10-15 00420008 00000002 00000000 00000000 00000000 00000000" in result.out
    assert "nothing was changed" in result.out
    assert nvmelm("show", "nvme0", "--json").out == before


def test_release_brings_everything_back(prepared: Path, nvmelm: Cli) -> None:
    assert nvmelm("release", "nvme0", "--yes").code == 0
    secondaries = nvmelm("secondary", "list", "nvme0", "--json").json["secondaries"]
    assert not any(
        secondary["present"] or secondary["online"] or secondary["vq"] or secondary["mark"] for secondary in secondaries
    )


def test_what_loses_something_is_refused_without_yes(prepared: Path, nvmelm: Cli) -> None:
    result = nvmelm("release", "nvme0", "--json")
    assert result.code == ExitCode.NOT_READY
    assert result.json["reason"] == "confirmation"
    assert "--yes" in result.json["fix"]


def test_the_steps_one_by_one_reach_what_prepare_reaches(host: Path, nvmelm: Cli) -> None:
    for words in (
        ["sriov", "enable", "nvme0", "--vfs", "2"],
        ["secondary", "assign", "nvme0", "0x42", "--vq", "3", "--vi", "2"],
        ["secondary", "online", "nvme0", "42h"],
        ["secondary", "allow-migration", "nvme0", "66", "--expires", "8h"],
        ["vfio", "bind", "nvme0/0x42"],
    ):
        result = nvmelm(*words, "--json")
        assert (result.code, result.json["changed"]) == (0, True), words
    secondary = nvmelm("secondary", "list", "nvme0", "--json").json["secondaries"][0]
    assert (secondary["driver"], secondary["vfio_node"], secondary["vq"], secondary["vi"]) == (
        "vfio-pci",
        "/dev/vfio/2",
        3,
        2,
    )
    assert (secondary["mark"]["role"], secondary["mark"]["holds"]) == ("migratable", True)
    for words in (
        ["vfio", "unbind", VF1],
        ["secondary", "revoke", "nvme0", "0x42"],
        ["secondary", "offline", "nvme0", "0x42"],
        ["sriov", "disable", "nvme0"],
    ):
        assert nvmelm(*words, "--yes").code == 0, words


def test_vfs_of_two_controlling_functions_are_bound_in_one_run(nvmelm: Cli, tmp_path: Path) -> None:
    directory = tmp_path / "two"
    assert nvmelm("emulate", "create", directory, "--pfs", "2").code == 0
    where = ["--host", f"emulated:{directory}"]
    for pf in ("nvme0", "nvme1"):
        assert nvmelm("sriov", "enable", pf, "--vfs", "1", *where).code == 0
    result = nvmelm("vfio", "bind", "nvme0/0x42", "nvme1/0x42", "--unmarked", "--json", *where)
    assert [report["primary"] for report in result.json["reports"]] == ["0000:01:00.0", "0000:02:00.0"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        pytest.param(["sriov", "enable", "nvme0", "--vfs", "5"], 2, "cannot have 5 VFs", id="too-many-vfs"),
        pytest.param(["sriov", "enable", "nvme0", "--vfs", "0"], 2, "--vfs", id="no-vfs"),
        pytest.param(["sriov", "enable", "nvme0"], 2, "--vfs", id="vfs-left-out"),
        pytest.param(["source", "prepare", "nvme0", "--vfs", "4", "--vq", "9"], 2, "do not fit", id="too-many-vq"),
        pytest.param(["secondary", "assign", "nvme0", "0x42"], 2, "nothing to assign", id="nothing-to-assign"),
        pytest.param(["secondary", "online", "nvme0", "0x99"], 2, "is not a controlled function", id="unknown-cntlid"),
        pytest.param(["secondary", "allow-migration", "nvme0", "0x42"], 10, "has no VF", id="not-enabled"),
        pytest.param(
            ["secondary", "allow-resume", "nvme0", "0x42", "--expires", "soon"], 2, "time span", id="no-time-span"
        ),
        pytest.param(["vfio", "bind", "0000:01:00.1"], 10, "is not an enabled VF", id="bind-what-is-not-enabled"),
        pytest.param(["vfio", "bind", "0000:01:00.0"], 2, "is not an enabled VF", id="bind-the-pf"),
        pytest.param(["vfio", "bind", "0000:7f:00.1"], 2, "is not an enabled VF", id="bind-what-is-nobodys"),
        pytest.param(["vfio", "bind", "nonsense"], 2, "does not name a controlled function", id="bind-nonsense"),
        pytest.param(["state", "save", "nvme0", "0x42", "image"], 10, "", id="save-unmarked"),
        pytest.param(["state", "show", "missing"], 1, "missing", id="show-missing-image"),
        pytest.param(["fixture", "show", "missing"], 1, "missing", id="show-missing-recording"),
        pytest.param(["--host", "replay:missing", "list"], 1, "missing", id="replay-missing"),
        pytest.param(["--host", "elsewhere", "list"], 2, "names no host", id="unknown-host"),
        pytest.param(["emulate", "fault", "add", "host", "nonsense"], 2, "not a fault", id="no-fault"),
        pytest.param(["emulate", "create", "host"], 2, "already", id="host-there-already"),
    ],
)
def test_what_cannot_be_is_refused_with_its_exit_code(
    host: Path, nvmelm: Cli, words: list[str], code: int, says: str
) -> None:
    result = nvmelm(*words)
    assert (result.code, result.out) == (code, "")
    assert result.err.startswith("error: ")
    assert says in result.err
    assert nvmelm(*words, "--json").json["exit_code"] == code


def test_a_refused_command_carries_its_status(host: Path, nvmelm: Cli) -> None:
    nvmelm("emulate", "fault", "add", host, "admin/0x1c=status:0x4122")
    result = nvmelm("source", "prepare", "nvme0", "--vfs", "2", "--json")
    assert result.code == ExitCode.REFUSED
    assert result.json["nvme_status"] == {
        "value": 0x4122,
        "sct": 1,
        "sc": 0x22,
        "name": "Invalid Resource Identifier",
        "dnr": True,
    }
    assert result.json["rolled_back"] is True
    assert "Invalid Resource Identifier (1h/22h)" in result.err


def test_a_write_the_kernel_refuses_carries_its_errno(host: Path, nvmelm: Cli) -> None:
    nvmelm("emulate", "fault", "add", host, "sysfs/*/sriov_numvfs=errno:ENOMEM")
    result = nvmelm("sriov", "enable", "nvme0", "--vfs", "2", "--json")
    assert result.code == ExitCode.ROLLED_BACK
    assert "Cannot allocate memory" in result.json["message"]


def test_a_device_that_cannot_migrate_is_not_supported(nvmelm: Cli, tmp_path: Path) -> None:
    nvmelm("emulate", "create", tmp_path / "old", "--generation", "stock-qemu-7.2")
    result = nvmelm("source", "prepare", "nvme0", "--vfs", "2", "--host", f"emulated:{tmp_path / 'old'}", "--json")
    assert (result.code, result.json["reason"]) == (3, "no-live-migration")


def test_host_check_exits_3_when_the_host_is_not_ready(nvmelm: Cli, tmp_path: Path) -> None:
    nvmelm("emulate", "create", tmp_path / "bare", "--no-iommu")
    result = nvmelm("host", "check", "--host", f"emulated:{tmp_path / 'bare'}")
    assert result.code == 3
    assert "is not ready" in result.out
    assert "fix: " in result.out


def test_host_check_exits_0_when_it_is(host: Path, nvmelm: Cli) -> None:
    result = nvmelm("host", "check", "nvme0", "--json")
    assert (result.code, result.json["ready"]) == (0, True)


def test_a_state_is_saved_shown_restored_and_resumed(prepared: Path, nvmelm: Cli) -> None:
    assert nvmelm("state", "suspend", "nvme0", "0x42", "--yes", "--json").json["changed"] is True
    assert nvmelm("state", "suspend", "nvme0", "0x42", "--yes", "--json").json["changed"] is False
    saved = nvmelm("state", "save", "nvme0", "0x42", "image", "--json").json
    assert Path("image").stat().st_mode & 0o777 == 0o600
    shown = nvmelm("state", "show", "image", "--json").json
    assert shown["sha256"] == saved["sha256"]
    assert "whole and unaltered" in nvmelm("state", "show", "image").out
    assert nvmelm("secondary", "allow-resume", "nvme0", "0x43").code == 0
    assert nvmelm("state", "suspend", "nvme0", "0x43", "--yes").code == 0
    restored = nvmelm("state", "restore", "nvme0", "0x43", "image", "--yes", "--json").json
    assert restored["image_id"] == saved["image_id"]
    assert nvmelm("state", "resume", "nvme0", "0x43", "--json").code == 0


def test_an_image_on_stdout_has_its_answer_on_stderr(prepared: Path) -> None:
    run([*_PROGRAM, "state", "suspend", "nvme0", "0x42", "--yes"])
    done = subprocess.run(
        [*_PROGRAM, "state", "save", "nvme0", "0x42", "-", "--json"], capture_output=True, timeout=60, check=True
    )
    assert done.stdout.startswith(b"\x89NVMELM\n")
    validate(json.loads(done.stderr))


def test_an_error_never_gets_into_an_image_on_stdout(prepared: Path) -> None:
    done = subprocess.run(
        [*_PROGRAM, "state", "save", "nvme0", "0x42", "-", "--json"], capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (10, b"")
    assert json.loads(done.stderr)["reason"] == "image-not-suspended"


def test_the_fix_of_an_error_can_be_typed_as_it_stands(prepared: Path, nvmelm: Cli) -> None:
    result = nvmelm("state", "save", "nvme0", "0x42", "image")
    assert "fix:   nvmelm state suspend nvme0 0x0042, then save again" in result.err


def test_a_session_is_recorded_shown_and_replayed(host: Path, nvmelm: Cli) -> None:
    made = nvmelm("fixture", "record", "survey.json", "nvme0", "--json").json
    assert made["replay_with"] == "nvmelm fixture replay survey.json -- show nvme0"
    shown = nvmelm("fixture", "show", "survey.json", "--json").json
    assert len(shown["events"]) == made["events"]
    assert "nvme0: Identify: Secondary Controller List" in nvmelm("fixture", "show", "survey.json").out
    real = nvmelm("show", "nvme0").out
    assert nvmelm("fixture", "replay", "survey.json", "--", "show", "nvme0") == Result(0, real, "")
    assert nvmelm("fixture", "replay", "survey.json") == Result(0, real, "")
    other = nvmelm("fixture", "replay", "survey.json", "--", "host", "check")
    assert other.code == 1
    assert "event 1" in other.err


def test_a_redacted_recording_holds_no_serial_number(host: Path, nvmelm: Cli) -> None:
    assert nvmelm("fixture", "record", "survey.json", "NVMELM0001", "--redact").code == 0
    assert "NVMELM0001" not in Path("survey.json").read_text()


def test_any_verb_is_recorded(host: Path, nvmelm: Cli) -> None:
    first = nvmelm("source", "prepare", "nvme0", "--vfs", "2", "--record", "prepare.json")
    assert first.code == 0
    again = nvmelm("--host", "replay:prepare.json", "source", "prepare", "nvme0", "--vfs", "2")
    assert again == first


def test_nothing_unfinished_is_said_so(host: Path, nvmelm: Cli) -> None:
    assert nvmelm("recover").out == "nothing was left unfinished\n"
    assert nvmelm("recover", "--json").json["changed"] is False


def test_a_killed_preparation_is_found_and_undone(host: Path, nvmelm: Cli) -> None:
    nvmelm("emulate", "fault", "add", host, "admin/0x1c#3=crash-after")
    assert run([*_PROGRAM, "source", "prepare", "nvme0", "--vfs", "2"]).returncode == 137
    report = nvmelm("recover", "--dry-run", "--json").json
    assert (report["changed"], len(report["unfinished"])) == (False, 1)
    assert "source prepare" in nvmelm("recover", "--dry-run").out
    assert nvmelm("recover", "--yes").code == 0
    assert nvmelm("recover").out == "nothing was left unfinished\n"
    secondaries = nvmelm("secondary", "list", "nvme0", "--json").json["secondaries"]
    assert not any(secondary["present"] or secondary["vq"] for secondary in secondaries)


def test_ctrl_c_in_the_middle_undoes_everything_and_exits_130(host: Path, nvmelm: Cli) -> None:
    nvmelm("emulate", "fault", "add", host, "admin/0x1c#2=delay:20000")
    process = subprocess.Popen(
        [*_PROGRAM, "source", "prepare", "nvme0", "--vfs", "2"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    journal = host / "nvmelm" / "journal" / f"{PF}.jsonl"
    begun = "the second assignment to be under way"
    wait_until(lambda: journal.exists() and "assign" in journal.read_text(), begun, deadline_s=60)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted" in err
    secondaries = nvmelm("secondary", "list", "nvme0", "--json").json["secondaries"]
    assert not any(secondary["present"] or secondary["vq"] for secondary in secondaries)


def test_faults_are_listed_as_they_are_typed_and_cleared(host: Path, nvmelm: Cli) -> None:
    typed = ["admin/0x41/0x2#3*2=status:0x4006", "sysfs/*/sriov_numvfs=errno:EBUSY", "admin=lose"]
    assert nvmelm("emulate", "fault", "add", host, *typed).out.splitlines() == typed
    assert [fault["fault"] for fault in nvmelm("emulate", "fault", "list", host, "--json").json["faults"]] == typed
    assert nvmelm("emulate", "fault", "clear", host).out == "nothing is to go wrong\n"


def test_a_directory_without_a_host_is_not_made_one(nvmelm: Cli, tmp_path: Path) -> None:
    assert nvmelm("emulate", "fault", "list", tmp_path / "none").code == 2
    assert not (tmp_path / "none").exists()


def test_the_kinds_of_device_are_listed(nvmelm: Cli) -> None:
    assert "stock-qemu-7.2" in nvmelm("emulate", "generations").out
    assert nvmelm("emulate", "generations", "--json").code == 0


class MachineProcess(NamedTuple):
    """An emulated virtual machine in a process of its own."""

    socket: Path
    process: subprocess.Popen[str]

    def end(self) -> str:
        """Press Ctrl-C, and return what it prints at the end."""
        self.process.send_signal(signal.SIGINT)
        out, _ = self.process.communicate(timeout=60)
        return out


@pytest.fixture
def machine(host: Path, tmp_path: Path) -> Iterator[MachineProcess]:
    socket = tmp_path / "qmp"
    words = [*_PROGRAM, "emulate", "vmm", str(host), "--socket", str(socket)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "listens at" in process.stderr.readline()
        yield MachineProcess(socket, process)
        if process.poll() is None:
            process.terminate()


@pytest.mark.timeout(120)
def test_a_machine_holds_a_vf_and_reports_its_guest(prepared: Path, machine: MachineProcess, nvmelm: Cli) -> None:
    assert nvmelm("vm", "attach", VF1, "--qmp", machine.socket).code == 0
    assert nvmelm("release", "nvme0", "--json").code == ExitCode.BUSY
    assert "qemu-system-x86" in nvmelm("secondary", "list", "nvme0").out

    def works() -> bool:
        return bool(nvmelm("emulate", "guest", machine.socket, "--json").json["completed"])

    wait_until(works, "the guest to complete a command", deadline_s=60)
    assert nvmelm("vm", "detach", VF1, "--qmp", machine.socket, "--yes").code == 0
    assert machine.end().endswith("clean\n")
    assert machine.process.returncode == 0


@pytest.mark.timeout(120)
def test_a_preparation_can_go_on_to_step_5(machine: MachineProcess, nvmelm: Cli) -> None:
    words = ["source", "prepare", "nvme0", "--vfs", "2", "--qmp", machine.socket, "--json"]
    planned = nvmelm(*words, "--dry-run").json
    assert (planned["changed"], len(planned["notes"])) == (False, 3)
    done = nvmelm(*words).json
    assert [check["changed"] for check in done["passed"]] == [True, True]
    assert nvmelm(*words).json["changed"] is False


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("1h/3Ah", "Controller Not Suspended"),
        ("0x413a", "Controller Not Suspended"),
        ("controller-not-suspended", "1h/3Ah"),
        ("7h/12h", "nvmelm does not know this code"),
        ("9", "exit code 9, uncertain"),
        ("130", "Ctrl-C"),
        ("EBUSY", "somebody holds it"),
        ("confirmation", "--yes"),
    ],
)
def test_codes_are_explained(nvmelm: Cli, code: str, says: str) -> None:
    result = nvmelm("explain", code)
    assert result.code == 0
    assert says in result.out
    assert nvmelm("explain", code, "--json").json["meanings"]


def test_what_is_no_code_is_a_usage_error(nvmelm: Cli) -> None:
    assert nvmelm("explain", "no code at all").code == 2


def test_every_verb_documents_itself_within_80_columns(nvmelm: Cli) -> None:
    from nvmelm.cli.frame.app import VERBS, _Commands

    for name in VERBS:
        command = _Commands()[name]
        for words in _paths(command, [name]):
            result = nvmelm(*words, "--help")
            assert result.code == 0
            assert max(map(len, result.out.splitlines())) <= 80, words


def _paths(command: Any, words: list[str]) -> Iterator[list[str]]:
    if isinstance(command, VerbCommand):
        yield words
        return
    for name, below in command.commands.items():
        yield from _paths(below, [*words, name])


_PROGRAM = [sys.executable, "-m", "nvmelm"]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=os.environ)


#: What takes longer to import than a verb that prepares takes to do its work.
HEAVY = {"pydantic", "pydantic_core", "typer._adapters", "importlib.metadata", "email", "asyncio", "sqlite3", "rich"}


@pytest.mark.parametrize(
    "line",
    [
        "source prepare nvme0 --vfs 2 --vq 2 --vi 1 --yes",
        "source prepare nvme0 --vfs 3 --unmarked --expires 8h --json --dry-run",
        f"destination prepare {PF} --vfs 2 --yes",
        "secondary list nvme0",
        "secondary assign nvme0 0x43 --vq 2 --vi 1 --yes",
        "secondary allow-migration nvme0 0x42 66 --expires 90s",
        "secondary revoke nvme0 0x42 0x43",
        f"vfio unbind {VF1} nvme0/0x43 --yes",
        "vfio bind nvme0/0x42 --unmarked --json",
        "sriov disable nvme0 --yes",
        "show nvme0 --json",
        "release nvme0 --yes",
        "list --json",
        "host check --json",
        "emulate generations --json",
        "share --json",
    ],
)
def test_a_verb_that_prepares_or_tells_imports_no_models(prepared: Path, line: str) -> None:
    code = f"import sys, nvmelm.cli as cli\ncode = cli.main({line.split()!r})\nprint(code, *sys.modules)"
    done = run([sys.executable, "-c", code])
    code, *modules = done.stdout.splitlines()[-1].split()
    assert (code, done.stderr) == ("0", "")
    assert not HEAVY & set(modules)
    assert "nvmelm.wire.status_table" not in modules


def test_the_documentation_names_every_verb() -> None:
    from nvmelm.cli.frame.app import VERBS, _Commands

    text = (ROOT / "docs" / "verbs.md").read_text()
    commands = _Commands()
    for words in (words for name in VERBS for words in _paths(commands[name], [name])):
        assert re.search(rf"\| `{' '.join(words)}[ `]", text), words


def test_a_directory_that_holds_something_else_does_not_become_a_host(nvmelm: Cli, tmp_path: Path) -> None:
    place = tmp_path / "notes"
    place.mkdir()
    (place / "text").write_text("mine")
    refused = nvmelm("--host", f"emulated:{place}", "list")
    assert refused.code == 2
    assert "is no emulated host" in refused.err
    assert os.listdir(place) == ["text"]
    assert nvmelm("--host", f"emulated:{tmp_path}/no/such/place", "recover").code == 2
    assert not (tmp_path / "no").exists()
    assert nvmelm("--host", f"emulated:{tmp_path / 'new'}", "list").code == 0


def test_a_closed_stdout_is_no_bug(tmp_path: Path) -> None:
    words = f"{sys.executable} -m nvmelm --host emulated:{tmp_path / 'host'} list >&-"
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "given", "known"),
    [
        ("attach --libvirt vm1 --print", "--libvirt and --print", "--qmp, --libvirt and --print"),
        ("attach --libvirt vm1 --qmp s", "--qmp and --libvirt", "--qmp, --libvirt and --print"),
        ("attach --libvirt vm1 --qmp s --print", "--qmp and --libvirt and --print", "--qmp, --libvirt and --print"),
        ("detach --libvirt vm1 --qmp s", "--qmp and --libvirt", "--qmp and --libvirt"),
    ],
)
def test_one_way_to_the_vm_is_meant_and_not_several(
    prepared: Path, nvmelm: Cli, words: str, given: str, known: str
) -> None:
    verb, *options = words.split()
    result = nvmelm("vm", verb, VF1, *options)
    assert result.code == 2
    assert f"only one of {known} can be meant" in result.err
    assert f"cause: {given} are given" in result.err


def test_every_word_of_an_outcome_is_explained(nvmelm: Cli) -> None:
    from typing import get_args, get_type_hints

    from nvmelm.compat.fleet.assignment import Unplaced
    from nvmelm.desired.converge import Outcome

    for word in (*get_args(Outcome), *get_args(get_type_hints(Unplaced)["why"])):
        meanings = nvmelm("explain", word, "--json").json["meanings"]
        assert {meaning["code"] for meaning in meanings} == {word}
        assert any(meaning["meaning"].startswith(("apply", "compat match")) and meaning["fix"] for meaning in meanings)


def test_a_vf_that_is_not_enabled_beside_others_is_not_to_cost_them(prepared: Path, nvmelm: Cli) -> None:
    result = nvmelm("vm", "attach", "nvme0/0x44", "--print")
    assert result.code == 10
    assert "cause: SR-IOV has enabled 2 VFs, and it is VF 3" in result.err
    assert "removes all 2 existing VFs first" in result.err


def test_the_fix_for_a_controller_without_resources_can_be_typed(host: Path, nvmelm: Cli) -> None:
    assert nvmelm("sriov", "enable", "nvme0", "--vfs", "1").code == 0
    refused = nvmelm("secondary", "online", "nvme0", "0x42", "--json").json
    program, *words = refused["fix"].split()
    assert (program, refused["reason"]) == ("nvmelm", "no-resources")
    assert nvmelm(*words).code == 0
    assert nvmelm("secondary", "online", "nvme0", "0x42").code == 0


@pytest.mark.parametrize("option", ["--dirty", "--log-user-data", "--report"])
def test_what_migrate_writes_beside_its_answer_does_not_go_to_standard_output(
    option: str, nvmelm: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("migrate", "nvme0", "0x42", "--to", "ssh://b/nvme0", "--track", "0:0x1000", option, "-")
    result = nvmelm(*words)
    assert (result.code, result.out) == (2, "")
    assert f"{option} - cannot be meant" in result.err
    assert list(tmp_path.glob("-")) == []
