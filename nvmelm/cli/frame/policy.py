"""A site's own rules of compatibility, as a verb takes them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nvmelm.disk.bounded import parsed

if TYPE_CHECKING:
    from nvmelm.compat.policy import Policy


def policy_of(file: Path | None) -> Policy | None:
    """Read the site's rules, when a file was named.

    Raises:
        HostError, MalformedError: it cannot be read, or is none.
    """
    if file is None:
        return None
    from nvmelm.compat.policy import MAX_BYTES, Policy  # TOML and its rules: 5 ms, and most sites have none

    return parsed(file, MAX_BYTES, Policy.parse)
