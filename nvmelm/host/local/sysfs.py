"""Sysfs as files below a root: ``/sys`` in production, a scratch directory in tests.

This is the seam: the one place where an ``OSError`` of a sysfs file becomes the :class:`~nvmelm.errors.HostError` that
says what the number means *there*. The kernel reuses a handful of errnos for very different refusals, so the meaning
depends on the attribute: ``ENOENT`` from opening ``sriov_numvfs`` says the device has no SR-IOV, from writing it that
no driver is bound.

Sources: Linux Documentation/ABI/testing/sysfs-bus-pci; drivers/pci/iov.c, drivers/pci/pci-driver.c,
drivers/pci/pci-sysfs.c, drivers/base/bus.c; errnos measured on 6.1 and 7.2.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from nvmelm.errors import HostError, MalformedError, host_error

#: An attribute is at most one page; binary ones (a PCI function's ``config``) are no longer.
_READ_BYTES = 64 * 1024


class ErrnoMeaning(NamedTuple):
    """What one errno means when one attribute is written: a stable word for programs, why, and what to type next."""

    reason: str
    cause: str
    fix: str


#: sriov_numvfs_store (drivers/pci/iov.c) checks in this order: no 16-bit number EINVAL, more than TotalVFs ERANGE, the
#: number that is set already: success, even without a driver; no driver, or one that cannot, ENOENT; from a number to
#: another EBUSY. What nvme's driver (pci_sriov_configure_simple) and sriov_enable answer follows.
_NUMVFS = {
    errno.ERANGE: ErrnoMeaning(
        "too-many-vfs",
        "it is more than the device's sriov_totalvfs",
        "ask for at most that many; nvmelm show {device} prints it",
    ),
    errno.ENOENT: ErrnoMeaning(
        "no-sriov-driver",
        "no driver is bound to the device, or the bound driver cannot configure SR-IOV",
        "bind it to nvme: echo {device} > /sys/bus/pci/drivers/nvme/bind",
    ),
    errno.EBUSY: ErrnoMeaning(
        "vfs-enabled",
        "another number of VFs is enabled already, and the kernel only goes from or to 0",
        "nvmelm sriov disable {device}, then enable again",
    ),
    errno.EINVAL: ErrnoMeaning(
        "not-a-count",
        "the kernel takes a number from 0 to 65535 here, or the device's SR-IOV capability is inconsistent",
        "give a number of VFs; dmesg tells when the device is at fault",
    ),
    errno.EPERM: ErrnoMeaning(
        "vfs-assigned",
        "a VF is flagged as assigned to a virtual machine",
        "stop that virtual machine, or detach the VF from it",
    ),
    errno.EIO: ErrnoMeaning(
        "capability-inconsistent",
        "the device's InitialVFs and TotalVFs disagree",
        "update the device's firmware; dmesg has the numbers",
    ),
    errno.ENOMEM: ErrnoMeaning(
        "no-pci-resources",
        "the firmware left no room for the VFs' BARs, or their bus numbers lie beyond the bridge's range",
        "enable SR-IOV in the firmware setup, or boot with pci=realloc,assign-busses",
    ),
    errno.ENOSYS: ErrnoMeaning(
        "dependent-function",
        "the function's SR-IOV depends on another function that cannot have it",
        "look at the dep_link of {device}",
    ),
    errno.ENODEV: ErrnoMeaning(
        "not-a-pf",
        "the device is not an SR-IOV physical function, or the function it depends on has no VFs enabled",
        "nvmelm show {device}",
    ),
}

#: ``bind`` gives the errno of the driver's probe, which ``drivers_probe`` hides: that one succeeds when nothing was
#: bound (drivers/base/bus.c; the same on 6.1 and 7.2).
_BIND = {
    errno.ENODEV: ErrnoMeaning(
        "no-match",
        "no such device, its driver_override names another driver, the driver does not know its id, or its PF's "
        "sriov_drivers_autoprobe is 0 and it has no driver_override",
        "nvmelm vfio bind {value}",
    ),
    errno.EBUSY: ErrnoMeaning(
        "already-bound",
        "the device has a driver already, or it is a PF whose VFs are enabled",
        "nvmelm vfio unbind {value}, or disable SR-IOV first",
    ),
    errno.EINVAL: ErrnoMeaning(
        "probe-refused",
        "the driver refused the device; vfio-pci does so when the device is in no IOMMU group",
        "nvmelm host check",
    ),
    errno.EAGAIN: ErrnoMeaning(
        "probe-deferred", "the driver waits for another device", "try again when that one is there"
    ),
}

_MEANINGS: dict[str, dict[int, ErrnoMeaning]] = {
    "sriov_numvfs": _NUMVFS,
    "bind": _BIND,
    "sriov_drivers_autoprobe": {
        errno.EINVAL: ErrnoMeaning("not-a-boolean", "the kernel takes 0 or 1 here", "write 0 or 1"),
    },
    "unbind": {
        errno.ENODEV: ErrnoMeaning("not-bound", "the device is not bound to this driver", "nvmelm secondary list"),
    },
    "drivers_probe": {
        errno.ENODEV: ErrnoMeaning("no-such-device", "no PCI device has that address", "nvmelm secondary list"),
        errno.EINVAL: ErrnoMeaning("probe-refused", "the driver refused the device", "nvmelm host check"),
    },
    "driver_override": {
        errno.EINVAL: ErrnoMeaning(
            "too-long", "a driver's name is shorter than a page", "name a driver of this kernel"
        ),
    },
    "reset": {
        errno.EINVAL: ErrnoMeaning("not-one", "the kernel takes only 1 here", "write 1"),
        errno.ENOTTY: ErrnoMeaning(
            "no-reset-method", "no reset method works for this function", "read reset_method of {device}"
        ),
        errno.EAGAIN: ErrnoMeaning("in-use", "another reset or driver holds the function", "try again"),
    },
    "reset_method": {
        errno.EINVAL: ErrnoMeaning(
            "no-such-method", "the function does not support that method, or it has no such name", "write default"
        ),
    },
    "new_id": {
        errno.EEXIST: ErrnoMeaning("known-id", "the driver knows this id already", "nothing to do"),
        errno.EINVAL: ErrnoMeaning("not-an-id", "the kernel takes two hexadecimal numbers here", "write VENDOR DEVICE"),
    },
    "remove_id": {errno.ENODEV: ErrnoMeaning("unknown-id", "the driver was never given this id", "nothing to do")},
}

_MISSING = {
    "sriov_numvfs": ErrnoMeaning(
        "no-sriov",
        "the device has no SR-IOV capability, or the kernel was built without CONFIG_PCI_IOV",
        "nvmelm list shows the devices that have it",
    ),
    "sriov_drivers_autoprobe": ErrnoMeaning(
        "no-sriov", "the device has no SR-IOV capability", "nvmelm list shows the devices that have it"
    ),
    "bind": ErrnoMeaning("driver-not-loaded", "the driver is not loaded", "load it with modprobe"),
    "reset": ErrnoMeaning(
        "no-reset-method", "no reset method works for this function", "read reset_method of {device}"
    ),
}


def write_refused(path: str, value: str, error: OSError, *, root: str = "/sys") -> HostError:
    """Return the error that says what a refused write means for this attribute.

    Every implementation of :class:`~nvmelm.host.Sysfs` uses it, so that a refusal reads the same on a real and
    on an emulated host.

    Args:
        path: relative to sysfs.
        value: what was to be written.
        error: the kernel's answer to the *write*; use :func:`open_refused` when the file could not even be opened.
    """
    meaning = _MEANINGS.get(PurePosixPath(path).name, {}).get(error.errno or 0)
    what = f"cannot write {value!r}"
    if meaning is None:
        return host_error(what, f"{root}/{path}", error)
    number = error.errno or 0
    return HostError(
        f"{what}: {root}/{path}: {os.strerror(number)}",
        path=f"{root}/{path}",
        errno=number,
        cause=meaning.cause,
        fix=_fill(meaning.fix, path, value),
        reason=meaning.reason,
    )


def open_refused(what: str, path: str, error: OSError, *, root: str = "/sys") -> HostError:
    """Return the error for an attribute that cannot be opened or read.

    Args:
        what: the operation, as a clause: ``cannot read``.
        path: relative to sysfs.
    """
    raised = host_error(what, f"{root}/{path}", error)
    meaning = _MISSING.get(PurePosixPath(path).name)
    if error.errno == errno.ENOENT and meaning is not None:
        raised.reason, raised.cause, raised.fix = meaning.reason, meaning.cause, _fill(meaning.fix, path, "")
    elif error.errno == errno.ENOENT:
        raised.reason = "no-such-attribute"
        raised.cause = "the device, or this attribute of it, is not there"
        raised.fix = "nvmelm list"
    return raised


def _fill(template: str, path: str, value: str) -> str:
    """Put the attribute's device and the written value into a fix; anything but a plain word stays out of it."""
    device = PurePosixPath(path).parent.name
    plain = value if value and all(char.isalnum() or char in ":._-" for char in value) else "DEVICE"
    return template.format(device=device, value=plain)


