"""A call of one device, on its way to the answer."""

from __future__ import annotations

import errno
import os

from nvmelm.errors import NvmelmError
from nvmelm.interposer import features
from nvmelm.interposer.caller import Process
from nvmelm.interposer.device import Device
from nvmelm.interposer.kernel import Kernel
from nvmelm.interposer.notification import Listener, Notification
from nvmelm.interposer.streams import Stream
from nvmelm.vfio.seam import Refusal

_ENDS_VM = (
    "its state has arrived and cannot run, so this VM must not start here: its VMM is ended, and the VM goes on at the "
    "source (where QEMU does not listen to the destination, by cont)"
)


class Job:
    """What is done about a call when it is the function's turn.

    Args:
        process: whose call it is; ended where its VM must not start.
        request: of ``VFIO_DEVICE_FEATURE``; None for a reset.
        fd: a copy of the device's descriptor, closed with the answer.
    """

    def __init__(
        self,
        listener: Listener,
        kernel: Kernel,
        call: Notification,
        process: Process,
        device: Device,
        request: features.FeatureRequest | None,
        fd: int,
    ) -> None:
        self._listener = listener
        self._kernel = kernel
        self._call = call
        self._process = process
        self._device = device
        self._request = request
        self._fd = fd
        self._given: Stream | None = None

    def __call__(self) -> None:
        refusal = None
        try:
            with self._device.through(self._fd):
                refusal = self._refusal()
            if refusal is not None:
                self._device.say(refusal)  # before the VMM can act on it
                if refusal.ends_vm:
                    self._device.say(Refusal(refusal.errno, _ENDS_VM))
                    self._process.end()
        finally:
            os.close(self._fd)
            if self._listener.answered(self._call, refusal.errno if refusal else 0) and self._given is not None:
                self._given.delivered()

    def _refusal(self) -> Refusal | None:
        """Do what is asked; return why it was not done."""
        try:
            if self._request is None:
                self._kernel.reset(self._fd)
                self._device.was_reset()
            else:
                features.answer(self._request, self._device, self._give)
        except Refusal as refusal:
            return refusal
        except OSError as error:
            return Refusal(error.errno or errno.EIO, f"{error.strerror}")
        except NvmelmError as error:
            return Refusal(errno.EIO, in_words(error))
        except Exception as error:  # the VMM goes on with an errno
            return Refusal(errno.EIO, f"this is a bug in nvmelm: {error!r}")
        return None

    def _give(self, stream: Stream) -> int | None:
        self._given = stream
        return self._listener.give_descriptor(self._call, stream.theirs, ends=False)


def in_words(error: NvmelmError) -> str:
    """Return an error of ours as a sentence for the journal."""
    parts = (error.message, error.cause, f"fix: {error.fix}" if error.fix else "")
    return "; ".join(part for part in parts if part)
