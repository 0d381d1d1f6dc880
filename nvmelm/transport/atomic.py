"""A file that appears under its name complete and durable, or not at all.

The bytes go to a file without a name (``O_TMPFILE``), so that not even a killed process leaves anything behind; a file
system that cannot do that gets a hidden file beside the target, which is removed on every failure the process
survives.
"""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from nvmelm.errors import UsageError, host_error
from nvmelm.wire.layout import Buffer

_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


class AtomicFile:
    """A file being written; :meth:`commit` gives it its name, closing without it nothing.

    Opening it proves that the directory can be written, before anything else is touched.

    Args:
        mode: who may read it once it has its name; its owner only when nothing is said.

    Raises:
        UsageError: the name belongs to something that is no regular file.
        HostError: the directory cannot be written.
    """

    def __init__(self, path: Path, *, mode: int = 0o600) -> None:
        self.path = path
        self._mode = mode
        self._temporary: Path | None = None
        try:
            # Renaming onto a link would replace the link: /dev/stdout must not become a file.
            if path.is_symlink() or (path.exists() and not path.is_file()):
                raise UsageError(f"{path} is not a regular file", fix="give the name of a file that may be replaced")
            self._descriptor = self._open()
        except OSError as error:
            raise host_error("cannot write", str(path), error) from error

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CLOEXEC
        try:
            return os.open(self.path.parent, flags | os.O_TMPFILE, 0o600)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
        self._temporary = self._spare_name()
        return os.open(self._temporary, flags | os.O_CREAT | os.O_EXCL, 0o600)

    def _spare_name(self) -> Path:
        return self.path.parent / f".{self.path.name[:200]}.{secrets.token_hex(8)}.new"

    def write(self, data: Buffer) -> None:
        """Append bytes; HostError when the disk is full."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise host_error("cannot write", str(self.path), error) from error

    def commit(self) -> None:
        """Wait until the disk has every byte, then give the file its name; whatever had the name before is replaced."""
        try:
            os.fchmod(self._descriptor, self._mode)
            os.fsync(self._descriptor)
            if self._temporary is None:
                # A link cannot replace a file, a rename can: so the file first gets a spare name.
                spare = self._spare_name()
                self._temporary = spare
                _link(self._descriptor, spare)
            self._temporary.replace(self.path)
            self._temporary = None
            sync_directory(self.path.parent)
        except OSError as error:
            raise host_error("cannot write", str(self.path), error) from error

    def close(self) -> None:
        """Let go; what was not committed is gone."""
        if self._descriptor < 0:
            return
        os.close(self._descriptor)
        self._descriptor = -1
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _link(descriptor: int, name: Path) -> None:
    """Give an unnamed file a name."""
    directory = os.open(name.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # With a directory given Python calls linkat(AT_SYMLINK_FOLLOW); without one, link(), which follows no link.
        os.link(f"/proc/self/fd/{descriptor}", name.name, dst_dir_fd=directory, follow_symlinks=True)
    finally:
        os.close(directory)


def sync_directory(directory: Path) -> None:
    """Wait until the disk has the directory's names."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def unnamed_file(directory: Path) -> int:
    """Return the descriptor of a readable and writable file (0600) without a name; it is gone when it is closed.

    Raises:
        HostError: the directory cannot be written.
    """
    flags = os.O_RDWR | os.O_CLOEXEC
    try:
        try:
            return os.open(directory, flags | os.O_TMPFILE, 0o600)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
        path = directory / f".{secrets.token_hex(8)}.new"
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        path.unlink()
        return descriptor
    except OSError as error:
        raise host_error("cannot write", str(directory), error) from error
