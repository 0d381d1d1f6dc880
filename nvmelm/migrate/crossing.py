"""Moves in opposite directions: each holds the PF that the other one waits for.

Whoever moves a controller away holds a second lock of its PF beside the first. A move that arrives there waits for a PF
as any verb does, but for one that is being left only a moment, and each time another one: of two that cross, one is
refused, ends, and so lets the other go on.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from nvmelm.errors import BusyError
from nvmelm.host import Host
from nvmelm.inventory.opened import OpenPrimary

#: What a move that arrives waits for a PF that is being left: between these, seconds.
_AT_LEAST_S, _AT_MOST_S = 1.0, 4.0


def leaving(host: Host, address: str) -> AbstractContextManager[None]:
    """Say that controllers of a PF are on their way to another one, while the block runs."""
    return host.lock(f"{address}.leaving")


@contextmanager
def locked_for_arrival(pf: OpenPrimary) -> Iterator[None]:
    """Hold the lock of a PF at which controllers arrive.

    Raises:
        BusyError: somebody else held it for too long; with the reason ``moves-cross`` a move that goes the other way.
    """
    host, address = pf.host, pf.address
    if not _being_left(host, address):
        with host.lock(address):
            yield
        return
    held = host.lock(address, timeout_s=random.uniform(_AT_LEAST_S, _AT_MOST_S))  # noqa: S311  # no secret
    try:
        held.__enter__()
    except BusyError as error:
        raise BusyError(
            f"controllers of {address} are being moved away just now",
            cause="a move in each direction would wait for the other one's primary controller",
            fix="migrate again once the other move has ended",
            reason="moves-cross",
        ) from error
    try:
        yield
    finally:
        held.__exit__(None, None, None)


def _being_left(host: Host, address: str) -> bool:
    try:
        with host.lock(f"{address}.leaving", timeout_s=0):
            return False
    except BusyError:
        return True
