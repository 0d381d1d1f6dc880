"""What the command line takes of typer's private parts, held where a release that moves them fails first."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from nvmelm.cli.frame import parser
from nvmelm.cli.frame.options import read_whole_span
from nvmelm.cli.frame.parser import VerbCommand

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"
PUBLISHED = tuple(int(part) for part in metadata.version("typer").split(".")[:2])
#: The first release that builds a pydantic adapter for each parameter, which is what the parser spares.
FIRST_WITH_ADAPTERS = (0, 29)

app = typer.Typer()


@app.command(cls=VerbCommand)
def verb(
    pf: Annotated[str, typer.Argument()],
    words: Annotated[list[str], typer.Argument()],
    number: Annotated[int, typer.Option("--number", min=1, max=9)] = 1,
    file: Annotated[Path | None, typer.Option("--file")] = None,
    span: Annotated[int, typer.Option("--span", parser=read_whole_span)] = "1s",  # type: ignore[assignment]
) -> tuple[str, list[str], int, Path | None, int]:
    return pf, words, number, file, span


def parameters() -> dict[str, Any]:
    command: Any = typer.main.get_command(app)
    return {parameter.name: parameter for parameter in command.get_params(command.context_class(command))}


def test_typer_has_a_roof_and_what_is_installed_is_below_it() -> None:
    dependencies = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    (wanted,) = (row for row in dependencies if row.startswith("typer"))
    roof = tuple(int(part) for part in wanted.partition("<")[2].split("."))
    assert roof > PUBLISHED


def test_every_parameter_is_read_through_the_method_that_is_replaced() -> None:
    for parameter in parameters().values():
        assert callable(getattr(type(parameter), "process_value", None)), "typer calls another method for a value"


@pytest.mark.skipif(PUBLISHED < FIRST_WITH_ADAPTERS, reason="this release converts values at no cost")
def test_a_parameter_says_its_type_and_its_limits_where_the_parser_looks() -> None:
    known = parameters()
    assert known["number"].type_descriptor.annotation is int
    assert (known["number"].type_descriptor.parameter_info.min, known["number"].type_descriptor.parameter_info.max) == (
        1,
        9,
    )
    assert known["span"].type_descriptor.parameter_info.parser is read_whole_span


def test_what_was_typed_is_read_without_the_releases_own_conversion(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    spared = parser._value

    def watched(parameter: Any, convert: Any, ctx: Any, value: Any) -> Any:
        def converts(_ctx: Any, _value: Any) -> Any:
            seen.append(parameter.name)
            return convert(ctx, value)

        return spared(parameter, converts, ctx, value)

    monkeypatch.setattr(parser, "_value", watched)
    command: Any = typer.main.get_command(app)
    words = ["nvme0", "41h", "--number", "7", "--file", "x", "--span", "2min"]
    assert command.main(args=words, standalone_mode=False) == ("nvme0", ["41h"], 7, Path("x"), 120)
    if PUBLISHED >= FIRST_WITH_ADAPTERS:
        assert not {"pf", "words", "number", "file", "span"} & set(seen)
