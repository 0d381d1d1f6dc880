"""Work done from several threads: all of it, or the first failure once nothing is being done any more."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from nvmelm.process import parallel
from nvmelm.process.interrupts import undisturbed


def test_each_item_is_done_once() -> None:
    done: list[int] = []
    parallel.each(done.append, range(100), threads=8)
    assert sorted(done) == list(range(100))


def test_so_many_are_done_at_once() -> None:
    together = threading.Barrier(4, timeout=20)

    def meet(_: int) -> None:
        together.wait()

    parallel.each(meet, range(8), threads=4)


def test_the_first_failure_is_raised_when_nothing_is_being_done_any_more() -> None:
    busy = threading.Event()
    done: list[int] = []

    def do(item: int) -> None:
        if item == 0:
            busy.wait(20)
            raise ValueError("the first")
        busy.set()
        time.sleep(0.05)
        done.append(item)

    with pytest.raises(ValueError, match="the first"):
        parallel.each(do, range(1000), threads=2)
    ended = len(done)
    assert 1 <= ended < 1000
    assert not [one for one in threading.enumerate() if one.daemon and one is not threading.current_thread()]
    assert len(done) == ended


def test_after_ctrl_c_pressed_twice_nothing_is_being_done_any_more() -> None:
    busy, pressed = threading.Semaphore(0), threading.Event()
    ended: list[int] = []

    def do(item: int) -> None:
        busy.release()
        pressed.wait(20)
        ended.append(item)

    def press() -> None:
        for _ in range(2):
            busy.acquire(timeout=20)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.2)
        pressed.set()

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(KeyboardInterrupt):
        parallel.each(do, range(100), threads=2)
    assert len(ended) == 2  # those that were begun
    presser.join()


def test_where_no_more_threads_are_to_be_had_it_is_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[threading.Thread] = []
    start = threading.Thread.start

    def limited(one: threading.Thread) -> None:
        if len(begun) == 2:
            raise RuntimeError("can't start new thread")
        begun.append(one)
        start(one)

    monkeypatch.setattr(threading.Thread, "start", limited)
    done: list[int] = []
    parallel.each(done.append, range(50), threads=8)
    assert sorted(done) == list(range(50))


def test_nothing_to_do_is_done() -> None:
    parallel.each(print, (), threads=8)


def test_what_puts_things_back_is_done_to_its_end_whatever_fails_and_whoever_presses_ctrl_c() -> None:
    done: list[int] = []
    asked = threading.Event()

    def do(item: int) -> None:
        if not asked.is_set():
            asked.set()
            os.kill(os.getpid(), signal.SIGINT)
        done.append(item)
        if item == 0:
            raise ValueError("the first")

    with undisturbed() as came, pytest.raises(ValueError, match="the first"):
        parallel.each(do, range(50), threads=2, all_of_them=True)
    with undisturbed() as came:
        asked.clear()
        parallel.each(do, range(1, 50), threads=2, all_of_them=True)
    assert came == [signal.SIGINT]
    assert sorted(done) == sorted([*range(50), *range(1, 50)])
