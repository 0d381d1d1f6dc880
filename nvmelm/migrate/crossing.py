"""Moves in opposite directions: each holds the PF that the other one waits for. One of them wins.

Whoever moves a controller away holds a second lock of its PF beside the first, and says which session it is. A move
that arrives there waits for the PF as any verb does when its own session's number is the smaller one; otherwise only a
moment, and is refused then. Of moves that wait for each other in a circle so at least one ends and the one with the
smallest number goes on, whoever began first: both hosts compare the same two numbers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from nvmelm.disk import store
from nvmelm.errors import BusyError
from nvmelm.host import Host
from nvmelm.inventory.opened import OpenPrimary

#: How long a move that arrives waits for a PF that a session with a smaller number is leaving, seconds.
_YIELDS_AFTER_S = 1.0
#: How long for any other; a move that yields has rolled back by then.
_LONGEST_S = 30.0
#: After so long it is looked again whether the PF is being left: who holds it may be about to say so.
_LOOKS_AGAIN_S = 0.5


@contextmanager
def leaving(host: Host, address: str, session: str) -> Iterator[None]:
    """Say that controllers of a PF are on their way to another one, while the block runs."""
    with host.lock(f"{address}.leaving"):
        store.write(_path(host, address), session, durable=False)
        yield


@contextmanager
def locked_for_arrival(pf: OpenPrimary, session: str) -> Iterator[None]:
    """Hold the lock of a PF at which controllers arrive.

    Raises:
        BusyError: somebody else held it for too long; with the reason ``moves-cross`` a move away from there.
    """
    with ExitStack() as held:
        _take(pf, session, held)
        yield


def _take(pf: OpenPrimary, session: str, held: ExitStack) -> None:
    host, address, begun = pf.host, pf.address, time.monotonic()
    while True:
        other = _left_by(host, address)
        left_s = (_LONGEST_S if other is None or session < other else _YIELDS_AFTER_S) - (time.monotonic() - begun)
        try:
            held.enter_context(host.lock(address, timeout_s=max(0.0, min(left_s, _LOOKS_AGAIN_S))))
        except BusyError as error:
            if left_s > _LOOKS_AGAIN_S:
                continue
            if other is None:
                error.cause = f"it still held the lock after {time.monotonic() - begun:.0f} s; {_WHY}"
                raise
            raise BusyError(
                f"controllers of {address} are being moved away just now",
                cause="a move in each direction would wait for the other one's primary controller",
                fix="migrate again once the other move has ended",
                reason="moves-cross",
            ) from error
        return


_WHY = "commands of two processes must not mix on one controller"


def _left_by(host: Host, address: str) -> str | None:
    """Return the session that is leaving a PF, empty where it did not say which; None: nobody is."""
    try:
        with host.lock(f"{address}.leaving", timeout_s=0):
            return None
    except BusyError:
        return store.read(_path(host, address)) or ""


def _path(host: Host, address: str) -> Path:
    return host.state_dir / "leaving" / address
