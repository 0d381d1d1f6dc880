"""The one way to start a program: words and never a shell, and Ctrl-C reaches it as it reaches us.

::

    start        start it, and have it in hand
    run_program  start it, wait for its end, and return what it printed

:class:`~nvmelm.process.program.Program` is made of the first: a program with a document on its standard input that
several threads follow.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nvmelm.errors import MalformedError, TimedOutError
from nvmelm.process.executable import not_started
from nvmelm.process.interrupts import taken_here

#: Read in one go: as much as a pipe holds (pipe(7): 16 pages).
_PART = 64 * 1024
#: What is kept of a program's messages; the rest is read and dropped, so that it is not held up.
_MESSAGES = 64 * 1024


class Printed(NamedTuple):
    """What a program left: its exit status, negative for the signal that ended it, and what it printed."""

    status: int
    output: bytes
    messages: bytes


def start(
    words: Sequence[str],
    *,
    stdin: int,
    stdout: int,
    stderr: int | None = None,
    environment: Mapping[str, str] | None = None,
    own_group: bool = False,
    failed: str = "cannot start",
    fix: str = "install it, or name another one",
    named: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program; a thread whose signals are left to the main thread does not pass that on to it.

    Args:
        words: the program and its arguments.
        stdin, stdout, stderr: a descriptor, ``subprocess.PIPE`` or ``subprocess.DEVNULL``; None for ours.
        environment: all of its environment; None for ours.
        own_group: in a session and a process group of its own.
        failed: what to say when it cannot be started, before its name.
        fix: what to do about that.
        named: the operator named it.

    Raises:
        UsageError: it was named, and is no program.
        BusyError: somebody is writing it.
        HostError: it cannot be started.
    """
    try:
        with taken_here():
            return subprocess.Popen(  # noqa: S603  # words, never a shell
                list(words), stdin=stdin, stdout=stdout, stderr=stderr, env=environment, start_new_session=own_group
            )
    except (OSError, ValueError) as error:  # ValueError: a word with a zero byte in it
        met = error if isinstance(error, OSError) else OSError(0, str(error))
        raise not_started(failed, words[0], met, fix=fix, named=named) from error


def run_program(
    words: Sequence[str],
    *,
    limit: int,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    named: bool = False,
) -> Printed:
    """Run a program without input, and return what it printed.

    Args:
        words: the program and its arguments.
        limit: the most it may print to standard output, bytes.
        timeout_s: seconds after which it is ended.
        environment: all of its environment; None for ours.
        named: the operator named it.

    Raises:
        UsageError, BusyError, HostError: as of :func:`start`.
        TimedOutError: it did not end in time.
        MalformedError: it printed more than ``limit``.
    """
    pipe = subprocess.PIPE
    child = start(words, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, environment=environment, named=named)
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


def _collect(child: subprocess.Popen[bytes], name: str, limit: int, deadline: float) -> tuple[bytes, bytes]:
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
