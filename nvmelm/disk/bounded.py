"""Bytes of unknown origin: a file somebody named. No more is read than was asked for."""

from __future__ import annotations

import codecs
import os
import select
import stat
from typing import TYPE_CHECKING, Literal, TypeVar

from nvmelm.errors import MalformedError, NvmelmError, TimedOutError, UsageError, host_error

if TYPE_CHECKING:
    import io
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

_PART = 64 * 1024
#: Descriptors that this process was started with, as a shell names the pipe of ``<(PROGRAM)``.
_INHERITED = ("/dev/fd/", "/proc/self/fd/")
#: The devices that never wait: null, zero, full, random (Linux, admin-guide/devices.rst, character major 1).
_MEMORY_DEVICES = 1
#: How long a pipe may say nothing: a program behind it may ask another host first.
_PIPE_S = 120


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
    """Return all bytes of a text file, or of a pipe that this process was started with, without a byte order mark.

    Args:
        limit: the most it may hold, bytes.

    Raises:
        HostError: it cannot be read.
        UsageError: it is neither a file nor such a pipe: whoever opens it may wait for ever, or read without end.
        TimedOutError: nothing comes out of the pipe.
        MalformedError: it holds more.
    """
    data = bytearray()
    try:
        with open(_opened(str(path)), "rb", buffering=0) as file:
            while len(data) <= limit and (part := _next(file, str(path))):
                data += part
    except OSError as error:
        raise host_error("cannot read", str(path), error) from error
    if len(data) > limit:
        raise MalformedError(
            f"{path} holds more than {limit} bytes", cause="nothing that long is read", reason="too-large"
        )
    return bytes(data).removeprefix(codecs.BOM_UTF8)


def parsed(path: str | Path, limit: int, parse: Callable[[bytes], T]) -> T:
    """Return what a file says; an error about its content names the file.

    Raises:
        NvmelmError: as of :func:`read_file` and of ``parse``.
    """
    data = read_file(path, limit)
    try:
        return parse(data)
    except NvmelmError as error:
        if str(path) not in error.message:
            error.message = f"{path}: {error.message}"
        raise


def is_inherited(path: str) -> bool:
    """Return whether a path names a descriptor that this process was started with."""
    return path.startswith(_INHERITED) or path == "/dev/stdin"


def _opened(path: str) -> int:
    """Open without waiting for who would write into a pipe, and without taking a terminal for our own."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    about = os.fstat(descriptor)
    if (
        stat.S_ISREG(about.st_mode)
        or stat.S_ISDIR(about.st_mode)  # reading it says so
        or (stat.S_ISFIFO(about.st_mode) and is_inherited(path))
        or (stat.S_ISCHR(about.st_mode) and os.major(about.st_rdev) == _MEMORY_DEVICES)
    ):
        return descriptor
    os.close(descriptor)
    raise UsageError(
        f"{path} is not a regular file",
        cause="it is a pipe or a device, from which nothing may come, or no end",
        fix="name a file; a program's output can be given as <(PROGRAM)",
        reason="arguments",
    )


def _next(file: io.FileIO, path: str) -> bytes:
    """Return the next bytes, empty at the end; None of a pipe that has nothing now is waited for."""
    while (part := file.read(_PART)) is None:
        waiting = select.poll()
        waiting.register(file, select.POLLIN)
        if not waiting.poll(_PIPE_S * 1000):
            raise TimedOutError(
                f"nothing came out of {path} for {_PIPE_S} s",
                cause="the program behind it writes nothing, and does not end",
                fix="write it to a file, and name that",
            )
    return part


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
