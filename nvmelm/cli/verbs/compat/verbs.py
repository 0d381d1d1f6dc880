"""The verbs of ``nvmelm compat`` together: each registers with one group when imported, in the order of its help."""

from __future__ import annotations

from nvmelm.cli.verbs.compat import check, dialects, match
from nvmelm.cli.verbs.compat.check import app

__all__ = ["app", "check", "dialects", "match"]
