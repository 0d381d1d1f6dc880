"""``--show-completion`` and ``--install-completion`` with the shell they are meant for.

The command-line library reads both as flags of the shell that runs it, and passes over a word behind them. The scripts
that are shown are those that come with nvmelm (``nvmelm share completions``); a clone that has none asks the library.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container
from pathlib import Path

from nvmelm.cli.frame import render
from nvmelm.errors import UsageError, host_error

_SHOW, _INSTALL = "--show-completion", "--install-completion"
OPTIONS = (_SHOW, _INSTALL)
#: Where each shell's script is, below ``share/completions``.
FILES = {"bash": "bash/nvmelm", "zsh": "zsh/_nvmelm", "fish": "fish/nvmelm.fish"}
_DIRECTORY = Path(__file__).parents[2] / "share" / "completions"


def show(words: list[str], verbs: Container[str], ask: Callable[[str], int]) -> int | None:
    """Print the script that a command line asks for, and return the exit code; None when it asks for none.

    Args:
        words: of the command line.
        verbs: what ends the options before the verb.
        ask: has the library print its script for a shell, as a clone without scripts needs.

    Raises:
        UsageError: there is no completion for the shell.
        HostError: the script cannot be read, or not be written.
    """
    wanted = _wanted(words, verbs)
    if wanted is None:
        return None
    option, shell = wanted
    if option == _INSTALL:
        if shell:  # the library then takes it as the option's value, and does not look which one runs it
            os.environ.update(_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
        return None
    shell = shell or Path(os.environ.get("SHELL", "")).name
    if shell not in FILES:
        raise UsageError(
            f"there is no completion for {shell!r}" if shell else "it is not known for which shell",
            cause=f"there is one for {', '.join(FILES)}",
            fix="nvmelm --show-completion bash",
            reason="arguments",
        )
    try:
        text = (_DIRECTORY / FILES[shell]).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ask(shell)
    except OSError as error:
        raise host_error("cannot read", str(_DIRECTORY / FILES[shell]), error) from error
    render.print_lines(text.splitlines())
    return 0


def _wanted(words: list[str], verbs: Container[str]) -> tuple[str, str] | None:
    """Return the option and the shell behind it, empty when none is named."""
    for at, word in enumerate(words):
        option, _, value = word.partition("=")
        if option in OPTIONS:
            behind = words[at + 1] if at + 1 < len(words) else ""
            return option, value or ("" if behind.startswith("-") else behind)
        if word in verbs:
            return None
    return None
