"""When it is looked: in a thread of its own, because a controller that hangs must not hold uevents back.

==================  ==============================================================================
what                when
==================  ==============================================================================
everything          at the beginning; and after uevents were lost
some functions      when their uevents have been quiet for a moment, or have gone on for a while
marks               every second, by their files' times
the lists           every few seconds, one command a function: other programs change them too
who is suspended    every ten seconds, one command a controller: neither uevents nor the lists tell
who has them        every ten seconds: opening a VF says nothing; less often where there are many processes
every manifest      every minute: namespaces are attached and detached without a word
==================  ==============================================================================
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager

from nvmelm.process.interrupts import begin, left_to_the_main_thread
from nvmelm.watch.lines import Body
from nvmelm.watch.survey import Looks

#: Binding a VF says three things within a millisecond; one look after the last of them sees them all.
_QUIET_S = 0.02
#: Where hundreds of VFs come one after the other, it is looked in between all the same.
_LONGEST_WAIT_S = 0.25
_REMEMBERED_EVERY_S = 1.0
_STATES_EVERY_S = 10.0
_USERS_EVERY_S = 10.0
#: Looking through all processes is the dearest look; it may take this part of a core.
_USERS_SHARE = 0.005
_MANIFESTS_EVERY_S = 60.0
#: A look takes some hundredths of a second, its commands included; one that takes longer at the end hangs.
_LAST_S = 2.0

Look = Callable[[], Iterable[Body]]
HandOver = Callable[[list[Body], Looks], None]


class Looking:
    """The thread that looks; what it finds goes to ``hand_over``, and an exception that nobody expected to ``failed``.

    Args:
        every_s: seconds between two glances at the lists.
        hand_over: takes what a look found different, often nothing, and all that is known; called in this thread.
        failed: takes the exception that ended the thread.
    """

    def __init__(
        self, looks: Looks, *, every_s: float, hand_over: HandOver, failed: Callable[[BaseException], None]
    ) -> None:
        self._looks = looks
        self._every_s = every_s
        self._hand_over = hand_over
        self._failed = failed
        self._changed = threading.Condition()
        self._dirty: set[str] = set()
        self._all = self._lost = self._stopped = False
        self._first_s = self._last_s = 0.0
        self._since: float | None = None
        self._thread = threading.Thread(target=self._run, name="looking", daemon=True)
        self._due: dict[Look, float] = {}
        self._put_off()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Look while the block runs. A look that hangs in the kernel is not waited for; any other one is."""
        begin(self._thread)
        try:
            yield
        finally:
            with self._changed:
                self._stopped = True
                self._changed.notify()
            self._thread.join(_LAST_S)

    def slow(self) -> tuple[str | None, float] | None:
        """Return what is looked at, the host or a function's address, and for how long, s; None between two looks."""
        since = self._since
        return None if since is None else (self._looks.at_work_on, time.monotonic() - since)

    def touched(self, address: str | None) -> None:
        """Say that a uevent was about a function; None: it may be any."""
        with self._changed:
            now = time.monotonic()
            if not (self._dirty or self._all):
                self._first_s = now
                self._changed.notify()  # later ones only put off what is due
            self._last_s = now
            self._all = self._all or address is None
            if address is not None:
                self._dirty.add(address)

    def lost(self) -> None:
        """Say that uevents were lost."""
        with self._changed:
            self._lost = True
            self._changed.notify()

    def _run(self) -> None:
        try:
            with left_to_the_main_thread():
                self._look(self._looks.whole)
                self._put_off()
                while not self._stopped:
                    self._look(self._next())
        except BaseException as error:  # a thread has nobody above it: the stream ends with it
            self._failed(error)

    def _look(self, look: Look) -> None:
        self._since = time.monotonic()
        self._tell(look())

    def _tell(self, look: Iterable[Body]) -> None:
        bodies = list(look)
        self._since = None
        if not self._stopped:
            self._hand_over(bodies, self._looks)

    def _put_off(self) -> None:
        """Begin the intervals anew; everything has just been seen."""
        now = time.monotonic()
        self._due = {
            self._looks.remembered: now + _REMEMBERED_EVERY_S,
            self._looks.glance: now + self._every_s,
            self._looks.states: now + _STATES_EVERY_S,
            self._users: now + _USERS_EVERY_S,
            self._manifests: now + _MANIFESTS_EVERY_S,
        }

    def _next(self) -> Look:
        """Wait for what is to be looked at next."""
        with self._changed:
            while not self._stopped:
                now = time.monotonic()
                if self._lost:
                    self._lost = self._all = False
                    self._dirty.clear()
                    return lambda: self._looks.whole(again=True)
                periodic = settled = min(self._due.values())
                if self._dirty or self._all:
                    settled = min(self._last_s + _QUIET_S, self._first_s + _LONGEST_WAIT_S)
                    if settled <= min(now, periodic):
                        return self._functions()
                if periodic <= now:
                    return self._periodic(now)
                self._changed.wait(min(periodic, settled) - now)
        return tuple

    def _functions(self) -> Look:
        addresses: Collection[str] = self._dirty
        everything = self._all
        self._dirty, self._all = set(), False
        return lambda: self._looks.at(None if everything else self._owners(addresses))

    def _periodic(self, now: float) -> Look:
        look = min(self._due, key=self._due.__getitem__)
        every: dict[Look, float] = {
            self._looks.remembered: _REMEMBERED_EVERY_S,
            self._looks.glance: self._every_s,
            self._looks.states: _STATES_EVERY_S,
            self._users: _USERS_EVERY_S,
        }
        self._due[look] = now + every.get(look, _MANIFESTS_EVERY_S)
        return look

    def _users(self) -> Iterable[Body]:
        before, began = time.thread_time(), time.monotonic()
        bodies = list(self._looks.users())
        cost = time.thread_time() - before
        self._due[self._users] = began + max(_USERS_EVERY_S, cost / _USERS_SHARE)
        return bodies

    def _manifests(self) -> Iterator[Body]:
        return self._looks.at(None, manifests=True)

    def _owners(self, addresses: Collection[str]) -> set[str] | None:
        """Return the functions that addresses are of or below; None when one of them is not known yet."""
        touched = {address: known.addresses & set(addresses) for address, known in self._looks.functions.items()}
        if set().union(*touched.values()) != set(addresses):
            return None
        return {address for address, of_it in touched.items() if of_it}
