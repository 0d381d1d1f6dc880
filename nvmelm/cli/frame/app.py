"""The tree of verbs, and the help that lists it.

Typer's own groups import every verb before the first is run. Here a table names them: the help is printed from the
table, and a module is imported when one of its verbs is invoked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Annotated, Any, NamedTuple, cast

import typer
from typer.core import TyperCommand, TyperGroup

from nvmelm import __version__
from nvmelm.cli.frame import render, report
from nvmelm.cli.frame.options import CONTEXT, ForceOption, HostOption, JsonOption, RecordOption, RedactOption, Settings
from nvmelm.cli.frame.parser import Sparing
from nvmelm.errors import NvmelmError, UsageError


class Entry(NamedTuple):
    """One word after ``nvmelm``: where its Typer application is, and what the help says.

    Attributes:
        module: below ``nvmelm.cli.verbs``; it holds a Typer application called ``app``.
        help: one line.
        verb: the word is this one verb or group of the application, not the whole of it.
    """

    module: str
    help: str
    verb: str = ""


SECTIONS: dict[str, dict[str, Entry]] = {
    "Look": {
        "status": Entry("status", "This host at a glance: functions, marks, VMs, moves.", verb="status"),
        "list": Entry("inventory", "Controlling functions on this host.", verb="list"),
        "show": Entry("inventory", "One of them: capabilities, resources, controlled functions.", verb="show"),
        "watch": Entry("watch", "Everything that changes; lines of JSON for programs.", verb="watch"),
        "host": Entry("host", "check: can this host migrate NVMe functions?"),
    },
    "Prepare": {
        "source": Entry("prepare", "prepare: steps 1 to 4 on the host that gives.", verb="source"),
        "destination": Entry("prepare", "prepare: steps 1 to 4 on the host that takes.", verb="destination"),
        "apply": Entry("apply", "What /etc/nvmelm.toml wants, for every function it lists.", verb="apply"),
        "release": Entry("release", "Undo a preparation: everything as it was found.", verb="release"),
        "libvirt-hook": Entry(
            "libvirt_hook", "What libvirt's hook runs for a domain that names VFs.", verb="libvirt-hook"
        ),
    },
    "Prepare, step by step": {
        "sriov": Entry("sriov", "enable, disable: virtual functions of a controlling function."),
        "secondary": Entry("secondary", "list, assign, online, offline, allow-migration, allow-resume, …"),
        "vfio": Entry("vfio", "bind, unbind: hand virtual functions to vfio-pci and back."),
        "vm": Entry("vm.verbs", "attach, detach: hand VFs to VMs; run, agent, check: VMs that move."),
    },
    "Migrate": {
        "migrate": Entry("migrate.verb", "Step 6 on two hosts: move controlled functions.", verb="migrate"),
        "state": Entry("state", "suspend, resume, save, restore, show: a controller's state."),
        "recover": Entry("recovery", "What was left unfinished, and finish or undo it.", verb="recover"),
        "serve": Entry("serve", "The other end of migrate, started by it through ssh.", verb="serve"),
    },
    "Compatibility": {
        "compat": Entry("compat.verbs", "export, check, …: know before anything stops."),
    },
    "Without hardware": {
        "demo": Entry("demo", "Two emulated hosts, the six steps on both, under I/O.", verb="demo"),
        "emulate": Entry("emulate.verbs", "create, fault, generations, …: hosts for --host emulated:DIR."),
        "fixture": Entry("fixture", "record, replay, show: what a device answered, kept in a file."),
    },
    "Help": {
        "version": Entry("version", "Print the version, as --version does.", verb="version"),
        "explain": Entry("explain", "An NVMe status, an errno, an exit code or a reason, in words.", verb="explain"),
        "share": Entry("share", "Where the files for other programs are: Ansible, libvirt, systemd.", verb="share"),
        "bug-report": Entry("bug_report.verbs", "One archive for whoever looks into a problem.", verb="bug-report"),
    },
}
VERBS: dict[str, Entry] = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class _Commands(MutableMapping[str, Any]):
    """The commands of the root group, imported one by one when they are asked for."""

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            entry = VERBS[name]
            group = typer.main.get_group(import_module(f"nvmelm.cli.verbs.{entry.module}").app)
            self._loaded[name] = group.commands[entry.verb] if entry.verb else group
        return self._loaded[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Return a command, or the default when the table has none; an error in its module is not taken for that."""
        return self[name] if name in VERBS else default

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        del self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(VERBS)

    def __len__(self) -> int:
        return len(VERBS)


