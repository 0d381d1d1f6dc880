"""How an error is shown: three lines for a person, one JSON document for a program, and its exit code.

::

    error: Migration Receive (Get Controller State) failed: Controller Not Suspended (1h/3Ah)
    cause: controller 0x0041 is still processing commands, so its state would be torn
    fix:   nvmelm state suspend nvme0 0x0041, then save again

The lines go to stderr. With ``--json`` the document goes to stdout, and the lines to stderr all the same.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import typer

from nvmelm.cli.frame import render
from nvmelm.errors import ExitCode, HostError, NvmelmError, UsageError

#: The root of the command-line parser's own errors. Typer carries its parser under a private name in some releases and
#: depends on click in others; its public ``BadParameter`` derives from the class in all of them.
CLICK_ERROR: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def wants_json(words: list[str]) -> bool:
    """Return whether a command line asks for JSON, also one that cannot be parsed."""
    own = words[: words.index("--")] if "--" in words else words
    return "--json" in own


def verb_of(words: list[str]) -> str:
    """Return the verb of a command line that was not understood, as far as it can be told."""
    names = [word for word in words if not word.startswith("-")]
    return " ".join(names[:1])


#: systemd names the stream here that it connected with the journal.
UNDER_SYSTEMD = "JOURNAL_STREAM"


def failed(
    error: NvmelmError, *, json: bool, command: str, aside: bool = False, subjects: Sequence[tuple[str, str]] = ()
) -> int:
    """Show an error and return the exit code it ends the program with.

    A reason of another host that may be newer, and is not explained here, gives way to the word of the error's type.

    Args:
        aside: stdout carries data, so the JSON document goes to stderr, alone.
        subjects: what it is about, as fields of the system's journal.
    """
    if error.reason and not _explained(error.reason):
        error.reason = ""
    _complete(error)
    if json:
        from nvmelm.cli.frame.documents import error_document  # 2 ms, for --json alone

        _print_document(error_document(error, command).to_json(), aside=aside)
        if aside:
            return int(error.exit_code)
    if UNDER_SYSTEMD in os.environ and _logged(error, command, subjects):
        return int(error.exit_code)
    paint = render.Paint(sys.stderr)
    lines = _sentence("error: ", error.message, paint.bad)
    if error.cause:
        lines += _sentence("cause: ", error.cause, paint.dim)
    if error.fix:
        lines.append(paint.good("fix:   ") + render.plain(error.fix))  # never broken: it is copied and typed
    for note in getattr(error, "__notes__", ()):
        lines += _sentence("note:  ", note, paint.dim)
    render.tell(lines)
    return int(error.exit_code)


def _complete(error: NvmelmError) -> None:
    """Say why and what to do where the error itself does not: what its word means."""
    if error.cause and error.fix:
        return
    meaning, fix = _known().get(error.word) or _known()["failed"]
    error.cause = error.cause or meaning
    error.fix = error.fix or fix


def _known() -> Mapping[str, tuple[str, str]]:
    from nvmelm.reasons import REASONS  # 1.5 ms of each start, and most verbs end without an error

    return REASONS


def _explained(reason: str) -> bool:
    if reason in _known():
        return True
    from nvmelm.compat.reasons import explanation  # 7 ms with the next: a word of a verdict, or of a status
    from nvmelm.wire.status import lookup

    if explanation(reason) is not None:
        return True
    try:
        return lookup(reason).reason == reason  # the word of a status, which is none of a number
    except UsageError:
        return False


def _logged(error: NvmelmError, command: str, subjects: Sequence[tuple[str, str]]) -> bool:
    from nvmelm.cli.frame.logs import log_error  # 4 ms, and verbs are seldom run by systemd

    return log_error(error, command, subjects)


def _sentence(prefix: str, text: str, paint: Callable[[str], str]) -> list[str]:
    return render.wrapped(prefix, render.plain(text), sys.stderr, painted=paint(prefix))


def fill_in(error: NvmelmError, typed: dict[str, str]) -> None:
    """Put what the operator typed for ``PF`` and ``CNTLID`` into the commands of a fix.

    >>> error = NvmelmError("", fix="nvmelm show PF tells the PF's limits")
    >>> fill_in(error, {"PF": "nvme0"}); error.fix
    "nvmelm show nvme0 tells the PF's limits"
    >>> error = NvmelmError("", fix="on beta: nvmelm show PF"); fill_in(error, {"PF": "nvme0"}); error.fix
    'on beta: nvmelm show PF'
    """

    def name(match: re.Match[str]) -> str:
        return match[1] + " ".join(typed.get(word, word) for word in match[2].split(" "))

    if re.match(r"on \S+: ", error.fix):
        return  # what to type on another host, where other names hold
    error.fix = re.sub(r"(\bnvmelm(?: [a-z-]+)+ )((?:PF|CNTLID)(?: CNTLID)?)\b", name, error.fix)


def _print_document(document: dict[str, Any], *, aside: bool) -> None:
    """Print the document; when stdout takes nothing more, the lines on stderr must do."""
    if aside and sys.stderr is None:
        return
    with contextlib.suppress(HostError):
        render.print_json(document, sys.stderr if aside else sys.stdout)


def usage(error: Any, words: list[str]) -> int:
    """Show what the parser could not understand."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "nvmelm"
    no_verb = type(error).__name__ == "NoArgsIsHelpError"
    if no_verb and not wants_json(words):
        render.tell([context.get_help() if context else str(error)])
        return int(ExitCode.USAGE)
    text = "missing verb" if no_verb else " ".join(error.format_message().split()).rstrip(".")
    meant = UsageError(
        text[:1].lower() + text[1:],
        cause=" ".join(context.get_usage().split()).replace("Usage:", "usage:", 1) if context else "",
        fix=f"{command} --help",
        reason="arguments",
    )
    return failed(meant, json=wants_json(words), command=command.removeprefix("nvmelm").strip())


def catch_bugs(words: list[str]) -> None:
    """Show an exception that nobody expected as one line; NVMELM_DEBUG=1 shows its traceback.

    A hook and not an ``except``: whatever is running is left by the ordinary way first, and its journal stands.
    """

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if os.environ.get("NVMELM_DEBUG") == "1":
            sys.__excepthook__(kind, error, trace)
        failed(bug(error, words), json=wants_json(words), command=verb_of(words))

    sys.excepthook = show


def bug(error: BaseException, words: list[str]) -> NvmelmError:
    """Return the error that an unexpected exception is shown as."""
    again = " ".join(render.quote(word) for word in words)
    return NvmelmError(
        f"this is a bug in nvmelm: {type(error).__name__}: {error}",
        cause="nothing that can be named went wrong; a changing verb may be unfinished: nvmelm recover lists it",
        fix=f"report it with a recording: nvmelm --record bug.json --redact {again} (NVMELM_DEBUG=1 shows where)",
        reason="bug",
    )
