"""A progress bar on stderr: what is done, how fast, and how long it will take. On a terminal only."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self, TextIO

from nvmelm.cli.frame import render
from nvmelm.cli.frame.aside import ASIDE

_REDRAW_S = 0.1  # often enough to look alive, seldom enough to cost nothing
_BAR = 24


class ProgressBar:
    """Shows a long transfer; call it with (bytes done, bytes in total).

    It appears only when the work takes longer than a moment, and leaves no trace when it is closed.
    """

    def __init__(self, label: str, *, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._label = render.plain(label)
        self._stream = stream or sys.stderr
        self._on = not quiet and render.is_terminal(self._stream)
        self._started = time.monotonic()
        self._drawn_at = self._started + _REDRAW_S
        self._visible = False

    def __call__(self, done: int, total: int) -> None:
        """Say how far the work is, bytes; a total of 0 means that it is not known."""
        now = time.monotonic()
        if not self._on or now < self._drawn_at + _REDRAW_S:
            return
        self._drawn_at = now
        self._visible = True
        self._draw(self.line(done, total, now - self._started)[: render.terminal_width() - 1])

    def line(self, done: int, total: int, seconds: float) -> str:
        """Return the text of the bar."""
        rate = done / seconds if seconds > 0 else 0.0
        speed = f"{render.size(int(rate))}/s"
        if total <= 0:
            return f"{self._label}  {render.size(done)}  {speed}"
        share = min(1.0, done / total)
        full = int(share * _BAR)
        left = render.duration((total - done) / rate) if rate > 0 else "?"
        bar = "█" * full + "░" * (_BAR - full)
        return f"{self._label}  {bar} {share:4.0%}  {render.size(done)} of {render.size(total)}  {speed}  {left} left"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._visible:
            self._draw("")

    def _draw(self, text: str) -> None:
        """Replace what is drawn; a terminal that has gone must not end the work."""
        try:
            ASIDE.write(self._stream, "\r" + text + "\x1b[K", passing=True)
        except OSError:
            self._on = self._visible = False
