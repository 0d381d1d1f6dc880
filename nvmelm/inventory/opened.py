"""One controlling function, found, locked and opened: what every verb works on."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from nvmelm.disk import store
from nvmelm.errors import PermissionDeniedError
from nvmelm.host import AdminQueue, Host
from nvmelm.inventory import departed, marks, suspension
from nvmelm.inventory.find import PrimaryRef, find_primary, opened
from nvmelm.inventory.namespaces import with_namespaces
from nvmelm.inventory.picture import Picture
from nvmelm.inventory.read import read_picture


@dataclass(slots=True)
class OpenPrimary:
    """A controlling function a verb may talk to until the ``with`` block that opened it ends."""

    host: Host
    ref: PrimaryRef
    queue: AdminQueue

    @property
    def address(self) -> str:
        """Return the PCI address of the PF."""
        return str(self.ref.address)

    def picture(self, *, users: bool = True, namespaces: Collection[int] = (), states: bool = False) -> Picture:
        """Read the controlling function and all below it, marks included, as they are now.

        Args:
            users: also ask who has each VF in use, and what moves with its VM; this looks through the host's processes.
            namespaces: controllers of which the attached namespaces are read, too; a command for each namespace.
            states: also ask which controllers are suspended, one command each; see :func:`with_states`.
        """
        picture = marks.joined(self.host, read_picture(self.host, self.queue, self.ref, users=users))
        if users and store.names(self.host.state_dir / "vm"):
            from nvmelm.inventory import vm_moves  # few hosts have any

            picture = vm_moves.joined(self.host, picture)
        if namespaces:
            picture = with_namespaces(self.queue, picture, namespaces)
        return self.with_states(picture) if states else picture

    def with_states(self, picture: Picture) -> Picture:
        """Return a picture with which controllers are suspended, and which left; what is for people to see has it."""
        return departed.joined(self.host, suspension.joined(self.host, self.queue, picture))


@contextmanager
def open_primary(host: Host, which: str | PrimaryRef, *, change: bool = False) -> Iterator[OpenPrimary]:
    """Open a controlling function by name, or one found already.

    Args:
        change: hold the function's lock, so that no other nvmelm process changes it or interleaves a transfer.

    Raises:
        UsageError: there is no such function.
        PermissionDeniedError: ``change`` without root.
        BusyError: another nvmelm process holds the lock.
    """
    ref = find_primary(host, which) if isinstance(which, str) else which
    with ExitStack() as stack:
        if change:
            require_privilege(host)
            stack.enter_context(host.lock(str(ref.address)))
        yield OpenPrimary(host, ref, stack.enter_context(opened(host, ref)))


def require_privilege(host: Host) -> None:
    """Refuse early, before anything is changed, what only root may do."""
    if not host.facts().privileged:
        cause = "admin commands need CAP_SYS_ADMIN, and sysfs is writable for root only"
        raise PermissionDeniedError("this verb needs root", errno=1, cause=cause, fix="run it with sudo")
