"""A file that appears under its name complete and durable, or not at all.

The bytes go to a file without a name (``O_TMPFILE``), so that not even a killed process leaves anything behind; a file
system that cannot do that gets a hidden file beside the target, which is removed on every failure the process
survives.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from nvmelm.errors import NotReadyError, UsageError, host_error
from nvmelm.wire.layout import Buffer

_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)


class AtomicFile:
    """A file being written; :meth:`commit` gives it its name, closing without it nothing.

    Opening it proves that the directory can be written, before anything else is touched.

    Args:
        mode: who may read it once it has its name; its owner only when nothing is said.
        replace: a file that has the name may be replaced.

    Raises:
        UsageError: the name belongs to something that is no regular file.
        NotReadyError: it belongs to a file that may not be replaced.
        HostError: the directory cannot be written.
    """

    def __init__(self, path: Path, *, mode: int = 0o600, replace: bool = False) -> None:
        self.path = path
        self._mode = mode
        self._replace = replace
        self._temporary: Path | None = None
        try:
            require_free(path, replace=replace)
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
        return self.path.parent / f".{self.path.name[:200]}.{os.urandom(8).hex()}.new"

    def write(self, data: Buffer) -> None:
        """Append bytes; HostError when the disk is full."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError as error:
            raise host_error("cannot write", str(self.path), error) from error

    def commit(self, *, durable: bool = True) -> None:
        """Wait until the disk has every byte, then give the file its name.

        Args:
            durable: False where somebody waits and a crash of the host makes the content worthless. A file that is
                replaced is removed first then: ext4 starts to write a file when it is renamed onto another
                (auto_da_alloc, ext4(5)), and whoever waits for the journal waits for its data too.

        Raises:
            NotReadyError: something has got the name meanwhile, and may not be replaced.
            HostError: the disk is full.
        """
        try:
            os.fchmod(self._descriptor, self._mode)
            if durable:
                os.fsync(self._descriptor)
            elif self._replace:
                self.path.unlink(missing_ok=True)
            if self._replace and durable:
                self._take_name()
            elif self._temporary is None:
                _link(self._descriptor, self.path)
            else:
                self.path.hardlink_to(self._temporary)
            if durable:
                sync_directory(self.path.parent)
        except FileExistsError as error:
            raise _taken(self.path) from error
        except OSError as error:
            raise host_error("cannot write", str(self.path), error) from error

    def _take_name(self) -> None:
        """Rename: a link cannot replace a file, so one without a name first gets a spare one."""
        if self._temporary is None:
            spare = self._spare_name()
            self._temporary = spare
            _link(self._descriptor, spare)
        self._temporary.replace(self.path)
        self._temporary = None

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


def require_free(path: Path, *, replace: bool) -> None:
    """Refuse a name that is not to be written: a link, a directory, a device; a file, unless it may be replaced.

    Raises:
        UsageError: it is no regular file; renaming onto a link would replace the link, /dev/stdout for instance.
        NotReadyError: a file has the name.
        HostError: what should be a directory above it is none, or may not be looked into.
    """
    try:
        kind = stat.S_IFMT(path.lstat().st_mode)
    except FileNotFoundError:
        return
    except OSError as error:
        raise host_error("cannot write", str(path), error) from error
    if kind != stat.S_IFREG:
        cause = "it is a link" if kind == stat.S_IFLNK else "it is a directory, or a special file"
        raise UsageError(f"{path} is not a regular file", cause=cause, fix="name a file that is not there yet")
    if not replace:
        raise _taken(path)


def _taken(path: Path) -> NotReadyError:
    return NotReadyError(
        f"{path} is there already",
        cause="nothing is overwritten without a word",
        fix="name another file, or say --force to replace it",
        reason="file-exists",
    )


def new_file(path: Path, *, replace: bool) -> int:
    """Return the descriptor of a new, empty file (0600) that is written bit by bit; a pipe or a device is opened.

    A file that has the name is removed, not emptied: others may hold it open, or read it by another name.

    Raises:
        UsageError, NotReadyError: see :func:`require_free`.
        OSError: it cannot be written.
    """
    if path.exists() and is_stream(path):
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
    require_free(path, replace=replace)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_CREAT | os.O_EXCL, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def is_stream(path: Path) -> bool:
    """Return whether a name stands for a pipe or a character device, ``/dev/stdout`` say: nothing of it is replaced."""
    mode = path.stat().st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


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
        path = directory / f".{os.urandom(8).hex()}.new"
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        path.unlink()
        return descriptor
    except OSError as error:
        raise host_error("cannot write", str(directory), error) from error
