"""What a VMM is told when something goes wrong: an errno; the sentence is for the journal.

VFIO has no text for its answers (include/uapi/linux/vfio.h): QEMU prints the errno, so each kind of error has one.
"""

from __future__ import annotations

import errno

from nvmelm.errors import (
    BusyError,
    DeviceGoneError,
    ImageError,
    IncompatibleError,
    MalformedError,
    NotSupportedError,
    NvmelmError,
    TimedOutError,
    UncertainError,
    UsageError,
    unexpected,
)
from nvmelm.vfio.seam import Refusal

#: What the VMM's call returns for each kind of error; the text is in the journal.
_ERRNOS: tuple[tuple[type[NvmelmError], int], ...] = (
    (DeviceGoneError, errno.ENODEV),
    (BusyError, errno.EBUSY),
    (TimedOutError, errno.ETIMEDOUT),
    (NotSupportedError, errno.EOPNOTSUPP),
    (IncompatibleError, errno.EXDEV),
    (UncertainError, errno.EEXIST),
    (ImageError, errno.EBADMSG),
    (MalformedError, errno.EBADMSG),
    (UsageError, errno.EPERM),
)


def refusal_of(error: BaseException | None) -> Refusal:
    """Return what a VMM is told of an error, always made anew: raised from the error, it must not be its own origin."""
    if isinstance(error, Refusal):
        again = Refusal(error.errno, error.reason)
        again.written = error.written
        return again
    if isinstance(error, OSError):
        return Refusal(error.errno or errno.EIO, f"the function's registers: {error}")
    known = unexpected(error) if isinstance(error, Exception) else NvmelmError("interrupted")
    number = next((number for kind, number in _ERRNOS if isinstance(known, kind)), errno.EIO)
    return Refusal(number, f"{known.message}: {known.cause}" if known.cause else known.message)
