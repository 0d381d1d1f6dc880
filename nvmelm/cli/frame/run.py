"""What every verb is run by: it opens the host, prints the answer, and turns errors into exit codes.

A verb is a function that takes a :class:`Run` and what the operator typed, and returns an :class:`Answer`::

    @verb(app, "enable", changes=True)
    def enable(run: Run, pf: Pf, vfs: Vfs) -> Answer:
        '''Enable virtual functions.'''
        with run.primary(pf, change=True) as session:
            return change(sriov.enable_sriov(session, vfs, confirm=run.confirm, dry_run=run.dry_run))

``--json`` (and on verbs that change something ``--dry-run`` and ``--yes``) are added here: no verb can lack one.
"""

from __future__ import annotations

import copy
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, NamedTuple, ParamSpec, Self

import typer

from nvmelm.cli.frame import render, report
from nvmelm.cli.frame.aside import ASIDE
from nvmelm.cli.frame.options import (
    DryRunOption,
    ForceOption,
    HostOption,
    JsonOption,
    RecordOption,
    RedactOption,
    Settings,
    YesOption,
)
from nvmelm.cli.frame.parser import VerbCommand
from nvmelm.documents import Report
from nvmelm.errors import ExitCode, InterruptedByUserError, NotReadyError, NvmelmError, host_error
from nvmelm.process import waiting

if TYPE_CHECKING:  # what a verb without a host, `explain` say, need not import
    from nvmelm.cli.frame.progress import ProgressBar  # 0.6 ms: few verbs show one
    from nvmelm.host import Host
    from nvmelm.inventory.find import PrimaryRef
    from nvmelm.inventory.opened import OpenPrimary

P = ParamSpec("P")

_ALSO = "--host, --record, --redact and --force may stand here too: nvmelm --help."


class Answer(NamedTuple):
    """What a verb has to say.

    Attributes:
        document: for ``--json``.
        text: makes the lines for people, when they are wanted.
        exit_code: not always 0: ``host check`` says "not supported" with an answer, not with an error.
    """

    document: Report
    text: Callable[[], Iterable[str]]
    exit_code: ExitCode = ExitCode.DONE


class Run:
    """One run of one verb: its settings, its host, and the operator at the other end.

    Attributes:
        command: the verb, ``sriov enable``.
        aside: stdout carries data, so answer and errors go to stderr.
        typed: what stands for ``PF`` and ``CNTLID`` in this run, so that a fix can be typed as it stands.
        subjects: what an error of this run is about, as fields of the system's journal.
    """

    def __init__(self, command: str, settings: Settings, *, dry_run: bool = False, yes: bool = False) -> None:
        self.command = command
        self.settings = settings
        self.dry_run = dry_run
        self.yes = yes
        self.aside = False
        self.typed: dict[str, str] = {}
        self.subjects: list[tuple[str, str]] = []
        self._stack = ExitStack()
        self._host: Host | None = None

    def host(self) -> Host:
        """Open the host that ``--host`` names; it is closed when the verb ends. Waits are said from here on."""
        if self._host is None:
            self._stack.enter_context(waiting.said_to(self._waits))
            self._host = self._stack.enter_context(self._open(self.settings.record, self.command))
        return self._host

    def _open(self, record: Path | None, about: str) -> Host:
        from nvmelm.hosts import open_host  # 3 ms: `explain`, say, needs no host

        wishes = self.settings
        about = f"nvmelm {about}"
        return open_host(wishes.host, record=record, redact=wishes.redact, replace=wishes.force, about=about)

    @contextmanager
    def recording(self, file: Path, about: str) -> Iterator[None]:
        """Record all that happens in this block to a file, which is there when it ends."""
        with self._open(file, about) as host:
            self._host = host
            yield
        self._host = None

    @contextmanager
    def primary(self, which: str | PrimaryRef, *, change: bool = False) -> Iterator[OpenPrimary]:
        """Open a controlling function; ``change`` holds its lock, but not for a dry run."""
        from nvmelm.inventory.opened import open_primary  # 50 ms: `list`, and what compares files, open none

        with open_primary(self.host(), which, change=change and not self.dry_run) as pf:
            self.subjects.insert(0, ("NVMELM_DEVICE", pf.address))
            yield pf

    def about(self, pf: str, which: object) -> None:
        """Say what this run is about: its errors name the controller, and fixes can be typed as they stand."""
        self.typed["PF"] = render.quote(pf)
        if isinstance(which, int):
            self.subjects.append(("NVMELM_CNTLID", render.cntlid(which)))
            several = len({name for field, name in self.subjects if field == "NVMELM_CNTLID"}) > 1
            self.typed["CNTLID"] = "CNTLID" if several else render.cntlid(which)

    def confirm(self, question: str) -> None:
        """Ask before something is lost; return when that is meant. ``--yes`` answers beforehand.

        Raises:
            NotReadyError: nobody is there to ask.
            InterruptedByUserError: the answer is no.
        """
        if self.yes:
            return
        if not (render.is_terminal(sys.stdin) and render.is_terminal(sys.stderr)):
            raise NotReadyError(
                f"not confirmed: {question}",
                cause="nobody can be asked: the input is not a terminal",
                fix="pass --yes when that is meant",
                reason="confirmation",
            )
        try:
            agreed = typer.confirm(render.plain(question), err=True)
        except typer.Abort:  # Ctrl-C or the end of the input
            agreed = False
        if not agreed:
            raise InterruptedByUserError(
                "not confirmed", cause="the answer was not yes; nothing was changed", reason="declined"
            )

    def progress(self, label: str) -> ProgressBar:
        """Return a progress bar; it shows on a terminal only, and never with ``--json``."""
        from nvmelm.cli.frame.progress import ProgressBar  # 0.6 ms: few verbs show one

        return self._stack.enter_context(ProgressBar(label, quiet=self.settings.json))

    def _waits(self, what: str, deadline_s: float) -> None:
        if not self.settings.json:
            self.say(f"waiting for {what}, {deadline_s:g} s at most")
            return
        import json

        from nvmelm.cli.frame.waits import Waiting  # few verbs wait

        self.say(json.dumps(Waiting(command=self.command, waits_for=what, most_seconds=deadline_s).to_json()))

    def say(self, line: str) -> None:
        """Print a line for the operator on stderr while the verb runs; nobody waits for a terminal."""
        with suppress(OSError):
            ASIDE.write(sys.stderr, render.plain(line) + "\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)
        ASIDE.drain()


def verb(
    app: typer.Typer, name: str, *, changes: bool = False
) -> Callable[[Callable[Concatenate[Run, P], Answer | int]], Callable[..., None]]:
    """Register a function as a verb of a group.

    Args:
        changes: the verb changes something, so it takes ``--dry-run`` and ``--yes``.
    """

    def register(function: Callable[Concatenate[Run, P], Answer | int]) -> Callable[..., None]:
        @functools.wraps(function)
        def invoke(ctx: typer.Context, **values: Any) -> None:
            run = _from_options(ctx, values, changes=changes)
            raise typer.Exit(_finish(run, functools.partial(function, run, **values), changes=changes))

        invoke.__signature__ = _signature(function, changes=changes)  # type: ignore[attr-defined]
        app.command(name, cls=VerbCommand, epilog=_ALSO)(invoke)
        return invoke

    return register


def _signature(function: Callable[..., Any], *, changes: bool) -> inspect.Signature:
    """Return what the parser sees: the verb's own arguments and the options every verb has."""
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    options: list[tuple[str, Any, Any]] = [("json", JsonOption, False)]
    if changes:
        options += [("dry_run", DryRunOption, False), ("yes", YesOption, False)]
    options += [("host", _hidden(HostOption), None), ("record", _hidden(RecordOption), None)]
    options += [("redact", _hidden(RedactOption), False), ("force", _hidden(ForceOption), False)]
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for name, kind, default in options
    ]
    return inspect.Signature(
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + added + [context]
    )


