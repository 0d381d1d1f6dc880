"""``nvmelm watch`` in a process of its own, its lines read as they come."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nvmelm.process.waiting import wait_until

Line = dict[str, Any]


class Watch:
    """A running watch of an emulated host, or of this machine.

    Args:
        host: the host to watch.
        state_dir: where it keeps what it remembers, if not where it always does.

    Attributes:
        lines: all that were read so far.
    """

    def __init__(self, host: str, *options: str, state_dir: Path | None = None) -> None:
        words = [sys.executable, "-m", "nvmelm", "--host", host, "watch", *options]
        environment = {**os.environ, **({"NVMELM_STATE_DIR": str(state_dir)} if state_dir else {})}
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        self.lines: list[Line] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self.lines.append(json.loads(text))

    def of(self, kind: str) -> list[Line]:
        """Return what the lines of one kind hold."""
        return [line[kind] for line in list(self.lines) if line["kind"] == kind]

    def wait(self, kind: str, wanted: Callable[[Line], bool] = lambda _: True, deadline_s: float = 20.0) -> Line:
        """Wait for a line of a kind and return its part."""

        def found() -> list[Line]:
            return [part for part in self.of(kind) if wanted(part)]

        wait_until(lambda: bool(found()), f"a line of the kind {kind}", deadline_s=deadline_s)
        return found()[0]

    def end(self, signal: int) -> tuple[int, str]:
        """Send a signal, and return the exit code and what was printed to stderr."""
        self.process.send_signal(signal)
        code = self.process.wait(20)
        self._reader.join(10)
        assert self.process.stderr is not None
        return code, self.process.stderr.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


def followed(parts: list[Line], cntlid: int, name: str) -> list[Any]:
    """Return the values a fact went through, each change beginning where the one before ended."""
    mine = [part for part in parts if part["cntlid"] == cntlid and name in part["after"]]
    values = [mine[0]["before"][name]]
    for part in mine:
        assert part["before"][name] == values[-1]
        values.append(part["after"][name])
    return values
