"""Every error nvmelm raises, and the exit code each one ends the program with.

::

    NvmelmError                    exit 1   failed
    |-- UsageError                 exit 2   what was typed cannot be meant
    |-- NotSupportedError          exit 3   the device or the host cannot do it
    |-- IncompatibleError          exit 4   source and destination do not fit
    |-- BusyError                  exit 5   held by another process, driver or VM
    |-- AdminCommandError          exit 6   a controller completed a command with an error status
    |-- TimedOutError              exit 7   a deadline passed
    |-- RolledBackError            exit 8   failed, and everything was put back
    |-- UncertainError             exit 9   an operator must look
    |   `-- CopyLostError          exit 9   a controller does not hold its state any more
    |-- NotReadyError              exit 10  something has to be done first
    |-- HostError                  exit 1   the kernel refused; carries path and errno
    |   |-- PermissionDeniedError  exit 1   needs root
    |   |-- DeviceGoneError        exit 1   the device vanished
    |   |-- OwnFileError         exit 1   something else stands where nvmelm keeps a file of its own
    |   |-- UeventsLostError       exit 1   the kernel said more than was listened to
    |   `-- RecordInDoubtError     exit 1   whether an owner was written down is not known
    |-- MalformedError             exit 1   a device, file or peer sent bytes that mean nothing
    |-- ImageError                 exit 1   a saved state that may not be used
    |-- LinkLostError              exit 1   the other host is not there any more
    |   `-- AnswerLostError        exit 1   it was asked, and may have acted
    |-- RemoteError                its own  what went wrong on the other host
    |-- SourceGaveUpError          exit 1   the source aborted the session
    |-- WrongDigestError           exit 1   what arrived is not what was sent
    |-- CalloutError               exit 1   a callout failed, or did not end in time
    |-- ReplayMismatchError        exit 1   a replay was asked something its recording does not hold
    |   `-- EventMismatchError     exit 1   a call differs from the recorded event
    |-- DemoFailedError            exit 1   the guest of a demonstration noticed the move
    `-- InterruptedByUserError     exit 130 Ctrl-C; nothing was changed, or all of it was undone

Each says what happened (the message), why (``cause``) and what to type next (``fix``). Branch on the type and its
fields, never on the text. Only :mod:`nvmelm.cli` turns an error into an exit code.
"""

from __future__ import annotations

import errno as errno_module
import os
from collections.abc import Iterator
from enum import IntEnum
from typing import ClassVar

_SHOWN = 120  # characters of a value in a message


