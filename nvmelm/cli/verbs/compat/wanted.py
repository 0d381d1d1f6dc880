"""The options of every verb that compares: what is wanted of a function to come, and how another host is reached."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from nvmelm.cli.frame.options import Program, Rsh, Timeout
from nvmelm.cli.verbs.compat.ends import Wanted

WantedVq = Annotated[int | None, typer.Option("--vq", metavar="N", min=0, help="VQ resources of a function to come.")]
WantedVi = Annotated[int | None, typer.Option("--vi", metavar="N", min=0, help="VI resources of a function to come.")]
WantedNsid = Annotated[
    list[int] | None, typer.Option("--nsid", metavar="N", min=1, help="Namespace of a function to come; repeatable.")
]
_OPTIONS: dict[str, tuple[Any, Any]] = {
    "vq": (WantedVq, None),
    "vi": (WantedVi, None),
    "nsid": (WantedNsid, None),
    "rsh": (Rsh, ""),
    "program": (Program, "nvmelm"),
    "timeout": (Timeout, "60s"),
}


def comparing(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb these options; it takes them as one ``wanted``."""

    @functools.wraps(function)
    def comparison(*words: Any, **values: Any) -> Any:
        vq, vi, nsid, rsh, program, timeout = (values.pop(name) for name in _OPTIONS)
        wanted = Wanted(vq, vi, tuple(nsid) if nsid else None, rsh, program, timeout)
        return function(*words, wanted=wanted, **values)

    parameters = inspect.signature(function, eval_str=True).parameters
    own = [parameter for name, parameter in parameters.items() if name != "wanted"]
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(name, keyword, annotation=kind, default=default) for name, (kind, default) in _OPTIONS.items()
    ]
    comparison.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    return comparison
