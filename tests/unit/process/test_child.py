"""A program is started in one way: without a shell, and bounded in what it may print and how long it may take."""

from __future__ import annotations

import ast
import signal
import sys
from pathlib import Path

import pytest

import nvmelm
from nvmelm.errors import HostError, MalformedError, TimedOutError
from nvmelm.process.child import run_program
from nvmelm.process.interrupts import left_to_the_main_thread

PACKAGE = Path(nvmelm.__file__).parent


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_program_is_run_without_a_shell_and_leaves_what_it_printed() -> None:
    code = "import sys; print(sys.argv[1]); print('told', file=sys.stderr); sys.exit(3)"
    printed = run_program([*python(code), "$(id) ; a"], limit=100, timeout_s=60)
    assert printed == (3, b"$(id) ; a\n", b"told\n")


def test_a_program_that_prints_too_much_is_ended() -> None:
    with pytest.raises(MalformedError, match="more than 1000 bytes"):
        run_program(python("while True: print('x' * 4096)"), limit=1000, timeout_s=60)


def test_a_program_that_complains_without_end_is_not_kept_in_memory() -> None:
    code = "import sys; sys.stderr.write('y' * 1_000_000); print('done')"
    printed = run_program(python(code), limit=1000, timeout_s=60)
    assert printed.output == b"done\n"
    assert len(printed.messages) <= 64 * 1024


@pytest.mark.parametrize(
    "code",
    [
        "import threading; threading.Event().wait()",
        "import sys\nwhile True: print('x', file=sys.stderr)",
        "import os, threading; os.close(1); os.close(2); threading.Event().wait()",
    ],
    ids=["silent", "talking", "closed"],
)
def test_a_program_that_does_not_end_is_ended(code: str) -> None:
    with pytest.raises(TimedOutError, match="did not end within"):
        run_program(python(code), limit=10, timeout_s=0.2)


def test_a_program_that_is_not_there_is_an_error_that_names_it() -> None:
    with pytest.raises(HostError, match="cannot start"):
        run_program(["/no/such/program"], limit=10, timeout_s=1)
    with pytest.raises(HostError):
        run_program(["echo", "a\0b"], limit=10, timeout_s=1)


def test_a_program_is_given_the_environment_it_is_told_and_no_more() -> None:
    code = "import os; print(*sorted(os.environ))"
    printed = run_program(python(code), limit=1000, timeout_s=60, environment={"LC_ALL": "C"})
    assert printed.output == b"LC_ALL\n"


def test_a_thread_that_hears_no_signal_starts_programs_that_do() -> None:
    code = f"import signal; print({signal.SIGTERM:d} in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    with left_to_the_main_thread():
        assert run_program(python(code), limit=1000, timeout_s=60).output == b"False\n"


def test_nobody_else_starts_a_program() -> None:
    """A launcher becomes its VMM (exec), and what make builds asks the shells' library for their scripts."""
    starters = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith(
                ("subprocess.", "Popen", "os.system", "os.popen", "os.posix_spawn", "os.fork")
            ):
                starters.add(path.relative_to(PACKAGE).as_posix())
    assert starters == {"process/child.py", "interposer/launch.py", "cli/reference/completions.py"}