class ExitCode(IntEnum):
    """Exit codes of every verb; the contract automation relies on."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_SUPPORTED = 3
    INCOMPATIBLE = 4
    BUSY = 5
    REFUSED = 6
    TIMED_OUT = 7
    ROLLED_BACK = 8
    UNCERTAIN = 9
    NOT_READY = 10
    INTERRUPTED = 128 + 2  # the shell's number for a program ended by SIGINT


class NvmelmError(Exception):
    """Something went wrong that nvmelm can name.

    Args:
        message: what happened, one line, no trailing full stop.
        cause: why, or empty when the message says it.
        fix: what to type or do next.
        reason: a stable word for programs, such as ``image-truncated``; empty: that of the type, see :attr:`word`.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED
    kind: ClassVar[str] = "failed"

    def __init__(self, message: str, *, cause: str = "", fix: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.cause = cause
        self.fix = fix
        self.reason = reason
        self.rolled_back = False  # set by whoever undid every change of the failed verb

    @property
    def word(self) -> str:
        """Return the stable word for programs: the reason, or the type's own word where there is none."""
        return self.reason or self.kind.replace("_", "-")


class UsageError(NvmelmError):
    """The arguments contradict each other or name nothing that exists."""

    exit_code = ExitCode.USAGE
    kind = "usage"


class NotReadyError(NvmelmError):
    """What was typed can be meant, and something has to be done before: not marked, offline, not confirmed."""

    exit_code = ExitCode.NOT_READY
    kind = "not_ready"


class NotSupportedError(NvmelmError):
    """The device or this host cannot do what was asked, now or ever."""

    exit_code = ExitCode.NOT_SUPPORTED
    kind = "not_supported"


class IncompatibleError(NvmelmError):
    """A state and its target, or a source and its destination, do not fit."""

    exit_code = ExitCode.INCOMPATIBLE
    kind = "incompatible"


class BusyError(NvmelmError):
    """Something else holds what was asked for; it is named in the message."""

    exit_code = ExitCode.BUSY
    kind = "busy"


class TimedOutError(NvmelmError):
    """A condition did not come true before its deadline."""

    exit_code = ExitCode.TIMED_OUT
    kind = "timed_out"


class RolledBackError(NvmelmError):
    """The verb failed and every change it had made was undone."""

    exit_code = ExitCode.ROLLED_BACK
    kind = "rolled_back"


class UncertainError(NvmelmError):
    """The outcome cannot be known from here; an operator must look before anything else is done."""

    exit_code = ExitCode.UNCERTAIN
    kind = "uncertain"


class CopyLostError(UncertainError):
    """A controller does not hold the state any more that a session counts on: it, its primary or its host was reset."""

    def __init__(self, message: str, *, cause: str = "", fix: str = "") -> None:
        super().__init__(message, cause=cause, fix=fix, reason="target-gone")


class MalformedError(NvmelmError):
    """Bytes from a device, a file or a peer do not have the shape their specification gives them."""

    kind = "malformed"


class ImageError(NvmelmError):
    """A state image is truncated, altered, foreign or newer than this program."""

    kind = "image"


class LinkLostError(NvmelmError):
    """The other side is not there any more: its end was closed, or it said nothing for too long."""

    kind = "link_lost"

    def __init__(self, message: str, *, cause: str = "") -> None:
        super().__init__(message, cause=cause, fix="nvmelm recover, on either host", reason="link-lost")


class AnswerLostError(LinkLostError):
    """The other host was asked, and what it said is not known: it may run the controllers by now."""


class RemoteError(NvmelmError):
    """What went wrong on the other host, in that host's words; a subclass has that host's exit code."""

    kind = "remote"


class SourceGaveUpError(NvmelmError):
    """The source aborted the session, and runs its controllers again."""

    kind = "source_gave_up"

    def __init__(self, why: str) -> None:
        super().__init__("the source gave up", cause=why, reason="source-gave-up")


class WrongDigestError(NvmelmError):
    """What arrived is not what was sent."""

    kind = "wrong_digest"


class CalloutError(NvmelmError):
    """A callout failed, or did not end in time."""

    kind = "callout"


class ReplayMismatchError(NvmelmError):
    """A verb asked a recording for something else than the recorded event."""

    kind = "replay_mismatch"


class EventMismatchError(ReplayMismatchError):
    """A call differs from the recorded event.

    Attributes:
        event: its number in the recording, from 1.
        field: the first field that differs.
        expected: what the recording holds.
        got: what was asked.
    """

    def __init__(self, event: int, total: int, field: str, expected: object, got: object) -> None:
        self.event, self.field, self.expected, self.got = event, field, _shown(expected), _shown(got)
        super().__init__(
            f"event {event} of {total}, field {field}: the recording has {self.expected}, asked was {self.got}",
            cause="the program, or what it was asked to do, is not the one that was recorded",
            fix="replay the recorded command line, or record again",
            reason="replay-mismatch",
        )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


class DemoFailedError(NvmelmError):
    """In a demonstration the guest lost something, saw something twice, or read what it had not written."""

    kind = "demo_failed"


class InterruptedByUserError(NvmelmError):
    """The operator pressed Ctrl-C."""

    exit_code = ExitCode.INTERRUPTED
    kind = "interrupted"


class HostError(NvmelmError):
    """The kernel refused a file operation or an ioctl.

    Args:
        path: the file, as the operator would type it.
        errno: the kernel's error number, 0 when there is none.
    """

    kind = "host"

    def __init__(
        self, message: str, *, path: str = "", errno: int = 0, cause: str = "", fix: str = "", reason: str = ""
    ) -> None:
        super().__init__(message, cause=cause, fix=fix, reason=reason)
        self.path = path
        self.errno = errno

    @property
    def errno_name(self) -> str:
        """Return the symbol of the errno (``EBUSY``), or its number when it has none."""
        return errno_module.errorcode.get(self.errno, str(self.errno))


class PermissionDeniedError(HostError):
    """The operation needs root (CAP_SYS_ADMIN)."""

    kind = "permission"


class DeviceGoneError(HostError):
    """A device that was there a moment ago is not there any more."""

    kind = "device_gone"


class OwnFileError(HostError):
    """What stands where nvmelm keeps something of its own is of another kind, or others may change it."""

    kind = "own_file"


class UeventsLostError(HostError):
    """The kernel said more than was taken in time; what is known has to be read anew."""

    kind = "uevents_lost"


class RecordInDoubtError(HostError):
    """A record may be on the disk or not: the disk failed, or somebody replaced the file, while it was written."""

    def __init__(self, message: str, *, path: str, cause: str, fix: str) -> None:
        super().__init__(message, path=path, cause=cause, fix=fix, reason="sessions-doubtful")


#: What an errno means where a file was to be opened, read or written, and what to do; by its number.
_FILES: dict[int, tuple[str, str]] = {
    errno_module.ENOENT: ("it, or a directory above it, is not there", "look whether its name is right"),
    errno_module.ENOTDIR: ("what should be a directory above it is none", "look whether its name is right"),
    errno_module.EISDIR: ("it is a directory", "name a file"),
    errno_module.EEXIST: ("something has this name already", "choose another name"),
    errno_module.ENAMETOOLONG: ("its name is longer than the file system allows", "choose a shorter name"),
    errno_module.ELOOP: ("it is a link, or a loop of links", "name the file itself"),
    errno_module.ENOSPC: ("the disk is full", "make room (df), then run it again"),
    errno_module.EDQUOT: ("the user's quota is used up", "make room, then run it again"),
    errno_module.EROFS: ("the file system is mounted read-only", "name a file elsewhere, or mount it read-write"),
    errno_module.EMFILE: ("too many files are open", "raise the limit: ulimit -n"),
    errno_module.EBADF: ("it was closed before this program began", "give it a file or a pipe: > FILE"),
    errno_module.EPIPE: ("who reads the pipe has gone", "run the whole pipe again"),
}


def host_error(what: str, path: str, error: OSError, *, fix: str = "") -> HostError:
    """Turn an ``OSError`` met at the seam into the :class:`HostError` that says what it means here.

    Args:
        what: the operation, as a clause: ``cannot write '4'``.
        path: the file it was tried on.
    """
    number = error.errno or 0
    text = os.strerror(number) if number else str(error)
    message = f"{what}: {path}: {text}"
    if number in (errno_module.EACCES, errno_module.EPERM):
        fix = fix or "run it as root"
        return PermissionDeniedError(message, path=path, errno=number, cause="the kernel asks for root here", fix=fix)
    if number in (errno_module.ENODEV, errno_module.ENXIO):
        fix = fix or "nvmelm list"
        cause = "the device, or its driver, is not there (any more)"
        return DeviceGoneError(message, path=path, errno=number, cause=cause, fix=fix)
    name = errno_module.errorcode.get(number, "")
    cause, remedy = _FILES.get(number, (f"the kernel answers {name}", f"nvmelm explain {name}"))
    if not name:
        cause, remedy = "the kernel gave no reason", "dmesg | tail"
    return HostError(message, path=path, errno=number, cause=cause, fix=fix or remedy)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and so on; each once, also where the chain bites its own tail."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def origin(failure: BaseException, error: BaseException) -> BaseException | None:
    """Return what a failure is raised from: the error that led to it, unless that is, or came from, the failure.

    For ``raise failure from origin(failure, error)`` where the way back may return the very error it was given: an
    error that is its own cause sends everybody who follows the chain round in a circle.
    """
    return failure.__cause__ if any(cause is failure for cause in causes(error)) else error


def unexpected(error: Exception) -> NvmelmError:
    """Return an error of ours for one that nobody expected: what was begun is put back all the same."""
    if isinstance(error, NvmelmError):
        return error
    bug = f"this is a bug in nvmelm: {type(error).__name__}: {error}"
    return NvmelmError(bug, fix="report it with nvmelm bug-report", reason="bug")