class DirectorySysfs:
    """The :class:`~nvmelm.host.Sysfs` of a directory.

    Args:
        root: ``/sys``, or a scratch directory of the same shape.
    """

    def __init__(self, root: Path = Path("/sys")) -> None:
        self._root = root
        self._prefix = str(root)
        self._udev: Any = None

    def read(self, path: str) -> str:
        r"""Return an attribute's text; bytes that are not UTF-8 read as ``\xNN``.

        Reading ``sriov_numvfs`` takes the device's lock: it waits for a write of it that is under way.

        Raises:
            HostError: the kernel refuses; the reason says what that means for this attribute.
        """
        full = self._below(path)
        try:
            descriptor = os.open(full, os.O_RDONLY | os.O_CLOEXEC)
            try:
                raw = os.read(descriptor, _READ_BYTES)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise open_refused("cannot read", path, error, root=self._prefix) from error
        return raw.decode("utf-8", "backslashreplace").removesuffix("\n")

    def write(self, path: str, value: str) -> None:
        """Write an attribute in one system call; each write to sysfs is one request to the kernel.

        The file is neither created nor truncated, so a path that does not exist never comes into being. Nothing is
        written by a zero-length write, which the kernel would report as success: refused here.

        Raises:
            HostError: the kernel refuses, with its errno and what that means for this attribute; an empty value; a
                write that was taken in part.
        """
        full = self._below(path)
        if not value:
            raise HostError(
                f"cannot write nothing: {full}",
                path=full,
                errno=errno.EINVAL,
                cause="the kernel takes a write of no bytes as success and changes nothing",
                fix="write a newline to clear an attribute",
                reason="empty-write",
            )
        raw = value.encode()
        try:
            descriptor = os.open(full, os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise open_refused(f"cannot write {value!r}", path, error, root=self._prefix) from error
        try:
            written = os.write(descriptor, raw)
        except OSError as error:
            raise write_refused(path, value, error, root=self._prefix) from error
        finally:
            os.close(descriptor)
        if written != len(raw):
            raise HostError(
                f"the kernel took {written} of {len(raw)} bytes: {full}",
                path=full,
                cause="the attribute reads its value in one piece",
                fix="dmesg may tell more",
                reason="short-write",
            )

    def readlink(self, path: str) -> str | None:
        try:
            return os.readlink(self._below(path))  # noqa: PTH115  # asked hundreds of times; a Path costs more
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):  # EINVAL: it is there, and is no link
                return None
            raise open_refused("cannot read the link", path, error, root=self._prefix) from error

    def listdir(self, path: str) -> list[str]:
        try:
            with os.scandir(self._below(path)) as entries:
                return sorted(entry.name for entry in entries)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return []
            raise open_refused("cannot list", path, error, root=self._prefix) from error

    def exists(self, path: str) -> bool:
        try:
            os.stat(self._below(path))  # noqa: PTH116  # as above
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV):
                return False
            raise open_refused("cannot look at", path, error, root=self._prefix) from error
        return True

    def inode(self, path: str) -> int:
        try:
            return os.stat(self._below(path)).st_ino  # noqa: PTH116  # as above
        except OSError as error:
            raise open_refused("cannot look at", path, error, root=self._prefix) from error

    def devices(self, subsystem: str) -> list[str]:
        """Return the sorted kernel names of a subsystem's devices, from udev.

        Below a scratch root, and on a system without libudev, from the directories that udev would look into.
        """
        self._below(subsystem)
        if self._prefix == "/sys" and self._udev is None:
            with contextlib.suppress(ImportError):  # of pyudev, or by it: there is no libudev.so.1 (musl, containers)
                import pyudev  # 20 ms; reads and writes by path go without it

                self._udev = pyudev.Context()
        if self._udev is None:
            return self.listdir(f"class/{subsystem}") or self.listdir(f"bus/{subsystem}/devices")
        return sorted(device.sys_name for device in self._udev.list_devices(subsystem=subsystem))

    def _below(self, path: str) -> str:
        """Return a path's place below the root.

        Raises:
            MalformedError: it is absolute, or climbs with ``..``; names that come from a device or a file may try.
        """
        if not path or path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise MalformedError(
                f"not a path below {self._prefix}: {path!r}", cause="it is empty, absolute, or climbs with '..'"
            )
        return f"{self._prefix}/{path}"
