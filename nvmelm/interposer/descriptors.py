"""Which function a descriptor of the VMM's is.

::

    opened by its group    we put the number into the VMM ourselves, so we know it
    opened as a cdev       its device number says so, once it is bound
    another number of it   (dup, a forked child) is the same open file as a number that is known
    the same number again  of another file: forgotten

A number that is known counts only while the file behind it is the one it was. Kernels before Linux 6.10 give all
devices opened by groups one inode; there a number that has become *another known device's* is recognised by that
device's own.
"""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

from nvmelm.interposer import syscalls
from nvmelm.interposer.caller import Process
from nvmelm.interposer.device import Device
from nvmelm.interposer.kernel import Identity
from nvmelm.interposer.record import Event, Recorder, nothing


class Place(NamedTuple):
    """A descriptor: the process that has it, and its number there."""

    pid: int
    number: int


class Known(NamedTuple):
    """A descriptor whose function is known."""

    identity: Identity
    device: Device


def as_event(place: Place, known: Known) -> Event:
    """Return a descriptor as :mod:`nvmelm.interposer.record` has it."""
    return ("descriptor", place, known.identity, known.device.address)


class Descriptors:
    """The descriptors of one VMM that are functions of ours.

    Args:
        record: takes each change, for a restart.
    """

    def __init__(self, record: Recorder = nothing) -> None:
        self._record = record
        self._lock = threading.Lock()
        self._known: dict[Place, Known] = {}
        self._bound: set[Place] = set()

    def add(self, pid: int, number: int, identity: Identity, device: Device) -> None:
        """Take note of a descriptor; whatever the number was before, it is this now."""
        with self._lock:
            self._known[Place(pid, number)] = Known(identity, device)
            self._record(*as_event(Place(pid, number), self._known[Place(pid, number)]))

    def bind(self, place: Place) -> None:
        """Take note of a device's own node that the VMM binds: no other one that it opens is in use."""
        with self._lock:
            self._bound.add(place)
            self._record("bound", place)

    def bound(self) -> list[Place]:
        """Return what was bound."""
        with self._lock:
            return list(self._bound)

    def is_bound(self, place: Place) -> bool:
        """Return whether a number was bound."""
        with self._lock:
            return place in self._bound

    def forget(self, device: Device) -> None:
        """Forget a function that was closed, with all its descriptors."""
        with self._lock:
            self._record("closed", device.address)
            self._known = {place: known for place, known in self._known.items() if known.device is not device}

    def devices(self) -> list[Device]:
        """Return the functions, each once."""
        with self._lock:
            return self._devices()

    def _devices(self) -> list[Device]:
        return list(dict.fromkeys(known.device for known in self._known.values()))

    def places(self) -> dict[Place, Known]:
        """Return the descriptors and what they are."""
        with self._lock:
            return dict(self._known)

    def drop(self, place: Place) -> None:
        """Forget what a number was: it is something else now."""
        with self._lock:
            self._known.pop(place, None)

    def closed(self) -> list[Device]:
        """Return the functions that no number stands for any more: nobody says when a descriptor is closed."""
        with self._lock:
            open_still = {known.device for place, known in self._known.items() if _is_still(place, known.identity)}
            return [device for device in self._devices() if device not in open_still]

    def find(self, process: Process, number: int, fd: int) -> Device | None:
        """Return the function that a descriptor is.

        Args:
            fd: a copy of it.
        """
        place, identity = Place(process.pid, number), Identity.of(fd)
        with self._lock:
            own = self._known.get(place)
            others = [
                (other, known)
                for other, known in self._known.items()
                if other != place and known.identity == identity and (own is None or known.device is not own.device)
            ]
            if own is not None and own.identity == identity and not others:
                return own.device
            for other, known in others:
                if syscalls.same_file(other.pid, other.number, *place):
                    self._known[place] = known
                    return known.device
            if own is not None and own.identity == identity:
                return own.device
            self._known.pop(place, None)
            return None


def _is_still(place: Place, identity: Identity) -> bool:
    """Return whether a number is open and the same file; one that may not be looked at is."""
    try:
        about = os.stat(f"/proc/{place.pid}/fd/{place.number}")  # noqa: PTH116 (asked before each mapping of memory)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return Identity(about.st_dev, about.st_ino, about.st_rdev) == identity
