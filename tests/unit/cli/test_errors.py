"""No error is its own cause: neither where it is raised, nor for whom who follows the chain."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from nvmelm import errors
from nvmelm.cli.frame.documents import error_document
from nvmelm.errors import NvmelmError, TimedOutError, causes, origin

PACKAGE = Path(errors.__file__).parent


@pytest.mark.timeout(10)
def test_the_causes_of_errors_that_cause_each_other_are_each_named_once() -> None:
    first, second = NvmelmError("first"), NvmelmError("second")
    first.__cause__, second.__cause__ = second, first
    assert list(causes(first)) == [first, second]
    assert error_document(first, "show").message == "first"


def test_an_error_that_is_handed_back_keeps_what_it_was_raised_from() -> None:
    reason, error, other = OSError("gone"), TimedOutError("late"), NvmelmError("put back")
    error.__cause__ = reason
    assert origin(error, error) is reason
    assert origin(other, error) is error
    assert origin(reason, error) is None


Functions = dict[str, list[ast.FunctionDef]]


def modules() -> list[ast.Module]:
    return [ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))]


def functions(*among: ast.Module) -> Functions:
    """Return every function of some modules by its name."""
    by_name: Functions = {}
    for node in (node for module in among for node in ast.walk(module) if isinstance(node, ast.FunctionDef)):
        by_name.setdefault(node.name, []).append(node)
    return by_name


def name_of(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def makes_a_new_error(name: str, known: Functions) -> bool:
    """Return whether all that a function of that name returns was made by it; a class's name begins with a capital."""
    if name.lstrip("_")[:1].isupper():
        return True
    return name in known and all(
        _new(node.value, function, known) for function in known[name] for node in ast.walk(function) if _returns(node)
    )


def _returns(node: ast.AST) -> bool:
    return isinstance(node, ast.Return) and node.value is not None


def _new(value: ast.expr, function: ast.FunctionDef, known: Functions) -> bool:
    if isinstance(value, ast.Call):
        return makes_a_new_error(name_of(value), known)
    if not isinstance(value, ast.Name) or value.id in {argument.arg for argument in function.args.args}:
        return False
    assigned = [node.value for node in ast.walk(function) if isinstance(node, ast.Assign) and _to(node, value.id)]
    return bool(assigned) and all(_new(value, function, known) for value in assigned)


def _to(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


def test_what_may_return_the_error_it_was_given_is_raised_from_its_origin() -> None:
    everywhere, doubtful = functions(*modules()), []
    for module in modules():
        caught = {node.name for node in ast.walk(module) if isinstance(node, ast.ExceptHandler)}
        known = everywhere | functions(module)  # a name is looked up where it is used first
        for node in ast.walk(module):
            if not (isinstance(node, ast.Raise) and isinstance(node.cause, ast.Name) and node.exc is not None):
                continue
            raised, cause = node.exc, node.cause.id
            given = isinstance(raised, ast.Call) and any(
                isinstance(argument, ast.Name) and argument.id == cause for argument in raised.args
            )
            handed_on = isinstance(raised, ast.Name) and raised.id not in caught - {cause}
            if handed_on or (given and not makes_a_new_error(name_of(raised), known)):
                doubtful.append(ast.unparse(node))
    assert doubtful == []
