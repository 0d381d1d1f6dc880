"""Whatever changes a host goes through a plan: seen at the seam, for every changing verb, and in the source.

A change that is not planned is not shown by a dry run, not asked about, not journaled and not undone. So nobody but the
one who carries plans out may write sysfs or send a command that changes a controller. The exceptions move or stop a
controller's state, which no plan could put back; each is named with its reason.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

import nvmelm
from nvmelm import cli
from nvmelm.cli.frame import app as app_module
from nvmelm.cli.views import transcripts
from nvmelm.emulator.guest.vmm import EmulatedVmm
from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.emulator.kernel.ioctl import EmulatedQueue
from nvmelm.emulator.kernel.sysfs import EmulatedSysfs
from nvmelm.emulator.machine.generations import NVME_2_1, NamespaceRow
from nvmelm.host import AdminCommand
from nvmelm.inventory import state_reader
from nvmelm.migrate import controllers
from nvmelm.migrate.rounds import memory, user_data
from nvmelm.prepare import executor, plan
from nvmelm.state import restore, running, verbs
from nvmelm.vfio import dirty
from nvmelm.vm.libvirt import hook
from nvmelm.wire.opcodes import Opcode
from tests.emulated.answers import agree
from tests.emulated.prepare.test_guards import domain
from tests.emulated.two_hosts import World

PF, VF = "0000:01:00.0", "0000:01:00.1"
PACKAGE = Path(nvmelm.__file__).parent

#: Below these nobody decides: they carry what they are given.
CARRIERS = ("nvmelm.host", "nvmelm.commands", "nvmelm.emulator")

#: Commands that only ask.
ASKING = {Opcode.IDENTIFY, Opcode.GET_LOG_PAGE, Opcode.GET_FEATURES, Opcode.MIGRATION_RECEIVE, Opcode.TRACK_RECEIVE}

#: Who sends commands that change a controller, or writes sysfs, and why that is no hole.
SENDERS: dict[ModuleType, str] = {
    executor: "carries out plans",
    running: "suspends and resumes: journaled by the session, and undone by the other of the two",
    restore: "writes a state into a suspended controller, journaled by its verb; no plan could put the old back",
    controllers: "makes a session's own target anew when it is given up; the session's record has what it held",
    memory: "tracks memory while a session moves a controller, and ends that with it",
    user_data: "logs writes while a session moves a controller, and ends that with it",
    dirty: "tracks memory while a VMM moves its VM, and ends that with it",
}

#: Who builds such commands without sending them, or sends those that only ask.
BUILDERS: dict[ModuleType, str] = {
    plan: "puts them into plans",
    verbs: "shows those of a dry run",
    state_reader: "reads a state: Migration Receive",
    transcripts: "shows the commands of a recording",
}


def decider(frame: FrameType | None) -> str:
    """Return the module that had something sent: the innermost one of nvmelm's that does not only carry."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name.startswith("nvmelm.") and not name.startswith(CARRIERS):
            return name
        frame = frame.f_back
    return ""


