"""The kernel's uevents, through pyudev and the netlink socket behind it.

Asked for as the kernel says them (source ``kernel``) and not as udevd passes them on: they come in the kernel's order
and at once, without udevd too, and device nodes are there by then (devtmpfs makes them first).

A socket whose buffer is full loses uevents, and says so once, with ENOBUFS.

Sources: Linux lib/kobject_uevent.c, net/netlink/af_netlink.c; pyudev 0.24, Monitor.
"""

from __future__ import annotations

import contextlib
import os
import socket
from types import TracebackType
from typing import Any, Self

from nvmelm.errors import NotSupportedError, UeventsLostError, host_error
from nvmelm.host import UEVENT_SUBSYSTEMS, Uevent

#: A uevent takes less than 2 KiB of a socket's buffer, so this holds those of some 2000 VFs that all appear at once.
_BUFFER_BYTES = 16 << 20
#: Keys that the fields of a :class:`Uevent` have already.
_FIELDS = frozenset({"ACTION", "SUBSYSTEM", "DEVPATH", "SEQNUM"})


class KernelUevents:
    """The :class:`~nvmelm.host.Uevents` of this machine.

    Raises:
        HostError: there is no netlink socket to be had.
    """

    def __init__(self) -> None:
        try:
            import pyudev  # 20 ms, and seldom wanted

            self._monitor: Any = pyudev.Monitor.from_netlink(pyudev.Context(), source="kernel")
            for subsystem in UEVENT_SUBSYSTEMS:
                self._monitor.filter_by(subsystem)
            with contextlib.suppress(OSError):  # without CAP_NET_ADMIN it stays as large as others are
                self._monitor.set_receive_buffer_size(_BUFFER_BYTES)
            self._monitor.start()
        except ImportError as error:
            raise NotSupportedError(
                "cannot listen to the kernel's uevents: this system has no libudev",
                cause="pyudev finds no library of that name; all that does not watch works without it",
                fix="install the package that has libudev.so.1: libudev1, systemd-libs, or eudev-libs",
                reason="no-libudev",
            ) from error
        except OSError as error:
            raise host_error("cannot listen to", "the kernel's uevents", error) from error

    def fileno(self) -> int:
        return int(self._monitor.fileno())

    def next(self) -> Uevent | None:
        try:
            device = self._monitor.poll(timeout=0)
        except OSError as error:
            self._clear()
            raise UeventsLostError("uevents were lost", cause="more came than were taken in time") from error
        if device is None:
            return None
        properties = {str(name): str(value) for name, value in device.properties.items() if name not in _FIELDS}
        if "DEVNAME" in properties:
            properties["DEVNAME"] = properties["DEVNAME"].removeprefix("/dev/")  # libudev's addition
        return Uevent(
            seqnum=int(device.sequence_number),
            action=str(device.action),
            subsystem=str(device.subsystem),
            device=str(device.device_path).removeprefix("/"),
            properties=properties,
        )

    def _clear(self) -> None:
        """Take the socket's error: pyudev looks for it before it reads, and would find it again and again."""
        with socket.socket(fileno=os.dup(self.fileno())) as same:
            same.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def close(self) -> None:
        self._monitor = None  # libudev closes the socket with the monitor's last reference

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
