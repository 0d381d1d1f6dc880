"""Why a file that is to be run is no program, and what the kernel's refusal of one means.

``execve`` answers EACCES for a directory, for a file without execute permission and for one on a ``noexec`` mount,
ENOENT for a script whose interpreter is missing, and ENOEXEC for a script without a ``#!`` line (execve(2)); none of
that is about root, and each wants another remedy.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat

from nvmelm.errors import BusyError, HostError, NvmelmError, UsageError, host_error

#: What execve answers about the file it was given, and not about this process or the machine.
_ABOUT_THE_FILE = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EACCES,
        errno.EPERM,
        errno.EISDIR,
        errno.ENOEXEC,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ELIBBAD,
    }
)
#: A script's first line is looked at as far as the kernel does (BINPRM_BUF_SIZE, Linux 5.1).
_FIRST_BYTES = 256
#: Formats that somebody registered, besides ELF and scripts: qemu-user's, Java's.
_REGISTERED = "/proc/sys/fs/binfmt_misc"


def obstacle(word: str) -> str:
    """Return why the file that a word names would not be run, as a clause; empty when nothing speaks against it.

    Args:
        word: a path, or a name that is looked for in ``PATH``.
    """
    path = word if "/" in word else shutil.which(word, mode=os.F_OK)
    if not path:
        return "no directory of PATH has a program of this name"
    try:
        about = os.stat(path)  # noqa: PTH116 - the word as it was typed
    except (OSError, ValueError) as error:
        return _unreachable(error)
    if not stat.S_ISREG(about.st_mode):
        return "it is a directory" if stat.S_ISDIR(about.st_mode) else "it is no regular file"
    if not os.access(path, os.X_OK):
        if about.st_mode & 0o111 == 0:
            return f"nobody may execute it (mode {stat.S_IMODE(about.st_mode):04o}); chmod +x makes it a program"
        return "its mode, or a file system mounted noexec, does not let this user execute it"
    return _of_content(path)


def _unreachable(error: OSError | ValueError) -> str:
    number = error.errno if isinstance(error, OSError) else 0
    if number == errno.ENOENT:
        return "there is no such file"
    if number in (errno.EACCES, errno.EPERM):
        return "this user may not search a directory above it"
    return os.strerror(number) if number else str(error)


def _of_content(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - as above
            first = file.read(_FIRST_BYTES)
    except OSError:  # one that may be executed and not read
        return ""
    if first.startswith(b"#!"):
        interpreter = os.fsdecode(next(iter(first[2:].split(b"\n")[0].split()), b""))
        if interpreter.startswith("/") and not os.path.exists(interpreter):  # noqa: PTH110
            return f"its #! line names {interpreter}, which is not there"
        return ""
    if first.startswith(b"\x7fELF") or _others_registered():
        return ""
    return "it is empty" if not first else "it is no binary of this machine, and has no #! line"


def _others_registered() -> bool:
    try:
        return bool({*os.listdir(_REGISTERED)} - {"register", "status"})  # noqa: PTH208 - names, not paths
    except OSError:
        return False


def not_started(
    what: str, word: str, error: OSError, *, fix: str, named: bool = False, reason: str = ""
) -> NvmelmError:
    """Return the error of a program that the kernel did not start.

    Args:
        what: what was to be done, as a clause: ``cannot start``.
        word: the program, as it was named.
        fix: what to do when it is no program.
        named: the operator named it, so that what is no program was typed wrongly (exit 2).
    """
    number = error.errno or 0
    message = f"{what}: {word}: {os.strerror(number) if number else error}"
    if number == errno.ETXTBSY:
        cause = "somebody has it open for writing, and the kernel runs no program that may change"
        fix = "wait until it is written, then run it again"
        return BusyError(message, cause=cause, fix=fix, reason=reason or "no-program")
    if number == errno.E2BIG:
        cause = "its arguments and environment are longer than the kernel passes on (getconf ARG_MAX)"
        return UsageError(message, cause=cause, fix="give it fewer", reason=reason or "no-program")
    if number and number not in _ABOUT_THE_FILE:
        return host_error(what, word, error)
    cause = obstacle(word) or "the kernel does not run this file" if number else "a word of it holds a zero byte"
    if named:
        return UsageError(message, cause=cause, fix=fix, reason=reason or "no-program")
    return HostError(message, path=word, errno=number, cause=cause, fix=fix, reason=reason or "no-program")
