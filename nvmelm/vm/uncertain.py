"""When contact with a virtual machine is lost after it was told to change something: the outcome is not known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nvmelm.errors import NvmelmError, UncertainError

LOOK = "nvmelm secondary list PF shows who has the VF; running this verb again changes only what is missing"
_LOST = ("qmp-lost", "qmp-silent", "qmp-garbage", "libvirt-lost")


@contextmanager
def uncertain_when_lost(what: str) -> Iterator[None]:
    """Turn the end of contact, Ctrl-C included, into what it is once a change was asked for: an unknown outcome."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise UncertainError(f"interrupted after {what}", cause="its answer is not known", fix=LOOK) from error
    except NvmelmError as error:
        if error.reason not in _LOST:
            raise
        raise UncertainError(
            f"{error.message}, after {what}", cause=error.cause, fix=LOOK, reason=error.reason
        ) from error
