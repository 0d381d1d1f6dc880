"""Bytes of unknown origin: a file somebody named, or what a program printed. No more is read than was asked for."""

from __future__ import annotations

import os
import stat
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from nvmelm.errors import MalformedError, TimedOutError, host_error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from subprocess import Popen

_PART = 64 * 1024
#: What is kept of a program's messages; the rest is read and dropped, so that it is not held up.
_MESSAGES = 64 * 1024


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
    found = bytearray()
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - pathlib offers nothing more here
            while len(found) <= limit and (part := file.read(_PART)):
                found += part
    except OSError as error:
        raise host_error("cannot read", str(path), error) from error
    if len(found) > limit:
        raise MalformedError(
            f"{path} holds more than {limit} bytes", cause="nothing that long is read", reason="too-large"
        )
    return bytes(found)


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


class Printed(NamedTuple):
    """What a program left: its exit status, negative for the signal that ended it, and what it printed."""

    status: int
    output: bytes
    messages: bytes


def run_program(words: Sequence[str], *, limit: int, timeout_s: float) -> Printed:
    """Run a program without a shell and without input, and return what it printed.

    Args:
        words: the program and its arguments.
        limit: the most it may print to standard output, bytes.
        timeout_s: seconds after which it is ended.

    Raises:
        HostError: it cannot be started.
        TimedOutError: it did not end in time.
        MalformedError: it printed more than ``limit``.
    """
    import subprocess  # here: who reads files starts nothing

    pipe = subprocess.PIPE
    try:
        child = subprocess.Popen(list(words), stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)  # noqa: S603
    except (OSError, ValueError) as error:  # ValueError: a word with a zero byte in it
        shown = error if isinstance(error, OSError) else OSError(str(error))
        raise host_error("cannot start", words[0], shown, fix="install it, or name another one") from error
    deadline = time.monotonic() + timeout_s
    try:
        output, messages = _collect(child, words[0], limit, deadline)
        return Printed(child.wait(max(0.0, deadline - time.monotonic())), output, messages)
    except (subprocess.TimeoutExpired, TimeoutError) as error:
        raise TimedOutError(
            f"{words[0]} did not end within {timeout_s:g} s", fix="--timeout gives it longer"
        ) from error
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        for stream in (child.stdout, child.stderr):
            if stream is not None:
                stream.close()


def _collect(child: Popen[bytes], name: str, limit: int, deadline: float) -> tuple[bytes, bytes]:
    import selectors

    output, messages = bytearray(), bytearray()
    with selectors.DefaultSelector() as waiting:
        for stream, kept, most in ((child.stdout, output, limit + 1), (child.stderr, messages, _MESSAGES)):
            if stream is not None:
                waiting.register(stream, selectors.EVENT_READ, (kept, most))
        while waiting.get_map():
            left = deadline - time.monotonic()
            if left <= 0:  # also when it keeps talking
                raise TimeoutError
            for key, _ in waiting.select(left):
                part = os.read(key.fd, _PART)
                kept, most = key.data
                kept += part[: most - len(kept)]
                if not part:
                    waiting.unregister(key.fileobj)
            if len(output) > limit:
                raise MalformedError(
                    f"{name} printed more than {limit} bytes", cause="nothing that long is read", reason="too-large"
                )
    return bytes(output), bytes(messages)
