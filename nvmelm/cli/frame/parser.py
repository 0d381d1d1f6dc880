"""The commands and groups of the parser: how help reads, and what a value costs, whichever release of typer runs them.

Typer 0.29 builds a pydantic adapter for each option and argument, given or not, which takes longer than ``nvmelm list``
does. Text, paths and whole numbers need no adapter, and what was not given needs none either.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

from nvmelm.numbers import decimal


class Sparing:
    """A command that reads text, paths, whole numbers and nothing at all itself; the rest goes the parser's own way."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, ``--help`` among them."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            if parameter.name == "help" and parameter.is_eager:
                parameter.callback = _print_help
            if "process_value" not in vars(parameter):
                parameter.process_value = partial(_value, parameter, parameter.process_value)
        return parameters


def _value(parameter: Any, convert: Callable[[Any, Any], Any], ctx: Any, value: Any) -> Any:
    descriptor = getattr(parameter, "type_descriptor", None)  # releases that have none convert values at no cost
    if value is None and parameter.nargs == 1 and not parameter.required:
        plain = () if getattr(parameter, "multiple", False) else None
    elif value is not None and descriptor is not None:
        try:
            plain = _read(value, descriptor.annotation, descriptor.parameter_info)
        except typer.BadParameter as error:
            error.ctx, error.param = error.ctx or ctx, error.param or parameter  # the message names the option
            raise
        except ValueError:  # not plain, or not good: the parser knows what to do, and how to say so
            return convert(ctx, value)
    else:
        return convert(ctx, value)
    return parameter.callback(ctx, parameter, plain) if parameter.callback else plain


_U64 = (1 << 64) - 1


def _read(value: Any, annotation: Any, info: Any) -> Any:
    """Return what was typed: text, a path, a bounded number, what an option's own function reads, or a list of these.

    Raises:
        ValueError: it is none of them.
    """
    if get_origin(annotation) is list and isinstance(value, list | tuple) and value:
        (kind,) = get_args(annotation)
        return [_read(item, kind, info) for item in value]
    if isinstance(value, str):
        if info.parser is not None:
            return info.parser(value)
        if annotation is str:
            return value
        if annotation is Path and _any_path(info):
            return Path(value)
        if annotation is int:
            return _bounded(value, info)
    raise ValueError(value)


def _bounded(text: str, info: Any) -> int:
    number = decimal(text, most=_U64)
    if number is None or not _in_bounds(number, info):
        raise ValueError(text)
    return number


def _any_path(info: Any) -> bool:
    """Return whether an option takes whatever path is typed; who opens it says what is wrong with it."""
    return info.file_okay and info.dir_okay and not (info.exists or info.writable or info.resolve_path)


def _in_bounds(number: int, info: Any) -> bool:
    return (info.min is None or info.min <= number) and (info.max is None or number <= info.max)


def _print_help(ctx: Any, _option: Any, wanted: bool) -> None:
    """Print the help as an answer is: a reader that has left is no error, and a full disk is one with a fix."""
    if wanted and not ctx.resilient_parsing:
        from nvmelm.cli.frame import render

        render.print_lines(ctx.get_help().splitlines())
        ctx.exit()


class VerbCommand(Sparing, TyperCommand):
    """A verb whose help names arguments as its usage line does."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words behind the verb: ``[OPTIONS] PF CNTLID``."""
        return [
            "[OPTIONS]",
            *(_name(parameter) for parameter in self.get_params(ctx) if parameter.param_type_name == "argument"),
        ]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """List arguments, then options."""
        for title, kind in (("Arguments", "argument"), ("Options", "option")):
            shown: list[Any] = [parameter for parameter in self.get_params(ctx) if parameter.param_type_name == kind]
            rows = [row(parameter) for parameter in shown if not getattr(parameter, "hidden", False)]
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
