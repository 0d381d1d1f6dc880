"""Bytes of unknown origin: a file somebody named. No more is read than was asked for."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Literal

from nvmelm.errors import MalformedError, host_error

if TYPE_CHECKING:
    from pathlib import Path

_PART = 64 * 1024


def what_is(path: str) -> Literal["file", "directory", "device", "nothing"]:
    """Return what a word names when it is taken for a path; a pipe is as good as a file."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - one call tells all
    except (OSError, ValueError):  # whatever stands in the way: it is no file that can be read
        return "nothing"
    if stat.S_ISDIR(mode):
        return "directory"
    return "device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "file"


def read_file(path: str | Path, limit: int) -> bytes:
    """Return all bytes of a file or pipe.

    Args:
        limit: the most it may hold, bytes.

    Raises:
        HostError: it cannot be read.
        MalformedError: it holds more.
    """
    data = bytearray()
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - pathlib offers nothing more here
            while len(data) <= limit and (part := file.read(_PART)):
                data += part
    except OSError as error:
        raise host_error("cannot read", str(path), error) from error
    if len(data) > limit:
        raise MalformedError(
            f"{path} holds more than {limit} bytes", cause="nothing that long is read", reason="too-large"
        )
    return bytes(data)


def names_in(directory: str | Path) -> list[str]:
    """Return the sorted names in a directory, empty when it is not there.

    Raises:
        HostError: it is there and cannot be read.
    """
    try:
        return sorted(os.listdir(directory))  # noqa: PTH208 - names, not paths
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise host_error("cannot read", str(directory), error) from error
