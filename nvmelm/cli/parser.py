"""The commands and groups of the parser: how help reads, and what a value costs, whichever release of typer runs them.

Typer 0.29 builds a pydantic adapter for each option and argument, given or not, which takes longer than ``nvmelm list``
does. Text needs no adapter, and what was not given needs none either.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from typer.core import TyperCommand, TyperGroup


class Sparing:
    """A command whose parameters take text, and nothing at all, as they are; the rest goes the parser's own way."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, ``--help`` among them."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if "process_value" not in vars(parameter):
                parameter.process_value = partial(_value, parameter, parameter.process_value)
        return parameters


def _value(parameter: Any, convert: Callable[[Any, Any], Any], ctx: Any, value: Any) -> Any:
    descriptor = getattr(parameter, "type_descriptor", None)  # releases that have none convert text at no cost
    is_text = isinstance(value, str) and getattr(descriptor, "annotation", None) is str
    is_nothing = value is None and parameter.nargs == 1 and not parameter.required
    if not is_text and not is_nothing:
        return convert(ctx, value)
    if is_nothing and getattr(parameter, "multiple", False):
        value = ()
    return parameter.callback(ctx, parameter, value) if parameter.callback else value


class VerbCommand(Sparing, TyperCommand):
    """A verb whose help names arguments as its usage line does."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words behind the verb: ``[OPTIONS] PF CNTLID``."""
        return ["[OPTIONS]", *(_name(one) for one in self.get_params(ctx) if one.param_type_name == "argument")]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """List arguments, then options."""
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            shown: list[Any] = [one for one in self.get_params(ctx) if one.param_type_name == kind]
            rows = [row(one) for one in shown if not getattr(one, "hidden", False)]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


def row(parameter: Any) -> tuple[str, str]:
    """Return how an argument or an option is typed, and what it is for."""
    if parameter.param_type_name == "argument":
        return _name(parameter), parameter.help or ""
    takes = f" {parameter.metavar}" if parameter.metavar else ""
    needed = " Required." if parameter.required else ""
    return ", ".join(sorted(parameter.opts, key=len)) + takes, (parameter.help or "") + needed


def _name(parameter: Any) -> str:
    return parameter.metavar or str(parameter.name).upper()


class VerbGroup(Sparing, TyperGroup):
    """A group whose help shows the first sentence of each verb, whole."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """List the verbs; ``--help`` is the only option a group has."""
        self.format_commands(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the verbs."""
        rows = [(name, first_sentence(command.help or "")) for name, command in self.commands.items()]
        with formatter.section("Verbs"):
            formatter.write_dl(rows)


def first_sentence(text: str) -> str:
    """Return a help text up to its first full stop, on one line."""
    sentence, stop, _ = " ".join(text.split()).partition(". ")
    return sentence + stop.strip()
