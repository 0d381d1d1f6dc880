"""Arguments and options that several verbs share, and what they set."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from nvmelm.cli.frame.parser import VerbGroup
from nvmelm.numbers import span, span_seconds

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


class Settings(NamedTuple):
    """What the options before the verb said."""

    host: str = "local"
    record: Path | None = None
    redact: bool = False
    force: bool = False
    json: bool = False


HostOption = Annotated[
    str | None,
    typer.Option("--host", envvar="NVMELM_HOST", metavar="WHERE", help="local, emulated:DIR or replay:FILE."),
]
RecordOption = Annotated[
    Path | None, typer.Option("--record", metavar="FILE", help="Write every command and file access to FILE.")
]
RedactOption = Annotated[bool, typer.Option("--redact", help="Leave serial numbers out of the recording.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the files that a verb is told to write.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show the plan and the exact commands; change nothing.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

Pf = Annotated[
    str, typer.Argument(metavar="PF", show_default=False, help="nvme0, /dev/nvme0, a PCI address or a serial number.")
]


def group(help_text: str, name: str | None = None) -> typer.Typer:
    """Return an empty group of verbs that looks and behaves like all others; one inside another needs a name."""
    return typer.Typer(
        name=name, cls=VerbGroup, help=help_text, no_args_is_help=True, rich_markup_mode=None, context_settings=CONTEXT
    )


def spans(least: float = 0.0, most: float = math.inf, *, unit: str = "s") -> Callable[[str], float]:
    """Return what reads a time span, ``90``, ``500ms``, ``90s``, ``15min``, ``8h`` or ``2d``, as seconds.

    Args:
        least, most: bounds, seconds.
        unit: of a number without one.
    """

    def read_span(text: str) -> float:
        seconds = span(str(text), unit=unit)
        if seconds is None:
            raise typer.BadParameter(f"{text!r} is not a time span; write 500ms, 90s, 15min, 8h or 2d")
        if not least <= seconds <= most:
            upper = f" and {most:g} s at most" if most < math.inf else ""
            raise typer.BadParameter(f"{text!r} is out of range: {least:g} s at least{upper}")
        return seconds

    return read_span


def read_whole_span(text: str) -> int:
    """Read a time span of whole seconds, at least one."""
    seconds = span_seconds(str(text))
    if seconds is None:
        raise typer.BadParameter(f"{text!r} is not a time span of whole seconds; write 90s, 15min, 8h or 2d")
    return seconds


#: The shortest time that anything here waits for somebody, seconds.
A_MOMENT = 0.001


Vfs = Annotated[int, typer.Option("--vfs", metavar="N", min=1, show_default=False, help="Number of virtual functions.")]
Vq = Annotated[
    int | None,
    typer.Option("--vq", metavar="N", min=0, help="VQ resources for each (queue pairs); 0: left as is."),
]
Vi = Annotated[
    int | None,
    typer.Option("--vi", metavar="N", min=0, help="VI resources for each (vectors); 0: left as is."),
]
Unmarked = Annotated[
    bool, typer.Option("--unmarked", help="Go on although the VF bears no mark; it cannot be migrated.")
]
Expires = Annotated[
    int | None,
    typer.Option("--expires", metavar="SPAN", parser=read_whole_span, help="The mark holds for 90s, 15min, 8h or 2d."),
]

Rsh = Annotated[str, typer.Option("--rsh", metavar="COMMAND", help="What replaces ssh, as in rsync.")]
Program = Annotated[
    str, typer.Option("--program", metavar="COMMAND", help="What to run on the other host, such as: sudo nvmelm.")
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", metavar="SPAN", parser=spans(A_MOMENT), help="How long another host may take."),
]
#: A link's two ends say every six seconds that they live; see :mod:`nvmelm.migrate.link.frames`.
Silence = Annotated[
    float,
    typer.Option("--timeout", metavar="SPAN", parser=spans(15.0), help="How long the other host may be silent."),
]
SILENCE = "30s"
