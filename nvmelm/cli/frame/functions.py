"""How a controlled function is named, in every verb: ``PF CNTLID``, ``PF/CNTLID``, or the address of its VF.

A verb takes the words as they were typed, and :func:`names` makes one name of each function they mean. What a name
stands for on a host is asked of :mod:`nvmelm.inventory.find`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nvmelm.errors import UsageError

if TYPE_CHECKING:  # what help and a mistyped word need not import
    from nvmelm.cli.frame.run import Run
    from nvmelm.inventory.find import PrimaryRef
    from nvmelm.inventory.opened import OpenPrimary
    from nvmelm.inventory.pci import Bdf

_FORMS = "PF CNTLID, PF/CNTLID, or the VF's address."
_ARGUMENT: dict[str, Any] = {"show_default": False}
Function = Annotated[list[str], typer.Argument(metavar="FUNCTION", help=_FORMS, **_ARGUMENT)]
Functions = Annotated[
    list[str], typer.Argument(metavar="FUNCTION...", help=f"Each one as {_FORMS} Also PF CNTLID CNTLID.", **_ARGUMENT)
]
FunctionOrPf = Annotated[
    list[str], typer.Argument(metavar="PF|FUNCTION", help=f"A controlling function, or {_FORMS}", **_ARGUMENT)
]
PfOrFunctions = Annotated[
    list[str], typer.Argument(metavar="PF|FUNCTION...", help=f"A controlling function, or {_FORMS}", **_ARGUMENT)
]

#: A word that can only be the CNTLID of the PF before it; whether it is a good one is asked later.
_CNTLID = re.compile(r"[0-9][0-9A-Za-z]*|[0-9a-fA-F]{1,4}[hH]")


def names(words: Sequence[str]) -> list[str]:
    """Return one name for each function: an address, ``PF/CNTLID``, or a PF alone where no CNTLID follows it.

    >>> names(["nvme0", "0x41", "42h", "nvme1/0x1", "0000:01:00.1"])
    ['nvme0/0x41', 'nvme0/42h', 'nvme1/0x1', '0000:01:00.1']
    >>> names(["nvme0"])
    ['nvme0']
    """
    functions: list[str] = []
    pf, used = "", True
    for word in words:
        if pf and _CNTLID.fullmatch(word):
            functions.append(f"{pf}/{word}")
            used = True
            continue
        functions += [] if used else [pf]
        pf, used = word, False
    return functions if used else [*functions, pf]


def name(words: Sequence[str]) -> str:
    """Return the one name that words make: with two of them, the second is a CNTLID, whatever it looks like.

    Raises:
        UsageError: they name several functions.
    """
    functions = ["/".join(words)] if len(words) == 2 else names(words)
    if len(functions) != 1:
        raise UsageError(
            f"{' '.join(words)!r} names {len(functions)} functions, and one is meant", fix=f"name it as {_FORMS}"
        )
    return functions[0]


def ends(words: Sequence[str], count: int) -> list[str]:
    """Return so many ends of a comparison, each a file, a URL, or a function; where words are too many, CNTLIDs join.

    >>> ends(["nvme0", "0x41", "ssh://b/nvme0"], 2)
    ['nvme0/0x41', 'ssh://b/nvme0']
    >>> ends(["nvme0", "65"], 2)
    ['nvme0', '65']

    Raises:
        UsageError: there are more, or fewer.
    """
    sides = list(words) if len(words) == count else names(words)
    if len(sides) != count:
        raise UsageError(
            f"{len(sides)} ends are named, and {count} {'is' if count == 1 else 'are'} compared",
            fix="each is a file, a directory, PF, PF CNTLID, PF/CNTLID, a VF's address, or ssh://HOST/PF/CNTLID",
            reason="arguments",
        )
    return sides


@contextmanager
def opened(run: Run, words: Sequence[str], *, change: bool = False) -> Iterator[tuple[OpenPrimary, int]]:
    """Open the controlling function of one controlled function, and say which controller it is.

    Raises:
        UsageError: the words name no controlled function, or several.
    """
    ((ref, which),) = grouped(run, [name(words)]).items()
    with run.primary(ref, change=change) as pf:
        yield pf, cntlids(run, pf, which)[0]


@contextmanager
def opened_or_pf(run: Run, words: Sequence[str]) -> Iterator[tuple[OpenPrimary, int | None]]:
    """Open a controlling function to read from it; with the one controlled function of it that was named, if any.

    Raises:
        UsageError: the words name neither.
    """
    from nvmelm.inventory.find import find_either

    named = name(words)
    ref, which = find_either(run.host(), named)
    _about(run, named, ref, which)
    with run.primary(ref) as pf:
        yield pf, None if which is None else cntlids(run, pf, [which])[0]


@contextmanager
def opened_several(run: Run, words: Sequence[str], *, change: bool = False) -> Iterator[tuple[OpenPrimary, list[int]]]:
    """Open one controlling function, and say which of its controllers were named; none: the PF alone was.

    Raises:
        UsageError: the words name nothing, or functions of several controlling ones.
    """
    groups = _one_or_several(run, names(words))
    if len(groups) != 1:
        addresses = ", ".join(str(ref.address) for ref in groups)
        cause = f"they are controlled by {addresses}"
        raise UsageError("functions of one PF are meant", cause=cause, fix="run it once for each PF")
    ((ref, which),) = groups.items()
    with run.primary(ref, change=change) as pf:
        yield pf, cntlids(run, pf, which)


def _one_or_several(run: Run, named: Sequence[str]) -> dict[PrimaryRef, list[Bdf | int]]:
    from nvmelm.inventory.find import find_either

    if len(named) != 1:
        return grouped(run, named)
    ref, which = find_either(run.host(), named[0])
    _about(run, named[0], ref, which)
    return {ref: [] if which is None else [which]}


def _about(run: Run, named: str, ref: PrimaryRef, which: Bdf | int | None) -> None:
    """Have fixes name the controlling function as it was typed, where it was."""
    if which is None:
        run.about(named, None)
    else:
        run.about(named.rpartition("/")[0] if isinstance(which, int) else str(ref.address), which)


def grouped(run: Run, words: Sequence[str]) -> dict[PrimaryRef, list[Bdf | int]]:
    """Return the controlled functions that words name, below their controlling functions.

    Raises:
        UsageError: a name is not that of a controlled function.
    """
    from nvmelm.inventory.find import find_function

    groups: dict[PrimaryRef, list[Bdf | int]] = {}
    for named in names(words):
        ref, which = find_function(run.host(), named)
        groups.setdefault(ref, []).append(which)
        _about(run, named, ref, which)
    return groups


def cntlids(run: Run, pf: OpenPrimary, which: Sequence[Bdf | int]) -> list[int]:
    """Return the controller ids of functions; an address is looked up, for the errors of the run, too."""
    if all(isinstance(function, int) for function in which):
        return [function for function in which if isinstance(function, int)]
    from nvmelm.inventory.read import resolve

    picture = pf.picture(users=False)
    controllers = [resolve(picture, function).cntlid for function in which]
    for cntlid in controllers:
        run.about(pf.address, cntlid)
    return controllers
