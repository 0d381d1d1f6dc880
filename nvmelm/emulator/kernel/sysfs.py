"""The emulated host's :class:`~nvmelm.host.Sysfs`."""

from __future__ import annotations

import errno
import posixpath
import time

from nvmelm.emulator.kernel import functions
from nvmelm.emulator.kernel.drivers import Blocks, refuse
from nvmelm.emulator.kernel.tree import inode, look
from nvmelm.emulator.machine import faults
from nvmelm.emulator.machine.machine import Machine
from nvmelm.emulator.machine.nodes import Attribute, Directory, SymbolicLink
from nvmelm.errors import HostError, MalformedError
from nvmelm.host.local.sysfs import open_refused, write_refused

_POLL_S = 0.005


class EmulatedSysfs:
    """Sysfs over the emulated host's state; errors read as they do on a real host."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def read(self, path: str) -> str:
        with self._machine.view():
            try:
                entry = look(self._machine, _checked(path))
                if entry is None:
                    raise refuse(errno.ENOENT)
                if not isinstance(entry.node, Attribute):
                    raise refuse(errno.EISDIR)
                if entry.node.read is None:
                    raise refuse(errno.EACCES)
                return entry.node.read()
            except OSError as error:
                raise open_refused("cannot read", path, error) from error

    def write(self, path: str, value: str) -> None:
        """Write an attribute; waits where the kernel waits, until a VM lets go of a function."""
        _checked(path)
        if not value:
            raise HostError(
                f"cannot write nothing: /sys/{path}",
                path=f"/sys/{path}",
                errno=errno.EINVAL,
                cause="the kernel takes a write of no bytes as success and changes nothing",
                fix="write a newline to clear an attribute",
                reason="empty-write",
            )
        after = faults.before_write(self._machine, path, value)
        if after == "silent":
            return
        while not self._try_to_write(path, value):
            time.sleep(_POLL_S)
        if after is not None:
            faults.crash(after)

    def _try_to_write(self, path: str, value: str) -> bool:
        """Write, or return False when a process has to let go of a function first; it is asked to."""
        try:
            with self._machine.change():
                functions.reap(self._machine)
                attribute = self._writable(path, value)
                try:
                    attribute(value)
                except OSError as error:
                    raise write_refused(path, value, error) from error
        except Blocks as blocks:
            with self._machine.change() as state:
                for holder in state["holders"]:
                    holder["release"] = holder["release"] or holder["bdf"] in blocks.held
            return False
        return True

    def _writable(self, path: str, value: str) -> faults.Writer:
        try:
            entry = look(self._machine, path)
            if entry is None:
                raise refuse(errno.ENOENT)
            if not isinstance(entry.node, Attribute):
                raise refuse(errno.EISDIR)
            if entry.node.write is None or not self._machine.state["options"]["privileged"]:
                raise refuse(errno.EACCES)
        except OSError as error:
            raise open_refused(f"cannot write {value!r}", path, error) from error
        return entry.node.write

    def readlink(self, path: str) -> str | None:
        with self._machine.view():
            entry = look(self._machine, _checked(path), follow=False)
        if entry is None or not isinstance(entry.node, SymbolicLink):
            return None
        target = entry.node.target  # the kernel's links are relative to where they lie
        return posixpath.relpath(target, "/" + "/".join(entry.path[:-1])) if target.startswith("/") else target

    def listdir(self, path: str) -> list[str]:
        with self._machine.view():
            entry = look(self._machine, _checked(path))
            return entry.node.names() if entry is not None and isinstance(entry.node, Directory) else []

    def exists(self, path: str) -> bool:
        with self._machine.view():
            return look(self._machine, _checked(path)) is not None

    def inode(self, path: str) -> int:
        with self._machine.view():
            entry = look(self._machine, _checked(path))
            if entry is None:
                raise open_refused("cannot look at", path, refuse(errno.ENOENT))
            return inode(self._machine, entry)

    def devices(self, subsystem: str) -> list[str]:
        _checked(subsystem)
        return self.listdir(f"class/{subsystem}") or self.listdir(f"bus/{subsystem}/devices")


def _checked(path: str) -> str:
    """Return the path.

    Raises:
        MalformedError: it is absolute, or climbs with ``..``, as on a real host.
    """
    if not path or path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise MalformedError(f"not a path below /sys: {path!r}", cause="it is empty, absolute, or climbs with '..'")
    return path
