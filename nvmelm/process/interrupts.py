"""Signals that ask to stop, held back where stopping would leave two hosts in doubt."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from nvmelm.errors import HostError

#: What asks a program to end: Ctrl-C, a service manager, a lost terminal.
_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: A timer of 0 s is none.
_SHORTEST_S = 0.001
#: What may interrupt a block: the same, and the end of its time.
_INTERRUPTING = (*_ASKING, signal.SIGALRM)


class OutOfTimeError(KeyboardInterrupt):
    """A block took longer than it may; like Ctrl-C it comes at any call, and is no error that somebody passes over."""


def _interrupt(number: int, _frame: object) -> None:
    """Raise once: two that wait together, or one that is impatient, must not interrupt what puts things back."""
    for other in _INTERRUPTING:
        if signal.getsignal(other) is _interrupt:
            signal.signal(other, _pass_over)
    raise OutOfTimeError if number == signal.SIGALRM else KeyboardInterrupt


def _pass_over(_number: int, _frame: object) -> None:
    """Do nothing: it is ending already."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Let the first request to end be a Ctrl-C, so that what was begun is put back; those that follow say no more."""
    with _handled(_interrupt):
        yield


@contextmanager
def undisturbed() -> Iterator[list[int]]:
    """Hold requests to end back until the block is done; the list holds those that came."""
    came: list[int] = []
    with _handled(lambda number, _frame: came.append(number)):
        yield came


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Interrupt the block when it takes longer, whatever it waits for; in the main thread alone.

    Raises:
        OutOfTimeError: it took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    begun = time.monotonic()
    before = signal.signal(signal.SIGALRM, _interrupt)
    earlier_s, every_s = signal.setitimer(signal.ITIMER_REAL, max(seconds, _SHORTEST_S))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if earlier_s:  # somebody else's alarm
            signal.setitimer(signal.ITIMER_REAL, max(earlier_s - (time.monotonic() - begun), _SHORTEST_S), every_s)


@contextmanager
def held_back() -> Iterator[None]:
    """Hold requests to end back until the block is done; the first that came is then heard as if it came now."""
    with undisturbed() as came:
        yield
    if came:
        signal.raise_signal(came[0])


def hear(number: int) -> None:
    """Let a request to end that was held back be heard as if it came now; one that would end the process is Ctrl-C."""
    if callable(signal.getsignal(number)):
        signal.raise_signal(number)
    else:
        raise KeyboardInterrupt


def let_go(error: BaseException) -> None:
    """Close the ``with`` blocks that an interrupt kept from being closed, before anything is put back.

    One that comes when a block is just being left is raised before the context manager has heard of that. A manager
    that is a generator then ends with the last reference to it, and what the interrupt's traceback refers to lives on.
    """
    import traceback  # for whom all goes well, it is not needed

    link: BaseException | None = error
    met: set[int] = set()
    while link is not None and id(link) not in met:  # as far as it goes: a context set by hand may lead in a circle
        met.add(id(link))
        traceback.clear_frames(link.__traceback__)
        link = link.__context__


def begin(thread: threading.Thread) -> None:
    """Start a thread; an interrupt half way would leave one that can neither be joined nor forgotten.

    Raises:
        HostError: no thread is to be had.
    """
    with held_back():
        try:
            thread.start()
        except RuntimeError as error:
            raise HostError(
                "no thread can be started",
                cause="a limit of processes or memory is reached: ulimit -u, pids.max of the control group",
                fix="raise the limit, or end what takes so much; then try again",
                reason="no-thread",
            ) from error


@contextmanager
def left_to_the_main_thread() -> Iterator[None]:
    """Keep signals that ask to end away from this thread: only a call of the main thread can be interrupted by them.

    What is started in the block inherits this, which a program must not: start it in :func:`taken_here`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def taken_here() -> Iterator[None]:
    """Undo :func:`left_to_the_main_thread` for a moment."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _handled(handler: object) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only that one has handlers to set
        yield
        return
    before = {number: signal.getsignal(number) for number in _ASKING}
    if signal.getsignal(signal.SIGALRM) is _interrupt:  # otherwise it is somebody else's
        before[signal.SIGALRM] = _interrupt
    mine = (handler, _pass_over) if handler is _interrupt else (handler,)
    try:
        for number, earlier in before.items():
            if earlier is not signal.SIG_IGN:  # nohup, or a parent that wants to be the one who decides
                signal.signal(number, handler)  # type: ignore[arg-type]  # a plain function or lambda
        yield
    finally:
        for number, earlier in before.items():
            if signal.getsignal(number) in mine:  # a block that is closed late finds those of others
                signal.signal(number, earlier)
