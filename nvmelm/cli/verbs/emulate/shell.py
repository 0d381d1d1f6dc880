"""What stands for ssh between emulated hosts on one machine."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

from nvmelm.errors import UsageError, host_error


def run_there(directory: Path, name: str, command: str) -> int:
    """Become a shell that runs a command on one of several emulated hosts.

    Raises:
        UsageError: there is no such host.
        HostError: there is no shell.
    """
    place = directory / name
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}", name) or not (place / "state.json").exists():
        raise UsageError(
            f"there is no emulated host {name!r} in {directory}",
            cause="the host of --to is the name of a directory there",
            fix=f"nvmelm emulate create {shlex.quote(str(directory))}/NAME",
            reason="host-unknown",
        )
    environment = {**os.environ, "NVMELM_HOST": f"emulated:{place.absolute()}"}
    try:
        os.execve("/bin/sh", ["sh", "-c", command], environment)  # noqa: S606  # what ssh does there
    except OSError as error:
        raise host_error("cannot run", "/bin/sh", error) from error
