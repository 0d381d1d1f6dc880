"""Which functions move with a VM: by what the agent writes down, and whether the VMs' processes are still there."""

from __future__ import annotations

from nvmelm.host import Host
from nvmelm.inventory.vm_moves import Held, Moves
from nvmelm.watch.stamps import Stamps


class VmLooks:
    """What is known of the VMs under the agent.

    Attributes:
        held: the functions that they have open, by address.
    """

    def __init__(self, host: Host) -> None:
        self._moves = Moves(host)
        self._stamps = Stamps()
        self._written: list[Held] = []
        self.held: tuple[Held, ...] = ()

    def changed(self) -> bool:
        """Return whether something was written since it was asked last, or a VM has ended; asked every second.

        Raises:
            HostError: the records cannot be read.
        """
        written = self._stamps.changed("records", self._moves.files())
        if written:
            self._written = self._moves.all_held()
        before, self.held = self.held, tuple(held for held in self._written if held.lives)
        return written or before != self.held
