"""``nvmelm share``: where the files are that come with nvmelm for other programs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from nvmelm.cli.frame.options import group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.documents import Report, about
from nvmelm.errors import UsageError

app = group("Files for other programs.")

#: The directory they are in, wherever nvmelm was installed to.
DIRECTORY = Path(__file__).parents[2] / "share"

#: The documentation: a wheel has it beside the other files, a clone in its own place.
_DOCS = (DIRECTORY / "docs", DIRECTORY.parents[1] / "docs")

Name = Annotated[
    str | None, typer.Argument(metavar="[NAME]", show_default=False, help="ansible, docs, libvirt, man, systemd, …")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared(Report):
    """Where a directory or a file is that comes with nvmelm."""

    schema_name = "nvmelm.shared"

    path: str = field(metadata=about("absolute"))
    names: tuple[str, ...] = field(metadata=about("what else can be asked for"))


@verb(app, "share")
def share(_: Run, name: Name = None) -> Answer:
    """Print where the files for other programs are: Ansible's collection, libvirt's hook, systemd's units, ..."""
    places = _places()
    if name is not None and name not in places:
        raise UsageError(
            f"nothing of the name {name[:60]!r} comes with nvmelm",
            cause=f"there are {', '.join(sorted(places))}",
            fix=f"nvmelm share {min(places)}",
            reason="arguments",
        )
    shared = Shared(path=str(places[name] if name else DIRECTORY), names=tuple(sorted(places)))
    return Answer(shared, lambda: [shared.path])


def _places() -> dict[str, Path]:
    """Return each directory that can be asked for, by its name."""
    places = {entry.name: entry for entry in DIRECTORY.iterdir() if entry.is_dir()}
    for docs in filter(Path.is_dir, _DOCS):
        return {**places, "docs": docs, "schemas": docs / "schemas"}
    return places