def _hidden(option: Any) -> Any:
    """Return an option of the root that a verb takes too, but does not list: ``nvmelm --help`` does."""
    (info,) = option.__metadata__
    info = copy.copy(info)
    info.hidden, info.envvar = True, None
    return Annotated[option.__origin__, info]


def _from_options(ctx: typer.Context, values: dict[str, Any], *, changes: bool) -> Run:
    before: Settings = ctx.obj or Settings()
    settings = Settings(
        host=values.pop("host") or before.host,
        record=values.pop("record") or before.record,
        redact=values.pop("redact") or before.redact,
        force=values.pop("force") or before.force,
        json=values.pop("json") or before.json,
    )
    command = ctx.command_path.removeprefix("nvmelm").strip()
    dry_run, yes = (values.pop("dry_run"), values.pop("yes")) if changes else (False, False)
    run = Run(command, settings, dry_run=dry_run, yes=yes)
    if isinstance(values.get("pf"), str):
        run.typed["PF"] = render.quote(values["pf"])
    return run


def _finish(run: Run, function: Callable[[], Answer | int], *, changes: bool) -> int:
    try:
        with run:
            answer = function()
        return _print(run, answer, changes=changes) if isinstance(answer, Answer) else answer
    except KeyboardInterrupt as interrupt:
        from nvmelm.process.interrupts import let_go  # for whom all goes well, it is not needed

        let_go(interrupt)
        error: NvmelmError = _interrupted(changes=changes)
    except NvmelmError as met:
        error = met
    except OSError as met:  # of a path that was typed: somebody may not read it, or it is no directory
        if met.filename is None:
            raise
        error = host_error("cannot be used", str(met.filename), met)
    report.fill_in(error, run.typed)
    subjects = list(dict.fromkeys(run.subjects))
    return report.failed(error, json=run.settings.json, command=run.command, aside=run.aside, subjects=subjects)


def _print(run: Run, answer: Answer, *, changes: bool) -> int:
    stream = sys.stderr if run.aside else sys.stdout
    if stream is None and run.aside:  # stdout carries data, and nothing else
        return int(answer.exit_code)
    logged = changes and report.UNDER_SYSTEMD in os.environ and _logged(run, answer)
    if run.settings.json:
        render.print_json(answer.document.to_json(), stream)
    elif not logged or answer.exit_code is not ExitCode.DONE:  # what failed is not among the changes
        render.print_lines(answer.text(), stream)
    return int(answer.exit_code)


def _logged(run: Run, answer: Answer) -> bool:
    from nvmelm.cli.frame.logs import log_changes  # 3 ms, under systemd alone

    return log_changes(answer.document.to_json(), run.command, run.subjects)


def _interrupted(*, changes: bool) -> InterruptedByUserError:
    if changes:
        return InterruptedByUserError(
            "interrupted", cause="Ctrl-C; what was begun may be unfinished", fix="nvmelm recover", reason="interrupted"
        )
    return InterruptedByUserError("interrupted", cause="Ctrl-C; nothing was changed", reason="interrupted")
