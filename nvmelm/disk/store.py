"""Small files that must survive: written whole or not at all, root-only, and durable before the call returns.

Everything nvmelm remembers lives below one directory per host (0700) as readable JSON (0600)::

    marks/0000:01:00.0/0x0001.json      one mark a file
    journal/0000:01:00.0.jsonl          what was changed on a PF, and what was there before
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from nvmelm.disk.atomic import AtomicFile, sync_directory
from nvmelm.disk.own import misplaced, open_own, own_error
from nvmelm.disk.private import private_directory


def write(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Replace a file's content atomically and durably.

    Args:
        durable: False where somebody waits, a crash of the host makes the content worthless, and half of it means
            nothing: it is written in place, since file systems wait for the disk when one file replaces another.

    Raises:
        HostError: the directory cannot be written, or is full; the old content is still there.
    """
    with _reported("cannot write", path):
        private_directory(path.parent)
        raw = content.encode() if isinstance(content, str) else content
        if not durable:
            _overwrite(path, raw)
            return
        if (wrong := misplaced(path)) is not None:
            raise wrong
    with AtomicFile(path, replace=True) as file:
        file.write(raw)
        file.commit()


def _overwrite(path: Path, raw: bytes) -> None:
    descriptor = open_own(path, os.O_WRONLY | os.O_CREAT)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, raw, 0)
    finally:
        os.close(descriptor)


def append(path: Path, text: str, *, durable: bool = True, whole_lines: bool = False) -> None:
    """Append to a file and wait until the disk has it.

    Args:
        durable: False where nothing is decided by what the file says, so that nobody waits for the disk.
        whole_lines: cut off a last line without its end first; the caller keeps other writers away.

    Raises:
        HostError: the file cannot be written, or the disk is full; a torn last line may be left.
    """
    with _reported("cannot write", path):
        private_directory(path.parent)
        new = not path.exists()
        descriptor = open_own(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        try:
            if whole_lines:
                _cut_torn_line(descriptor)
            data = text.encode()
            while data:
                data = data[os.write(descriptor, data) :]
            if durable:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new and durable:
            sync_directory(path.parent)


def _cut_torn_line(descriptor: int) -> None:
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        os.ftruncate(descriptor, os.pread(descriptor, size, 0).rfind(b"\n") + 1)


def read(path: Path) -> str | None:
    """Return a file's text, or None when there is no such file; HostError when it cannot be read."""
    with _reported("cannot read", path):
        try:
            with open(open_own(path, os.O_RDONLY), encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                return file.read()
        except FileNotFoundError:
            return None


def remove(path: Path) -> None:
    """Remove a file for good; nothing happens when it is not there."""
    with _reported("cannot remove", path):
        if path.exists():
            path.unlink()
            sync_directory(path.parent)


def names(directory: Path) -> list[str]:
    """Return the sorted names in a directory, hidden ones left out; empty when it is not there."""
    with _reported("cannot read", directory, directory=True):
        try:
            return sorted(name for name in os.listdir(directory) if not name.startswith("."))  # noqa: PTH208
        except FileNotFoundError:
            return []


def holds(path: Path) -> bool:
    """Return whether there is a file of nvmelm's own; a name of another kind is an error, and never "nothing".

    Raises:
        OwnFileError: what has the name is no file.
    """
    if path.name not in names(path.parent):
        return False
    if (wrong := misplaced(path)) is not None:
        raise wrong
    return True


@contextlib.contextmanager
def _reported(what: str, path: Path, *, directory: bool = False) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise own_error(what, path, error, directory=directory) from error
