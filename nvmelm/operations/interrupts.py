"""Signals that ask to stop, held back where stopping would leave two hosts in doubt."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: What asks a program to end: Ctrl-C, a service manager, a lost terminal.
_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _interrupt(_number: int, _frame: object) -> None:
    """Raise once: two that wait together, or one that is impatient, must not interrupt what puts things back."""
    for number in _ASKING:
        if signal.getsignal(number) is _interrupt:
            signal.signal(number, _pass_over)
    raise KeyboardInterrupt


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
def held_back() -> Iterator[None]:
    """Hold requests to end back until the block is done; the first that came is then heard as if it came now."""
    with undisturbed() as came:
        yield
    if came:
        signal.raise_signal(came[0])


def let_go(error: BaseException) -> None:
    """Close the ``with`` blocks that an interrupt kept from being closed, before anything is put back.

    One that comes when a block is just being left is raised before the context manager has heard of that. A manager
    that is a generator then ends with the last reference to it, and what the interrupt's traceback refers to lives on.
    """
    import traceback  # for whom all goes well, it is not needed

    seen: BaseException | None = error
    while seen is not None:
        traceback.clear_frames(seen.__traceback__)
        seen = seen.__context__


def begin(thread: threading.Thread) -> None:
    """Start a thread; an interrupt half way would leave one that can neither be joined nor forgotten."""
    with held_back():
        thread.start()


@contextmanager
def left_to_the_main_thread() -> Iterator[None]:
    """Keep signals that ask to end away from this thread: only a call of the main thread can be interrupted by them.

    What is started in the block inherits this, which a program must not: start it in :func:`taken_here`.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def taken_here() -> Iterator[None]:
    """Undo :func:`left_to_the_main_thread` for a moment."""
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKING)
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
