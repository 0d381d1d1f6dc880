"""What an error says to type can be typed: every verb and option that a fix names is in the tree of verbs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import nvmelm
from nvmelm.cli.frame import completion
from nvmelm.cli.frame.documents import error_document
from nvmelm.cli.frame.report import failed
from nvmelm.cli.reference import tree
from nvmelm.errors import NvmelmError
from nvmelm.reasons import REASONS
from nvmelm.wire.status import lookup
from tests.unit.cli.test_cli_reasons import types

SOURCES = Path(nvmelm.__file__).parent
#: Options of programs that a fix names beside nvmelm's own: of virsh, and of nvme-cli.
FOREIGN = {"--all", "--live", "--paused", "--config", "--namespace-id", "--controllers"}
#: What follows "nvmelm" where a fix speaks of the program, and of no command of it.
PROSE = {"as", "asks", "finds", "loads", "on", "that", "works"}
_COMMAND = re.compile(r"\bnvmelm ((?:(?!nvmelm\b)[^;,:()\n]|: ?(?=//))*)")


def fixes() -> Iterator[tuple[str, str]]:
    """Yield each text that the code may give as a fix, with where it stands; what is filled in reads ``X``."""
    for word, (_, fix) in REASONS.items():
        yield f"reasons.py: {word}", fix
    for path in sorted(SOURCES.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "fix":
                yield from ((f"{path.name}:{node.value.lineno}", text) for text in texts(node.value))
            elif isinstance(node, ast.Assign) and "fix" in ast.unparse(node.targets[0]):
                yield from ((f"{path.name}:{node.lineno}", text) for text in texts(node.value))


def texts(node: ast.expr) -> Iterator[str]:
    """Yield the texts that an expression may be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
    else:
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.expr):
                yield from texts(inner)


def verbs() -> dict[str, set[str]]:
    """Return the options of every verb."""
    hidden = {"--help", *completion.OPTIONS}
    everywhere = {option for row in tree.root_options() for option in options(row.typed)} | hidden
    return {
        verb.name: {option for row in verb.options for option in options(row.typed)} | everywhere
        for topic in tree.topics()
        for verb in topic.verbs
    }


def options(text: str) -> list[str]:
    return re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)


def test_every_option_that_a_fix_names_is_one() -> None:
    known = set().union(*verbs().values()) | FOREIGN
    assert {(where, option) for where, fix in fixes() for option in options(fix) if option not in known} == set()


def test_every_command_that_a_fix_names_can_be_typed() -> None:
    known, wrong, right = verbs(), [], 0
    for where, fix in fixes():
        for command in _COMMAND.findall(fix):
            problem = trouble(command, known)
            if problem:
                wrong.append((where, problem, fix))
            right += 1
    assert wrong == []
    assert right > 100


def trouble(command: str, known: dict[str, set[str]]) -> str:
    """Return what is wrong with a command, which may go on in prose; empty: nothing."""
    words = command.split()
    if words[0] in PROSE or words[0].startswith("--") or words[1:2] == ["X"]:  # the root's options; a verb filled in
        return ", ".join(option for option in options(words[0]) if option not in known["list"] | {"--version"})
    name = next((verb for verb in known if words[: len(verb.split())] == verb.split()), "")
    if not name:
        return f"no verb: {command!r}"
    return ", ".join(option for option in options(command) if option not in known[name])


@pytest.mark.parametrize("kind", sorted(types(), key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_every_kind_of_error_says_what_happened_why_and_what_to_do(
    kind: type[NvmelmError], capsys: pytest.CaptureFixture[str]
) -> None:
    error = kind.__new__(kind)
    NvmelmError.__init__(error, "it broke")
    vars(error).update(path="", errno=0, status=lookup("0x4006"))
    assert failed(error, json=False, command="probe") == kind.exit_code
    document = error_document(error, "probe")
    assert all((document.message, document.cause, document.fix))
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["error", "cause", "fix"]


@pytest.mark.parametrize("word", REASONS)
def test_every_reason_alone_says_why_and_what_to_do(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = NvmelmError("it broke", reason=word)
    failed(error, json=False, command="probe")
    assert (error.cause, error.fix) == REASONS[word]
