"""The verbs of ``nvmelm compat`` together, in the order of its help, whichever module is imported first."""

from __future__ import annotations

from nvmelm.cli.frame.options import group
from nvmelm.cli.verbs.compat import check, dialects, match

app = group("Compatibility: know before anything stops.")
for module in (check, match, dialects):
    app.add_typer(module.app)  # without a name: its verbs are the group's own
