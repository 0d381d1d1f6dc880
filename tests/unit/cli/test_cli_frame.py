"""The frame around every verb: answers, errors, exit codes, confirmation, and what is imported when."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from nvmelm import cli
from nvmelm.cli.frame import app as tree
from nvmelm.cli.frame import functions, options, report
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.documents import Report
from nvmelm.errors import (
    BusyError,
    ExitCode,
    HostError,
    IncompatibleError,
    InterruptedByUserError,
    MalformedError,
    NotReadyError,
    NotSupportedError,
    NvmelmError,
    RolledBackError,
    TimedOutError,
    UncertainError,
    UsageError,
)
from nvmelm.numbers import parse_cntlid
from tests.unit.manifests import manifest

PROGRAM = [sys.executable, "-m", "nvmelm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe(Report):
    schema_name = "nvmelm.probe"

    number: int
    sure: bool


Behaviour = Callable[[Run], Any]


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Behaviour]]:
    """A group with two verbs, ``probe read N`` and ``probe write N``, that do what the test puts into the list."""
    behaviour: list[Behaviour] = [lambda run: None]
    group = options.group("Verbs of a test.")

    @verb(group, "read")
    def read(run: Run, number: Annotated[int, typer.Argument(metavar="N")] = 1) -> Answer:
        """Read a number."""
        behaviour[0](run)
        return Answer(Probe(number=number, sure=True), lambda: [f"the number is {number}"])

    @verb(group, "write", changes=True)
    def write(run: Run, number: Annotated[int, typer.Argument(metavar="N")] = 1) -> Answer:
        """Write a number."""
        behaviour[0](run)
        run.confirm("Lose it?")
        return Answer(Probe(number=number, sure=True), lambda: [f"dry {run.dry_run}"])

    @verb(group, "cntlid")
    def cntlid(run: Run, function: functions.Function) -> Answer:
        """Read a controller identifier."""
        number = parse_cntlid(functions.name(function).rpartition("/")[2])
        return Answer(Probe(number=number, sure=True), lambda: [str(number)])

    module = types.ModuleType("nvmelm.cli.verbs.probe_of_a_test")
    module.app = group  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(tree.VERBS, "probe", tree.Entry("probe_of_a_test", "Verbs of a test."))
    monkeypatch.delenv("NVMELM_HOST", raising=False)
    return iter([behaviour])  # type: ignore[return-value]


@pytest.fixture
def behave(probe: Iterator[list[Behaviour]]) -> Callable[[Behaviour], None]:
    (behaviour,) = probe

    def set_to(what: Behaviour) -> None:
        behaviour[0] = what

    return set_to


def raiser(error: BaseException) -> Behaviour:
    def fail(run: Run) -> None:
        raise error

    return fail


def test_an_answer_is_text_for_people_and_one_document_for_programs(
    behave: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["probe", "read", "7"]) == 0
    assert capsys.readouterr() == ("the number is 7\n", "")
    assert cli.main(["probe", "read", "7", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"schema": "nvmelm.probe", "version": 1, "number": 7, "sure": True}
    assert err == ""


@pytest.mark.parametrize("words", [["--json", "probe", "read"], ["probe", "read", "--json"]], ids=["before", "after"])
def test_json_may_stand_before_and_after_the_verb(
    behave: Any, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert cli.main(words) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "nvmelm.probe"


@pytest.mark.parametrize(
    ("words", "host"),
    [
        pytest.param(["probe", "read"], "local", id="default"),
        pytest.param(["--host", "emulated:a", "probe", "read"], "emulated:a", id="before"),
        pytest.param(["probe", "read", "--host", "emulated:b"], "emulated:b", id="after"),
        pytest.param(["--host", "emulated:a", "probe", "read", "--host", "emulated:b"], "emulated:b", id="both"),
    ],
)
def test_the_host_may_stand_before_and_after_the_verb(behave: Any, words: list[str], host: str) -> None:
    seen: list[str] = []
    behave(lambda run: seen.append(run.settings.host))
    assert cli.main(words) == 0
    assert seen == [host]


def test_the_host_may_come_from_the_environment(behave: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    behave(lambda run: seen.append(run.settings.host))
    monkeypatch.setenv("NVMELM_HOST", "emulated:c")
    assert cli.main(["probe", "read"]) == 0
    assert cli.main(["probe", "read", "--host", "emulated:d"]) == 0
    assert seen == ["emulated:c", "emulated:d"]


@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        pytest.param(NvmelmError("it broke"), 1, "failed", id="failed"),
        pytest.param(HostError("it broke"), 1, "host", id="host"),
        pytest.param(MalformedError("it broke"), 1, "malformed", id="malformed"),
        pytest.param(UsageError("it broke"), 2, "usage", id="usage"),
        pytest.param(NotSupportedError("it broke"), 3, "not_supported", id="not-supported"),
        pytest.param(IncompatibleError("it broke"), 4, "incompatible", id="incompatible"),
        pytest.param(BusyError("it broke"), 5, "busy", id="busy"),
        pytest.param(TimedOutError("it broke"), 7, "timed_out", id="timed-out"),
        pytest.param(RolledBackError("it broke"), 8, "rolled_back", id="rolled-back"),
        pytest.param(UncertainError("it broke"), 9, "uncertain", id="uncertain"),
        pytest.param(NotReadyError("it broke"), 10, "not_ready", id="not-ready"),
        pytest.param(InterruptedByUserError("it broke"), 130, "interrupted", id="interrupted"),
    ],
)
def test_every_kind_of_error_has_its_exit_code(
    behave: Any, capsys: pytest.CaptureFixture[str], error: NvmelmError, code: int, kind: str
) -> None:
    behave(raiser(error))
    assert cli.main(["probe", "read", "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert (document["exit_code"], document["kind"]) == (code, kind)
    assert document["rolled_back"] is (code == 8)


def test_an_error_is_three_lines_on_stderr(behave: Any, capsys: pytest.CaptureFixture[str]) -> None:
    behave(raiser(BusyError("0000:01:00.1 is in use", cause="qemu (pid 7) has it open", fix="stop the guest")))
    assert cli.main(["probe", "read"]) == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "error: 0000:01:00.1 is in use\n"
        "cause: qemu (pid 7) has it open\n"
        "fix:   stop the guest\n"
    )  # fmt: skip


def test_what_went_wrong_while_undoing_is_a_note_and_not_lost(behave: Any, capsys: pytest.CaptureFixture[str]) -> None:
    error = NvmelmError("it broke")
    error.add_note("while undoing: sriov_numvfs could not be written")
    behave(raiser(error))
    assert cli.main(["probe", "write", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["notes"] == ["while undoing: sriov_numvfs could not be written"]
    assert "note:  while undoing: sriov_numvfs could not be written" in err


def test_an_error_document_says_all_a_program_needs(behave: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = "/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs"
    behave(
        raiser(HostError("cannot write '4'", path=path, errno=errno.EBUSY, fix="disable first", reason="vfs-enabled"))
    )
    assert cli.main(["probe", "read", "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "schema": "nvmelm.error",
        "version": 1,
        "command": "probe read",
        "kind": "host",
        "reason": "vfs-enabled",
        "message": "cannot write '4'",
        "cause": "another number of VFs is enabled, and the kernel goes by way of 0",
        "fix": "disable first",
        "exit_code": 1,
        "errno": errno.EBUSY,
        "errno_name": "EBUSY",
        "path": path,
        "nvme_status": None,
        "rolled_back": False,
        "notes": [],
    }


def test_a_reason_of_a_newer_peer_that_explain_does_not_know_is_called_remote(
    behave: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from nvmelm.migrate.link import messages

    known = ("no-target", "link-lost", "model-differs", "controller-not-suspended", "status-1h-7fh")
    for reason, shown in (("from-the-future", "remote"), ("13a", "remote"), *zip(known, known, strict=True)):
        error = BusyError("held", fix="nvmelm show PF", reason=reason)
        behave(raiser(messages.remote_error(messages.failed(error), "beta")))
        assert cli.main(["probe", "read", "--json"]) == int(error.exit_code)
        document = json.loads(capsys.readouterr().out)
        assert (document["reason"], document["fix"]) == (shown, "on beta: nvmelm show PF")


def test_no_name_can_control_the_terminal(behave: Any, capsys: pytest.CaptureFixture[str]) -> None:
    behave(raiser(BusyError("held by \x1b[2J\x9b1mevil\r\n\u202etxt", cause="\x07", fix="a\nb")))
    cli.main(["probe", "read"])
    err = capsys.readouterr().err
    assert err == "error: held by \\x1b[2J\\x9b1mevil\\x0d\\x0a\\u202etxt\ncause: \\x07\nfix:   a\\x0ab\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        pytest.param(["bogus"], "no such command 'bogus'", id="unknown-verb"),
        pytest.param(["--json"], "missing command", id="no-verb"),
        pytest.param(["lst"], "did you mean 'list'", id="misspelt-verb"),
        pytest.param(["probe", "bogus"], "no such command 'bogus'", id="unknown-verb-of-a-group"),
        pytest.param(["probe", "read", "--bogus"], "no such option: --bogus", id="unknown-option"),
        pytest.param(["probe", "read", "seven"], "invalid value for 'n'", id="not-a-number"),
        pytest.param(["probe", "read", "1", "2"], "unexpected extra argument", id="one-too-many"),
        pytest.param(["probe", "cntlid"], "missing argument 'function'", id="one-too-few"),
        pytest.param(["probe", "cntlid", "nvme0", "0x1g"], "'0x1g' is not a controller id", id="not-hexadecimal"),
        pytest.param(["probe", "cntlid", "nvme0", "65536"], "'65536' is not a controller id", id="17-bits"),
        pytest.param(["probe", "read", "--dry-run"], "no such option: --dry-run", id="dry-run-changes-nothing"),
    ],
)
def test_wrong_arguments_exit_2_and_name_what_to_type(
    behave: Any, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert cli.main(words) == 2
    out, err = capsys.readouterr()
    assert bool(out) == ("--json" in words)
    assert err.startswith("error: ")
    assert says in err.lower()
    assert "\nfix:   " in err
    assert cli.main([*words, "--json"]) == 2
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["kind"], document["exit_code"]) == ("nvmelm.error", "usage", 2)


@pytest.mark.parametrize(("text", "number"), [("0x0041", 65), ("65", 65), ("41h", 65), ("41H", 65), ("0", 0)])
def test_a_controller_id_is_read_in_three_ways(
    behave: Any, capsys: pytest.CaptureFixture[str], text: str, number: int
) -> None:
    assert cli.main(["probe", "cntlid", "nvme0", text]) == 0
    assert capsys.readouterr().out == f"{number}\n"


def test_ctrl_c_exits_130_and_says_what_may_be_left(behave: Any, capsys: pytest.CaptureFixture[str]) -> None:
    behave(raiser(KeyboardInterrupt()))
    assert cli.main(["probe", "read"]) == 130
    assert "nothing was changed" in capsys.readouterr().err
    assert cli.main(["probe", "write", "--yes"]) == 130
    assert "fix:   nvmelm recover" in capsys.readouterr().err


def test_a_question_nobody_can_answer_is_a_refusal_that_names_yes(
    behave: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        assert cli.main(["probe", "write"]) == 10
    assert "--yes" in capsys.readouterr().err


def test_yes_answers_the_question(behave: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["probe", "write", "--yes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sure"] is True


@pytest.mark.parametrize(
    ("typed", "sure"),
    [("y\n", True), ("n\n", False), ("\n", False), ("\x04", False)],
    ids=["y", "n", "enter", "ctrl-d"],
)
def test_a_question_on_a_terminal_is_asked_and_enter_means_no(typed: str, sure: bool) -> None:
    code = (
        "from nvmelm.cli.frame.run import Run\nfrom nvmelm.cli.frame.options import Settings\n"
        "Run('x', Settings()).confirm('Lose it?')\nprint('sure')"
    )
    printed = on_a_terminal([sys.executable, "-c", code], typed)
    assert "Lose it? [y/N]" in printed
    assert (printed.endswith("sure\r\n"), "not confirmed" in printed) == (sure, not sure)


def on_a_terminal(command: list[str], typed: str = "") -> str:
    """Run a program on a pseudo-terminal and return what it printed."""
    import pty

    leader, follower = pty.openpty()
    try:
        process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, close_fds=True)
        os.close(follower)
        os.write(leader, typed.encode())
        printed = b""
        while True:
            try:
                block = os.read(leader, 4096)
            except OSError:  # EIO: the last user of the terminal has gone
                break
            if not block:
                break
            printed += block
        process.wait(timeout=20)
        return printed.decode()
    finally:
        os.close(leader)


def test_a_reader_that_leaves_early_is_no_error() -> None:
    code = (
        "import sys\nfrom nvmelm.cli.frame import render\n"
        "render.print_lines(f'line {n}' for n in range(200_000))\nsys.exit(0)"
    )
    reader = subprocess.Popen(["head", "-n", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    writer = subprocess.run([sys.executable, "-c", code], stdout=reader.stdin, stderr=subprocess.PIPE, timeout=30)
    out, _ = reader.communicate(timeout=30)
    assert (out, writer.stderr, writer.returncode) == (b"line 0\n", b"", 0)


def test_an_answer_that_cannot_be_written_is_a_failure() -> None:
    with Path("/dev/full").open("w") as full:
        run = subprocess.run([*PROGRAM, "explain", "0"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
    assert run.returncode == 1
    assert "No space left on device" in run.stderr


def test_an_unexpected_exception_is_one_line_and_a_way_to_report_it() -> None:
    code = (
        "import sys, nvmelm.cli as cli, nvmelm.cli.frame.app as app\n"
        "def broken(*a): raise KeyError('hidden')\n"
        "app.import_module = broken\nsys.exit(cli.main(['show', \"it's\", '--json']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert run.returncode == 1
    assert run.stderr.startswith("error: this is a bug in nvmelm: KeyError: 'hidden'\n")
    assert "Traceback" not in run.stderr
    assert "--record" in run.stderr
    document = json.loads(run.stdout)
    assert (document["reason"], document["exit_code"], document["command"]) == ("bug", 1, "show")
    debug = {**os.environ, "NVMELM_DEBUG": "1"}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, env=debug)
    assert "Traceback" in run.stderr
    assert run.returncode == 1


def imported_by(*words: str) -> set[str]:
    code = f"import sys, nvmelm.cli as cli\ncode = cli.main({list(words)!r})\nprint('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    return set(run.stdout.splitlines())


def test_help_imports_no_package_it_does_not_need() -> None:
    modules = imported_by("--help")
    unwanted = {"pydantic", "pydantic_core", "pyudev", "ioctl_opt", "rich", "asyncio", "json", "sqlite3", "hashlib"}
    assert not unwanted & modules
    own = {name for name in modules if name.startswith("nvmelm")}
    assert own == {
        "nvmelm",
        "nvmelm.errors",
        "nvmelm.harmless",
        "nvmelm.numbers",
        "nvmelm.cli",
        "nvmelm.cli.frame",
        "nvmelm.cli.frame.app",
        "nvmelm.cli.frame.options",
        "nvmelm.cli.frame.parser",
        "nvmelm.cli.frame.render",
        "nvmelm.cli.frame.report",
    }


def test_what_compares_two_files_imports_nothing_that_asks_a_device(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(manifest().dumps())
    modules = imported_by("compat", "check", str(tmp_path / "a.json"), str(tmp_path / "a.json"))
    assert "nvmelm.cli.verbs.compat.check" in modules
    assert not {"nvmelm.commands", "nvmelm.inventory.find", "nvmelm.process.child", "pydantic"} & modules


def test_recover_imports_what_speaks_to_another_host_only_when_one_is_asked() -> None:
    modules = imported_by("recover", "--dry-run", "--alone", "--peer", "ssh://b")
    assert "nvmelm.migrate.recovery.sessions" in modules
    assert not {"nvmelm.migrate.link.messages", "pydantic", "random", "hmac"} & modules


def test_the_help_lists_every_verb_from_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    for name, entry in tree.VERBS.items():
        assert f"  {name} " in out
        assert entry.help.split()[0] in out
    assert max(map(len, out.splitlines())) <= 80


def test_every_verb_of_the_table_exists_and_has_help() -> None:
    commands = tree._Commands()
    for name in tree.VERBS:
        command = commands[name]
        assert command.help, name
        for sub in getattr(command, "commands", {}).values():
            assert sub.help, f"{name} {sub.name}"


def test_every_verb_takes_json_and_every_changing_verb_takes_dry_run_and_yes() -> None:
    commands = tree._Commands()
    for name in tree.VERBS:
        command = commands[name]
        for leaf in _leaves(command):
            names = {option for parameter in leaf.params for option in parameter.opts}
            assert {"--json", "--host", "--record", "--redact"} <= names, name
            assert ("--dry-run" in names) == ("--yes" in names), name


def _leaves(command: Any) -> list[Any]:
    below = getattr(command, "commands", None)
    return [leaf for command in below.values() for leaf in _leaves(command)] if below else [command]


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("nvmelm 0.")


def test_the_console_script_and_the_module_are_the_same_program() -> None:
    run = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True, timeout=30)
    assert (run.returncode, run.stdout[:7]) == (0, "nvmelm ")


def test_json_behind_two_dashes_belongs_to_somebody_else() -> None:
    assert report.wants_json(["list", "--json"])
    assert not report.wants_json(["fixture", "replay", "a.json", "--", "list", "--json"])


def test_exit_codes_are_those_of_the_contract() -> None:
    assert {code.value for code in ExitCode} == {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 130}


@pytest.mark.parametrize("kind", [NvmelmError, HostError, MalformedError, UsageError, BusyError, NotReadyError])
@pytest.mark.parametrize("word", ["", "unmarked"])
def test_an_error_that_says_neither_why_nor_what_to_do_is_shown_with_both(
    behave: Any, capsys: pytest.CaptureFixture[str], kind: type[NvmelmError], word: str
) -> None:
    behave(raiser(kind("it broke", reason=word)))
    assert cli.main(["probe", "read", "--json"]) != 0
    out, err = capsys.readouterr()
    assert json.loads(out)["cause"]
    assert json.loads(out)["fix"]
    assert [line.partition(":")[0] for line in err.splitlines()] == ["error", "cause", "fix"]


def test_the_program_alone_is_its_help_and_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    alone = capsys.readouterr()
    assert cli.main(["--help"]) == 0
    assert (alone.out, alone.err) == (capsys.readouterr().out, "")


def test_a_program_that_asks_for_json_and_forgets_the_verb_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--json"]) == 2
    assert json.loads(capsys.readouterr().out)["message"] == "missing command"


def test_the_version_is_a_verb_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == cli.main(["version"]) == 0
    option, verb_line = capsys.readouterr().out.splitlines()
    assert option == verb_line
