"""The far side, started there by ssh or by what replaces it, and the link to it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nvmelm.errors import HostError, LinkLostError, host_error
from nvmelm.inventory.address import Address
from nvmelm.migrate.link.frames import SILENCE_S, Link
from nvmelm.process.child import start

#: What is run there; it speaks the protocol over its standard input and output.
PROGRAM = "nvmelm"
SERVE = "serve"
#: How long the far side gets to end once the link is closed.
_END_S = 10.0


@contextmanager
def connected(
    address: Address, *, rsh: str = "", program: str = PROGRAM, silence_s: float = SILENCE_S
) -> Iterator[Link]:
    """Start nvmelm on another host and yield the link to it; its messages go to this program's stderr.

    Args:
        rsh: replaces ``ssh``: words, to which the host and the command line for it are added.
        program: what to run there, a shell line of that host, such as ``sudo nvmelm``.

    Raises:
        HostError: ssh is not here.
        UsageError: what replaces it is no program.
    """
    command = address.command(f"{program} {SERVE}", rsh=rsh)
    pipe = subprocess.PIPE
    with _interrupts_ignored():
        child = start(command, stdin=pipe, stdout=pipe, fix="install it, or name it: --rsh", named=bool(rsh))
    assert child.stdin is not None and child.stdout is not None  # noqa: S101, PT018  # both are pipes
    try:
        with child.stdin, child.stdout:
            incoming, outgoing = _both(child.stdout.fileno(), child.stdin.fileno())
        with Link(incoming, outgoing, address.name, silence_s=silence_s) as link:
            try:
                yield link
            except LinkLostError as error:
                if not link.shaken:
                    error = _nobody(error, address, command)
                _explain(error, child, command, program)
                raise error from None
    finally:
        _reap(child)


def _both(incoming: int, outgoing: int) -> tuple[int, int]:
    """Return copies of two descriptors, or of none."""
    copies: list[int] = []
    try:
        copies += [os.dup(incoming)]
        return copies[0], os.dup(outgoing)
    except OSError as error:
        for copy in copies:
            os.close(copy)
        raise host_error("cannot open", "the link", error) from error


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Let a child that is started here ignore Ctrl-C: this program decides what becomes of the session."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited; ssh and nvmelm leave an ignored one alone
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _nobody(error: LinkLostError, address: Address, command: list[str]) -> LinkLostError:
    """Return the error of a link on which no nvmelm ever answered: no session has begun."""
    met = LinkLostError(f"no nvmelm answered at {address.name}", cause=error.cause)
    met.fix = f"try it by hand: {shlex.join([*command[:-1], 'nvmelm --version'])}"
    return met


def _explain(error: LinkLostError, child: subprocess.Popen[bytes], command: list[str], program: str) -> None:
    """Say how ssh ended, when it did: 255 is its own word for no connection, 127 the shell's for no such program."""
    try:
        code = child.wait(timeout=1.0)
    except subprocess.TimeoutExpired:
        return
    meaning = {
        255: "it could not connect, or the connection broke",
        127: f"{program} is not installed there, or not in the path of a login without a terminal",
        126: f"{program} is no program there, or may not be executed",
    }.get(code, "")
    if code:
        error.add_note(f"{command[0]} ended with {code}{': ' + meaning if meaning else ''}")


def _reap(child: subprocess.Popen[bytes]) -> None:
    try:
        child.wait(timeout=_END_S)
    except subprocess.TimeoutExpired:
        child.terminate()
        try:
            child.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def standard_link(peer: str, *, silence_s: float = SILENCE_S) -> Link:
    """Return the link over this process' standard input and output, and point those elsewhere.

    Whatever prints by accident must not be taken for a frame: standard output becomes standard error.

    Raises:
        HostError: they cannot be used.
    """
    try:
        incoming, outgoing = _both(0, 1)
        nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
    except OSError as error:
        raise HostError("standard input and output cannot be used", cause=str(error)) from error
    return Link(incoming, outgoing, peer, silence_s=silence_s)
