"""An image in a named pipe: a writer is waited for that has it open, and nobody else."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from nvmelm.errors import UsageError
from nvmelm.state.image.reader import open_image
from tests.unit.state.test_image import GOLDEN, STATE


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_a_pipe_that_nobody_writes_to_is_refused_and_not_waited_for(pipe: Path) -> None:
    with pytest.raises(UsageError, match="nobody writes into the pipe") as refusal:
        open_image(pipe, spool_directory=pipe.parent)
    assert "waited for" in refusal.value.cause


def test_a_writer_that_has_written_nothing_yet_is_waited_for(pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = os.open(pipe, os.O_RDWR)  # does not wait for a reader
    waits = threading.Event()
    really = os.set_blocking

    def write() -> None:
        assert waits.wait(30)
        with os.fdopen(writer, "wb") as stream:
            stream.write(GOLDEN)

    def block(descriptor: int, blocking: bool) -> None:
        really(descriptor, blocking)
        waits.set()

    monkeypatch.setattr(os, "set_blocking", block)
    thread = threading.Thread(target=write)
    thread.start()
    with open_image(pipe, spool_directory=pipe.parent) as image:
        assert b"".join(bytes(part.data) for part in image.parts(4096)) == STATE
    thread.join()
