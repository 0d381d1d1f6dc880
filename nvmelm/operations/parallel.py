"""Work that waits for the kernel, done from several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

from nvmelm.operations.interrupts import undisturbed

T = TypeVar("T")


def each(do: Callable[[T], None], items: Iterable[T], *, threads: int) -> None:
    """Do something for each item, and return when nothing is being done any more, whatever happens.

    Raises:
        BaseException: the first that was met; what had not begun by then is left out. Ctrl-C likewise.
    """
    waiting: SimpleQueue[T] = SimpleQueue()
    for item in items:
        waiting.put(item)
    failures: list[BaseException] = []
    stopped = threading.Event()

    def work() -> None:
        with suppress(Empty):
            while not stopped.is_set():
                do_one(waiting.get_nowait())

    def do_one(item: T) -> None:
        try:
            do(item)
        except BaseException as error:  # it is raised where the caller is
            failures.append(error)
            stopped.set()

    workers: list[threading.Thread] = []
    try:
        for _ in range(min(threads, waiting.qsize())):
            one = threading.Thread(target=work, daemon=True)
            one.start()
            workers.append(one)
    except RuntimeError:  # no more threads to be had: those that there are do it, and this one
        work()
    except BaseException:
        _end(workers, stopped)
        raise
    try:
        for one in workers:
            one.join()
    except BaseException:
        _end(workers, stopped)
        raise
    if failures:
        raise failures[0]


def _end(workers: Iterable[threading.Thread], stopped: threading.Event) -> None:
    """Wait until nothing is being done: whoever puts things back begins from what stands still."""
    stopped.set()
    with undisturbed():
        for one in workers:
            one.join()
