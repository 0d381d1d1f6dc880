"""A request to end wherever the interpreter hears one: when a function begins, and when one written in C is done."""

from __future__ import annotations

import signal
import sys
from contextlib import AbstractContextManager
from types import FrameType


class Interrupting(AbstractContextManager["Interrupting"]):
    """A block in which a SIGINT comes at one of those places.

    Args:
        at: which of them, from 1; 0: none.
        leaving: count only those where a ``with`` block is left, and its generator has not heard of it yet.

    Attributes:
        passed: how many there were, the one where it came included.
    """

    def __init__(self, at: int = 0, *, leaving: bool = False) -> None:
        self.passed = 0
        self._at = at
        self._leaving = leaving

    def __enter__(self) -> Interrupting:
        assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        sys.setprofile(self._passed)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)

    def _passed(self, frame: FrameType, event: str, what: object) -> None:
        if self._counts(frame, event):
            self.passed += 1
            if self.passed == self._at:
                signal.raise_signal(signal.SIGINT)

    def _counts(self, frame: FrameType, event: str) -> bool:
        if self._leaving:
            code = frame.f_code
            return event == "call" and code.co_name == "__exit__" and code.co_filename.endswith("contextlib.py")
        # A generator expression is also called to be closed, by nobody who could hear what is raised in it: CPython
        # prints such an exception and goes on, which pytest counts as an error of the test.
        return event == "c_return" or (event == "call" and frame.f_code.co_name != "<genexpr>")
