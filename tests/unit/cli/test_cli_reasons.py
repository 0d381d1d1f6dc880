"""Every reason an error can give, every exit code, and every errno we know, can be explained."""

from __future__ import annotations

import ast
import errno
import importlib
import pkgutil
from pathlib import Path

import nvmelm
from nvmelm.cli.frame.codes import ERRNOS, EXIT_CODES
from nvmelm.cli.verbs.explain import exit_codes
from nvmelm.errors import ExitCode, NvmelmError, PermissionDeniedError
from nvmelm.reasons import REASONS

SOURCES = Path(nvmelm.__file__).parent
#: Functions of ours that take the reason as an argument by position: name -> position.
_BY_POSITION = {"refuse": 0, "Mismatch": 0, "ErrnoMeaning": 0, "_reason": 1}  # the last is vm check's
#: The table of what a VMM says: pattern, error, reason, cause, fix.
_ROW, _ROW_LENGTH, _ROW_REASON = "_row", 5, 2
#: Reasons that are not ours: of QEMU's events.
_NOT_OURS = {"host-qmp-quit"}


def words_of(path: Path) -> set[str]:
    """Return the literal reason words of one module."""
    values: list[ast.expr] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            values += [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if name in _BY_POSITION and node.args:
                values.append(node.args[_BY_POSITION[name]])
            if name == _ROW and len(node.args) == _ROW_LENGTH:
                values.append(node.args[_ROW_REASON])
        elif isinstance(node, ast.Assign) and any(getattr(target, "attr", "") == "reason" for target in node.targets):
            values.append(node.value)
    constants = (part for value in values for part in ast.walk(value) if isinstance(part, ast.Constant))
    return {part.value for part in constants if isinstance(part.value, str) and part.value}


def all_words() -> set[str]:
    modules = [path for path in SOURCES.rglob("*.py") if path.name != "explain.py"]
    return set().union(*map(words_of, modules), {kind.kind.replace("_", "-") for kind in types()}) - _NOT_OURS


def types() -> set[type[NvmelmError]]:
    """Return every type of error that any module defines."""
    for module in pkgutil.walk_packages(nvmelm.__path__, "nvmelm."):
        if ".share" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    kinds: set[type[NvmelmError]] = set()
    fresh = {NvmelmError}
    while fresh:
        kinds |= fresh
        fresh = {subclass for kind in fresh for subclass in kind.__subclasses__()} - kinds
    return kinds


def test_every_reason_the_code_can_give_is_explained() -> None:
    assert all_words() - set(REASONS) == set()


def test_no_explained_reason_is_left_over() -> None:
    assert set(REASONS) - all_words() == set()


def test_an_error_without_a_reason_gives_its_types_word() -> None:
    assert PermissionDeniedError("no").word == "permission"
    assert PermissionDeniedError("no", reason="not-a-pf").word == "not-a-pf"


def test_every_explanation_has_a_meaning_and_something_to_do() -> None:
    for word, (meaning, fix) in REASONS.items():
        assert meaning, word
        assert fix, word
        assert not meaning.endswith("."), word


def test_every_exit_code_is_explained() -> None:
    assert set(EXIT_CODES) == set(ExitCode)


def test_every_errno_of_the_table_exists() -> None:
    assert set(ERRNOS) <= set(errno.errorcode.values())


def test_the_range_of_exit_codes_that_explain_names_is_every_one() -> None:
    first, last, interrupted = map(int, exit_codes().replace(" to ", ", ").split(", "))
    assert [*range(first, last + 1), interrupted] == sorted(ExitCode)


def test_every_word_of_vm_check_is_among_those_that_are_explained() -> None:
    words = words_of(SOURCES / "vm" / "check.py")
    assert {"vm-not-supervised", "vmm-blocker", "viommu"} <= words <= set(REASONS)