class LazyGroup(Sparing, TyperGroup):
    """The root of the command line; imports a verb's module when the verb is invoked."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """List the verbs, then the options: the verbs are what a reader looks for."""
        self.format_commands(ctx, formatter)
        TyperCommand.format_options(cast("Any", self), ctx, formatter)  # a group's own would list the verbs again

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the verbs from the table, without importing one."""
        width = max(map(len, VERBS))
        for title, entries in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), entry.help) for name, entry in entries.items()])


app = typer.Typer(
    cls=LazyGroup,
    name="nvmelm",
    invoke_without_command=True,
    rich_markup_mode=None,
    add_completion=True,
    context_settings=CONTEXT,
)


_EPILOG = """nvmelm COMMAND --help says more. Every verb takes --json, changing verbs take --dry-run and --yes.
Completion for the shell in use: nvmelm --install-completion; --show-completion SHELL prints it."""


def _print_version(wanted: bool) -> None:
    if wanted:
        render.print_lines([version_line()])
        raise typer.Exit


def version_line() -> str:
    """Return the program and its version, as ``nvmelm --version`` prints them."""
    return f"nvmelm {__version__}"


@app.callback(epilog=_EPILOG)
def _root(
    ctx: typer.Context,
    host: HostOption = None,
    record: RecordOption = None,
    redact: RedactOption = False,
    force: ForceOption = False,
    json: JsonOption = False,
    version: Annotated[  # noqa: ARG001 - its callback has printed it by now
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Prepare hosts for live migration of NVMe virtual functions, and save and restore their state."""
    if ctx.invoked_subcommand is None:
        _alone(ctx, json=json)
    ctx.obj = Settings(host=host or "local", record=record, redact=redact, force=force, json=json)


def _completion(words: list[str]) -> int | None:
    from nvmelm.cli.frame import completion

    def ask(shell: str) -> int:
        os.environ.update(_NVMELM_COMPLETE=f"source_{shell}")
        typer.main.get_command(app).main(args=[], prog_name="nvmelm", standalone_mode=False)
        return 0

    return completion.show(words, VERBS, ask)


def _alone(ctx: typer.Context, *, json: bool) -> None:
    """Print the help where no verb was typed; a program that asks for JSON has forgotten one.

    Raises:
        UsageError: --json without a verb.
    """
    if json:
        usage = "usage: nvmelm [OPTIONS] COMMAND [ARGS]..."
        raise UsageError("missing command", cause=usage, fix="nvmelm --help", reason="arguments")
    render.print_lines(ctx.get_help().splitlines())
    raise typer.Exit


def run(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    report.catch_bugs(words)
    if any(word.startswith(("--show-completion", "--install-completion")) for word in words):
        try:
            shown = _completion(words)
        except NvmelmError as error:
            return report.failed(error, json=False, command="")
        if shown is not None:
            return shown
    root = typer.main.get_command(app)
    for option in cast("list[Any]", root.params):
        if str(option.name).endswith("_completion"):
            option.hidden = True  # the last line of the help names them
    try:
        outcome = root.main(args=words, prog_name="nvmelm", standalone_mode=False)
    except report.CLICK_ERROR as error:
        return report.usage(error, words)
    except NvmelmError as error:  # an argument that could not be read
        return report.failed(error, json=report.wants_json(words), command=report.verb_of(words))
    return outcome if isinstance(outcome, int) else 0
