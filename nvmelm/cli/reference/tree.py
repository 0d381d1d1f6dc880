"""The verbs as data, for what is generated from them: man pages and the reference.

Everything comes from the table in :mod:`nvmelm.cli.frame.app` and from the commands themselves, so that nothing that is
generated can lack a verb or an option.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import typer

from nvmelm.cli.frame import app
from nvmelm.cli.frame.options import CONTEXT
from nvmelm.cli.frame.parser import row


class ParameterRow(NamedTuple):
    """An argument or an option: how it is typed, and what it is for."""

    typed: str
    about: str


class Verb(NamedTuple):
    """A verb.

    Attributes:
        words: what is typed behind ``nvmelm``: ``("secondary", "list")``.
        pieces: what follows it, ``[OPTIONS] PF CNTLID``.
        about: paragraphs, each on one line; a paragraph that is laid out keeps its lines.
    """

    words: tuple[str, ...]
    pieces: str
    about: tuple[str, ...]
    arguments: tuple[ParameterRow, ...]
    options: tuple[ParameterRow, ...]
    changes: bool

    @property
    def name(self) -> str:
        """The words as they are typed."""
        return " ".join(self.words)

    @property
    def usage(self) -> str:
        """The command line."""
        return f"nvmelm {self.name} {self.pieces}".rstrip()


class Topic(NamedTuple):
    """A word after ``nvmelm``: one verb, or a group of them."""

    name: str
    section: str
    about: str
    verbs: tuple[Verb, ...]


def topics() -> list[Topic]:
    """Return the words after ``nvmelm``, in the order of the help."""
    root, context = _root()
    topics = []
    for section, entries in app.SECTIONS.items():
        for name in entries:
            command = root.commands[name]
            topics.append(Topic(name, section, _paragraphs(command.help)[0], tuple(_verbs(command, (name,), context))))
    return topics


def root_options() -> tuple[ParameterRow, ...]:
    """Return the options before the verb; every verb takes the first four behind it too."""
    return _rows(*_root(), "option")


def about() -> str:
    """Return what nvmelm is for, in a sentence."""
    return _paragraphs(_root()[0].help)[0]


def _root() -> tuple[Any, Any]:
    root: Any = typer.main.get_command(app.app)
    for option in root.params:
        if str(option.name).endswith("_completion"):
            option.hidden = True  # the epilogue of the help names them
    return root, typer.Context(root, info_name="nvmelm", **CONTEXT)


def _verbs(command: Any, words: tuple[str, ...], parent: Any) -> Iterator[Verb]:
    if command.hidden:
        return
    context = typer.Context(command, info_name=words[-1], parent=parent, **CONTEXT)
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from _verbs(below, (*words, name), context)
        return
    options = _rows(command, context, "option")
    yield Verb(
        words=words,
        pieces=" ".join(command.collect_usage_pieces(context)),
        about=_paragraphs(command.help),
        arguments=_rows(command, context, "argument"),
        options=options,
        changes=any(row.typed == "--dry-run" for row in options),
    )


def _rows(command: Any, context: Any, kind: str) -> tuple[ParameterRow, ...]:
    shown = [parameter for parameter in command.get_params(context) if parameter.param_type_name == kind]
    return tuple(ParameterRow(*row(parameter)) for parameter in shown if not getattr(parameter, "hidden", False))


def _paragraphs(text: str | None) -> tuple[str, ...]:
    r"""Return a help text's paragraphs; one behind a line of ``\b`` is laid out, and keeps its lines."""
    paragraphs = []
    for paragraph in (text or "").strip().split("\n\n"):
        lines = paragraph.strip("\n").split("\n")
        laid_out = lines[0].strip() == "\b"
        paragraphs.append("\n".join(lines[1:]) if laid_out else " ".join(paragraph.split()))
    return tuple(paragraphs)
