"""Requests to end: the first is a Ctrl-C, and nothing that follows it gets in the way of what puts things back."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from nvmelm.process.interrupts import held_back, interruptible, undisturbed

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ask(*numbers: signal.Signals) -> None:
    """Let requests wait together, and then come."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    for number in numbers:
        signal.raise_signal(number)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in ASKING]


@pytest.mark.parametrize("number", ASKING)
def test_a_request_to_end_is_a_ctrl_c(number: signal.Signals) -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():
        ask(number)


def test_of_several_that_wait_together_only_the_first_is_heard() -> None:
    before, put_back = handlers(), 0
    with pytest.raises(KeyboardInterrupt), interruptible():
        try:
            ask(*ASKING)
        except KeyboardInterrupt:
            for _ in range(1000):  # long enough for any that is left to be heard
                put_back += 1
            ask(*ASKING)
            raise
    assert put_back == 1000
    assert handlers() == before


def test_one_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with interruptible():
            ask(signal.SIGHUP)
            with undisturbed() as came:
                ask(signal.SIGHUP)
            assert came == []
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_is_held_back_is_heard_when_the_block_is_done() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt), interruptible():
        with held_back():
            ask(signal.SIGINT, signal.SIGTERM)
            ask(signal.SIGINT)
            done.append("all of it")
        done.append("never")
    assert done == ["all of it"]


def test_what_is_held_back_inside_of_what_is_undisturbed_stays_so() -> None:
    with interruptible(), undisturbed() as came:
        with held_back():
            ask(signal.SIGTERM)
        assert came == [signal.SIGTERM]


@pytest.mark.parametrize("raising", [lambda: ask(signal.SIGINT), lambda: int("x")])
def test_nothing_falls_between_a_failure_and_what_undoes_it(raising: Callable[[], object]) -> None:
    """As a migration does it: all is undisturbed but what may be cut off, so its failure is met undisturbed, too."""
    undone = False
    with interruptible(), undisturbed():
        try:
            with interruptible():
                raising()
        except (ValueError, KeyboardInterrupt):
            ask(*ASKING)
            undone = True
    assert undone
