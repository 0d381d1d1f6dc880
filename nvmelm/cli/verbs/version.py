"""``nvmelm version``: what ``--version`` prints, as a verb."""

from __future__ import annotations

from dataclasses import dataclass, field

from nvmelm import __version__
from nvmelm.cli.frame.app import version_line
from nvmelm.cli.frame.options import group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.documents import Report, about

app = group("The version.")


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionReport(Report):
    """Which nvmelm this is."""

    schema_name = "nvmelm.version"

    nvmelm: str = field(metadata=about("the version, such as 0.1.0"))


@verb(app, "version")
def version(_: Run) -> Answer:
    """Print the version of nvmelm."""
    return Answer(VersionReport(nvmelm=__version__), lambda: [version_line()])
