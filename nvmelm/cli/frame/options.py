"""Arguments and options that several verbs share, and what they set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from nvmelm.cli.frame.parser import VerbGroup
from nvmelm.numbers import span_seconds

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


def read_span(text: str) -> int:
    """Read a time span, ``90``, ``90s``, ``15min``, ``8h`` or ``2d``, as seconds."""
    seconds = span_seconds(str(text))
    if seconds is None:
        raise typer.BadParameter(f"{text!r} is not a time span; write 90s, 15min, 8h or 2d")
    return seconds


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
    typer.Option("--expires", metavar="SPAN", parser=read_span, help="The mark holds for 90s, 15min, 8h or 2d."),
]

Rsh = Annotated[str, typer.Option("--rsh", metavar="COMMAND", help="What replaces ssh, as in rsync.")]
Program = Annotated[
    str, typer.Option("--program", metavar="COMMAND", help="What to run on the other host, such as: sudo nvmelm.")
]
Timeout = Annotated[
    int, typer.Option("--timeout", metavar="SPAN", parser=read_span, help="How long another host may take.")
]
