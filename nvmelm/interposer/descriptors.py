"""Which function a descriptor of the VMM's is.

::

    opened by its group    we put the number into the VMM ourselves, so we know it
    opened as a cdev       its device number says so, once it is bound
    another number of it   (dup, a forked child) is the same open file as a number that is known
    the same number again  of another file: forgotten

A number that is known counts only while the file behind it is the one it was. The kernel tells two devices that were
opened by groups apart by nothing; so the numbers of strangers' devices are known as well, and one that a VMM has copied
over another is nobody's.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from typing import NamedTuple

from nvmelm.interposer import syscalls
from nvmelm.interposer.caller import Process
from nvmelm.interposer.device import Device
from nvmelm.interposer.kernel import Identity
from nvmelm.interposer.record import Event, Recorder, nothing
from nvmelm.vfio.seam import Refusal

_AMBIGUOUS = (
    "descriptor {number} of process {pid} is the same open file as that of another device was: the VMM copied one over "
    "the other, and which of them it is cannot be told"
)


class Place(NamedTuple):
    """A descriptor: the process that has it, and its number there."""

    pid: int
    number: int


class Known(NamedTuple):
    """A descriptor that is a device's; None: a stranger's, of which no call is answered."""

    identity: Identity
    device: Device | None


def as_event(place: Place, identity: Identity, device: Device) -> Event:
    """Return a descriptor as :mod:`nvmelm.interposer.record` has it."""
    return ("descriptor", place, identity, device.address)


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

    def add(self, place: Place, identity: Identity, device: Device | None) -> None:
        """Take note of a device's descriptor, ours or a stranger's; whatever the number was before, it is this now."""
        with self._lock:
            self._known[place] = Known(identity, device)
            if device is not None:
                self._record(*as_event(place, identity, device))

    def bind(self, place: Place) -> None:
        """Take note of a device's own node that the VMM binds: no other one that it opens is in use."""
        with self._lock:
            self._bound.add(place)
            self._record("bound", place)

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
        return list(dict.fromkeys(known.device for known in self._known.values() if known.device is not None))

    def events(self) -> Iterator[Event]:
        """Return what a restart has to know of them."""
        with self._lock:
            known = [(place, holding) for place, holding in self._known.items()]
            bound = list(self._bound)
        yield from (
            as_event(place, holding.identity, holding.device) for place, holding in known if holding.device is not None
        )
        yield from (("bound", place) for place in bound)

    def closed(self) -> list[Device]:
        """Return the functions that no number stands for any more: nobody says when a descriptor is closed."""
        with self._lock:
            open_still = {known.device for place, known in self._known.items() if _is_still(place, known.identity)}
            return [device for device in self._devices() if device not in open_still]

    def find(self, process: Process, number: int, fd: int) -> Device | None:
        """Return the function that a descriptor is; None: a stranger.

        Args:
            fd: a copy of it.

        Raises:
            Refusal: EIO, it is one open file with numbers that were different devices': which one, nobody knows.
        """
        place, identity = Place(process.pid, number), Identity.of(fd)
        with self._lock:
            same = [
                known for other, known in self._known.items() if known.identity == identity and _is_one(other, place)
            ]
            devices = {known.device for known in same}
            if len(devices) > 1:
                raise Refusal(errno.EIO, _AMBIGUOUS.format(pid=place.pid, number=number))
            if not same:
                self._known.pop(place, None)
                return None
            self._known[place] = same[0]
            return same[0].device


def _is_one(known: Place, place: Place) -> bool:
    """Return whether two numbers are one open file; a number is itself."""
    return known == place or syscalls.same_file(known.pid, known.number, *place)


def _is_still(place: Place, identity: Identity) -> bool:
    """Return whether a number is open and the same file; one that may not be looked at is."""
    try:
        return Identity.of(place.number, place.pid) == identity
    except FileNotFoundError:
        return False
    except OSError:
        return True
