"""Spans, sizes and the way to another host are typed the same in every option that takes them."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from nvmelm import cli
from nvmelm.cli.frame import app
from nvmelm.cli.frame.options import CONTEXT
from nvmelm.migrate.rounds.memory import parse_range
from nvmelm.numbers import size, span
from nvmelm.wire.extents import Extent

#: Seconds, typed by hand; within what every option allows.
SPANS = {"90s": 90.0, "1min": 60.0, "20000ms": 20.0, "0.5min": 30.0}
#: Words in a metavar or a help text that speak of a time.
OF_TIME = {"SECONDS", "SECS", "S", "MS", "MINUTES", "SPAN", "DURATION"}


def options() -> list[tuple[str, Any, Any]]:
    """Return (verb, option, its context) of every verb there is."""
    root: Any = typer.main.get_command(app.app)
    return list(below(root, "", typer.Context(root, info_name="nvmelm", **CONTEXT)))


def below(command: Any, name: str, context: Any) -> Any:
    if hasattr(command, "commands"):
        for word in command.commands:
            inner = command.commands[word]
            yield from below(inner, f"{name} {word}".strip(), typer.Context(inner, info_name=word, parent=context))
        return
    for parameter in command.get_params(context):
        yield name, parameter, context


SPAN_OPTIONS = [(name, one, context) for name, one, context in options() if one.metavar in OF_TIME]


@pytest.mark.parametrize(("name", "option", "context"), SPAN_OPTIONS, ids=lambda value: str(getattr(value, "name", "")))
def test_every_option_of_a_time_reads_the_same_spans(name: str, option: Any, context: Any) -> None:
    assert option.metavar == "SPAN", f"{name} {option.opts}"
    for text, seconds in SPANS.items():
        assert option.process_value(context, text) == seconds
    for wrong in ("soon", "-1s", "1 s", "1e3", "٣s", ""):
        with pytest.raises(typer.BadParameter):
            option.process_value(context, wrong)


def test_a_span_that_is_none_is_refused_with_the_option_it_was_typed_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["watch", "--every", "0"]) == 2
    assert "'--every'" in capsys.readouterr().err


def test_the_options_of_a_time_are_these_at_least() -> None:
    known = {(name, max(one.opts, key=len)) for name, one, _ in SPAN_OPTIONS}
    assert {
        ("watch", "--seconds"),
        ("watch", "--every"),
        ("migrate", "--max-downtime"),
        ("vm detach", "--timeout"),
        ("emulate create", "--latency-ms"),
        ("secondary allow-migration", "--expires"),
    } <= known


def test_who_reaches_another_host_takes_how() -> None:
    by_verb: dict[str, list[Any]] = {}
    for name, one, _ in options():
        by_verb.setdefault(name, []).append(one)
    reach = {
        name
        for name, parameters in by_verb.items()
        if any("ssh://" in f"{one.metavar} {one.help}" for one in parameters if one.param_type_name == "argument")
        or any({"--to", "--peer"} & set(one.opts) for one in parameters)
    }
    assert {"migrate", "recover", "compat check", "compat token", "compat steps"} <= reach
    for name in reach:
        typed = {word for one in by_verb[name] for word in one.opts}
        assert {"--rsh", "--program", "--timeout"} <= typed, name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("500ms", 0.5),
        ("250us", 0.00025),
        ("15min", 900.0),
        ("8h", 28800.0),
        ("2d", 172800.0),
        ("s", None),
    ],
)
def test_a_span_is_seconds(text: str, seconds: float | None) -> None:
    assert span(text) == seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [("64KiB", 65536), ("1GiB", 1073741824), ("4096", 4096), ("0x1000", 4096), ("1GB", None), ("17TiB", None)],
)
def test_a_size_is_bytes(text: str, count: int | None) -> None:
    assert size(text, most=16 << 40) == count


def test_a_range_of_memory_is_typed_in_sizes() -> None:
    assert parse_range("4GiB:1GiB") == Extent(4294967296, 5368709120)