@pytest.fixture
def senders(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Return where the names of modules that change an emulated host are gathered from now on."""
    seen: set[str] = set()
    submit, write = EmulatedQueue.submit, EmulatedSysfs.write

    def submitted(self: EmulatedQueue, command: AdminCommand) -> Any:
        if command.opcode not in ASKING:
            seen.add(decider(inspect.currentframe()))
        return submit(self, command)

    def written(self: EmulatedSysfs, path: str, value: str) -> None:
        seen.add(decider(inspect.currentframe()))
        write(self, path, value)

    monkeypatch.setattr(EmulatedQueue, "submit", submitted)
    monkeypatch.setattr(EmulatedSysfs, "write", written)
    return seen


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a host, name it in NVMELM_HOST, and work beside it."""
    row = NVME_2_1.with_(namespaces=(NamespaceRow(), NamespaceRow(nsid=2)))
    create(tmp_path / "host", [row], serials=["A"]).close()
    monkeypatch.setenv("NVMELM_HOST", f"emulated:{tmp_path / 'host'}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(line: str) -> None:
    assert cli.main(line.split()) == 0, line


def _parameters_apply(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("source prepare nvme0 --vfs 1 --vq 2 --vi 2")
    capsys.readouterr()
    run("compat parameters list nvme0/0x42 --json")
    body = json.loads(capsys.readouterr().out)
    names = [name for name in body["params"] if name.startswith("namespaces.")]
    body["params"] |= {"resources.vq": 3, "namespaces.ids": "1"}
    body["params"] = {
        name: value for name, value in body["params"].items() if name not in names or name.endswith(".ids")
    }
    (place / "list").write_text(json.dumps(body))
    cli.main(["compat", "parameters", "apply", "list", "nvme0", "0x42", "--yes"])


def _apply(place: Path) -> None:
    (place / "nvmelm.toml").write_text("[[pf]]\nserial = 'A'\nvfs = 2\nrole = 'source'\n")
    run("apply --config . --yes")


def _recover(place: Path) -> None:
    from nvmelm.emulator.machine.faults import EmulatedCrash

    with EmulatedHost(place / "host") as host:
        host.arm("admin/0x1c#3=raise-after")
    with pytest.raises(EmulatedCrash):
        cli.main(["source", "prepare", "nvme0", "--vfs", "2"])
    run("recover --yes")


def _hook(place: Path) -> None:
    run("source prepare nvme0 --vfs 1")
    run(f"vfio unbind {VF} --yes")
    with EmulatedHost(place / "host") as host:
        hook.prepare(host, "vm1", domain(), confirm=agree)


def _vm(place: Path) -> None:
    run("source prepare nvme0 --vfs 1")
    with EmulatedHost(place / "host") as host, EmulatedVmm(host, socket=place / "qmp"):
        run(f"vm attach {VF} --qmp qmp")
        run(f"vm detach {VF} --qmp qmp --yes")


PREPARE = "source prepare nvme0 --vfs 2"
#: For every changing verb, what makes it change something; each line is one command line.
LINES: dict[str, tuple[str, ...]] = {
    "sriov enable": ("sriov enable nvme0 --vfs 2",),
    "sriov disable": (PREPARE, "sriov disable nvme0 --yes"),
    "secondary assign": ("sriov enable nvme0 --vfs 1", "secondary assign nvme0 0x42 --vq 2 --vi 2"),
    "secondary online": (
        "sriov enable nvme0 --vfs 1",
        "secondary assign nvme0 0x42 --vq 2 --vi 2",
        "secondary online nvme0 0x42",
    ),
    "secondary offline": (PREPARE, "secondary offline nvme0 0x42 --yes"),
    "secondary allow-migration": (PREPARE + " --unmarked", "secondary allow-migration nvme0 0x42"),
    "secondary allow-resume": (PREPARE + " --unmarked", "secondary allow-resume nvme0 0x42"),
    "secondary revoke": (PREPARE, "secondary revoke nvme0 0x42"),
    "vfio bind": (PREPARE, f"vfio unbind {VF} --yes", f"vfio bind {VF}"),
    "vfio unbind": (PREPARE, f"vfio unbind {VF} --yes"),
    "source prepare": (PREPARE,),
    "destination prepare": ("destination prepare nvme0 --vfs 2",),
    "release": (PREPARE, "release nvme0 --yes"),
    "state suspend": (PREPARE, "state suspend nvme0 0x42 --yes"),
    "state resume": (PREPARE, "state suspend nvme0 0x42 --yes", "state resume nvme0 0x42"),
    "state save": (PREPARE, "state suspend nvme0 0x42 --yes", "state save nvme0 0x42 image"),
    "state restore": (
        PREPARE,
        "state suspend nvme0 0x42 --yes",
        "state save nvme0 0x42 image",
        "secondary allow-resume nvme0 0x43",
        "state suspend nvme0 0x43 --yes",
        "state restore nvme0 0x43 image --yes",
    ),
}
#: Those that take more than a line.
SCENES: dict[str, Callable[[Path], None]] = {
    "apply": _apply,
    "recover": _recover,
    "libvirt-hook": _hook,
    "vm attach": _vm,
    "vm detach": _vm,
}
#: Tests of their own, below.
APART = {"migrate", "compat parameters apply"}


def changing(command: Any, words: list[str]) -> Iterator[str]:
    """Yield the verbs at or below a command that change something: those that can be run dry."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from changing(inner, [*words, name])
    if any(parameter.name == "dry_run" for parameter in command.params):
        yield " ".join(words)


def test_every_changing_verb_is_walked() -> None:
    commands = app_module._Commands()
    verbs = {verb for name in app_module.VERBS for verb in changing(commands[name], [name])}
    assert len(verbs) > 20
    assert verbs == {*LINES, *SCENES, *APART}


@pytest.mark.parametrize("verb", [*LINES, *SCENES])
def test_a_verb_changes_a_host_by_a_plan_or_by_a_named_exception(verb: str, place: Path, senders: set[str]) -> None:
    for line in LINES.get(verb, ()):
        run(line)
    if verb in SCENES:
        SCENES[verb](place)
    assert executor.__name__ in senders
    assert senders <= {module.__name__ for module in SENDERS}


def test_parameters_are_applied_by_a_plan(place: Path, senders: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    _parameters_apply(place, capsys)
    assert senders == {executor.__name__}
    with EmulatedHost(place / "host") as host, host.machine.view() as kept:
        assert 0x42 not in kept["primaries"][PF]["attached"]["2"]


def test_a_move_changes_both_hosts_by_plans_or_by_named_exceptions(world: World, senders: set[str]) -> None:
    world.start_guest(depth=8)
    world.migrate()
    assert world.runs("destination")
    assert executor.__name__ in senders
    assert senders - {""} <= {module.__name__ for module in SENDERS}


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield the modules that decide, by name, as syntax trees."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not name.startswith((*CARRIERS, "nvmelm.share")):
            yield name, ast.parse(path.read_text())


#: Modules of commands that only ask.
ASKING_MODULES = {"identify", "listing", "describe", "optional", "execute", "AdminCommandError"}


def sends(tree: ast.Module) -> set[str]:
    """Return by what a module could change a controller or sysfs itself."""
    ways = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            names = {alias.name for alias in node.names}
            if node.module == "nvmelm.commands":
                ways |= {f"commands.{name}" for name in names - ASKING_MODULES}
            elif node.module.startswith("nvmelm.commands."):
                inner = node.module.rpartition(".")[2]
                ways |= set() if inner in ASKING_MODULES else {f"commands.{inner}"}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = ast.unparse(node.func.value)
            if node.func.attr == "write" and owner.rpartition(".")[2] in ("sysfs", "_sysfs"):
                ways.add("sysfs.write")
            if node.func.attr == "submit" and "queue" in owner.lower():
                ways.add("queue.submit")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "AdminCommand":
            ways.add("AdminCommand")
    return ways


def test_in_the_source_nobody_else_could_change_a_host() -> None:
    named = {module.__name__ for module in (*SENDERS, *BUILDERS)}
    holes = {name: sorted(ways) for name, tree in modules() if name not in named and (ways := sends(tree))}
    assert holes == {}


def test_only_the_one_who_carries_out_plans_writes_sysfs() -> None:
    assert {name for name, tree in modules() if "sysfs.write" in sends(tree)} == {executor.__name__}


def test_every_exception_is_one_still() -> None:
    trees = dict(modules())
    for module in (*SENDERS, *BUILDERS):
        assert sends(trees[module.__name__]), module.__name__
