"""Which programs may be run as callouts: none that somebody else than root or this user could have put there.

A migration is run by root, so whoever can place a file where callouts are looked for is root. What counts is every name
on the way: the file, a link to it, and each directory above, for the owner of a directory can exchange what is in it.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import stat
from pathlib import Path

from nvmelm.errors import HostError, UsageError, host_error
from nvmelm.process.executable import obstacle

#: As many as the kernel follows in one path.
_MOST_LINKS = 40


def programs(directory: Path) -> list[Path]:
    """Return the executables in a directory, sorted; hidden names and what is no executable file are passed over.

    Raises:
        HostError: the directory cannot be read, others could have put one of them there, or the kernel does not run
            one of them.
    """
    try:
        names = sorted(name for name in os.listdir(directory) if not name.startswith("."))  # noqa: PTH208
        executables = [directory / name for name in names if _is_program(directory / name)]
        for path in executables:
            _require_own(path)
            if why := obstacle(str(path)):
                raise _cannot_run(path, why)
    except OSError as error:
        raise host_error("cannot read the callouts", str(directory), error) from error
    return executables


def program(word: str, *, fix: str) -> Path:
    """Return the file that the first word of a command names: a path, or a name that is looked for in ``PATH``.

    The operator named it, so its directories are not judged; a system's own may belong to a group.

    Raises:
        UsageError: there is no such executable file.
        HostError: others could have put it there.
    """
    where = shutil.which(word)
    if where is None or not Path(where).is_file():
        raise _no_program(word, obstacle(word), f"{fix}, and chmod +x it")
    if why := obstacle(where):
        raise _no_program(word, why, fix)
    path = Path(where).absolute()
    try:
        _require(path, path.stat())
    except OSError as error:
        raise host_error("cannot read", str(path), error) from error
    return path


def _no_program(word: str, why: str, fix: str) -> UsageError:
    cause = f"{why}; it is run as it is, without a shell" if why else "it is run as it is, without a shell"
    return UsageError(f"{word!r} is no executable file", cause=cause, fix=fix, reason="callout")


def _cannot_run(path: Path, why: str) -> HostError:
    fix = f"give it a #! line, or chmod -x {shlex.quote(str(path))}"
    return HostError(f"cannot run the callout {path}", path=str(path), cause=why, fix=fix, reason="callout")


def _is_program(path: Path) -> bool:
    mode = path.stat().st_mode
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def _require_own(path: Path) -> None:
    """Refuse a program that others could have put there, by any name on the way to it.

    The way is gone name by name, as the kernel does: every directory on it counts, and every link, wherever it is.
    """
    directory = Path("/")
    _require(directory, directory.lstat(), path)
    pending = [*reversed(path.absolute().parts[1:])]
    links = 0
    while pending:
        name = pending.pop()
        if name in (".", ".."):
            directory = directory if name == "." else directory.parent
            continue
        place = directory / name
        about = place.lstat()
        _require(place, about, None if place == path else path)
        if not stat.S_ISLNK(about.st_mode):
            directory = place
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = place.readlink()
        directory = Path("/") if target.is_absolute() else directory
        pending += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def _require(place: Path, about: os.stat_result, path: Path | None = None) -> None:
    shared = about.st_mode & 0o022 and not stat.S_ISLNK(about.st_mode)
    if shared and stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX:
        shared = 0  # as /tmp: others may add names, and not touch ours
    why = ""
    if about.st_uid not in (0, os.geteuid()):
        why = f"it belongs to user {about.st_uid}"
    elif shared:
        why = f"others may write to it (mode {stat.S_IMODE(about.st_mode):04o})"
    if why:
        raise HostError(
            f"{path or place} is not run",
            path=str(place),
            cause=why if path is None else f"{place}: {why}",
            fix=f"chown root {shlex.quote(str(place))} and chmod go-w, or remove it",
            reason="callout-unsafe",
        )
