"""Work that waits for the kernel, done from several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeVar

from nvmelm.process.interrupts import hear, undisturbed

T = TypeVar("T")

#: How often it is looked whether somebody wants this to end.
_LOOKS_UP_S = 0.05


def each(do: Callable[[T], object], items: Iterable[T], *, threads: int, all_of_them: bool = False) -> None:
    """Do something for each item, and return when nothing is being done any more, whatever happens.

    Args:
        all_of_them: neither a failure nor Ctrl-C leaves out what had not begun by then.

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
            stop()

    def stop() -> None:
        if not all_of_them:
            stopped.set()

    workers: list[threading.Thread] = []
    wanted = min(threads, waiting.qsize())
    with undisturbed() as came:  # Ctrl-C, once or twice, must not leave anybody at work behind
        with suppress(RuntimeError):  # no more threads to be had: those that there are do it, and this one
            for _ in range(wanted):
                worker = threading.Thread(target=work, name="ThreadPool-each", daemon=True)
                worker.start()
                workers.append(worker)
        if len(workers) < wanted:
            work()
        for worker in workers:
            while worker.is_alive():
                worker.join(_LOOKS_UP_S)
                if came:
                    stop()
    if failures:
        raise failures[0]
    if came:
        hear(came[0])
        if not all_of_them:  # something may have been left out, whoever heard it
            raise KeyboardInterrupt
