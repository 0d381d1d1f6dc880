"""Which functions of this host are answered for: VFs whose controlling function saves and restores states.

A function is found from the address that its VM opened: its PF, and there the secondary controller behind the VF.
Marks are asked when the VMM asks, so one that is given while the VM runs counts for the next look.
"""

from __future__ import annotations

from nvmelm.errors import NvmelmError, UsageError
from nvmelm.host import Host
from nvmelm.host.local.processes import start_of
from nvmelm.inventory import pci
from nvmelm.inventory.find import find_primary, opened
from nvmelm.inventory.read import read_picture
from nvmelm.inventory.vm_moves import Held, Moves
from nvmelm.vfio.function import ControlledFunction
from nvmelm.vfio.habits import Habits
from nvmelm.vfio.options import Options
from nvmelm.vfio.seam import DeviceState, Function, Opening


class HostFunctions:
    """The functions of one host; see :class:`nvmelm.vfio.seam.Functions`."""

    def __init__(self, host: Host, options: Options | None = None) -> None:
        self._host = host
        self._options = options or Options()
        self._habits = Habits(host)

    def open(self, opening: Opening) -> Function | None:
        """Return the function a VMM has opened; None when it is no VF of a PF that saves and restores states.

        Raises:
            NvmelmError: the controlling function could not be asked.
        """
        try:
            address = pci.Bdf.parse(opening.address)
            parent = pci.physical_function(self._host.sysfs, address)
            ref = find_primary(self._host, str(parent)) if parent is not None else None
        except UsageError:
            return None
        if ref is None:
            return None
        with opened(self._host, ref) as queue:
            picture = read_picture(self._host, queue, ref, users=False)
        secondary = next((candidate for candidate in picture.secondaries if candidate.address == str(address)), None)
        if secondary is None or not picture.primary.live_migration:
            return None
        held = self._recorded(opening) if opening.reopened else None
        return ControlledFunction(
            host=self._host,
            ref=ref,
            opening=opening,
            record=held
            or Held(
                address=str(address),
                primary=str(ref.address),
                cntlid=secondary.cntlid,
                incarnation=secondary.incarnation,
                boot=self._host.facts().boot_id,
                pid=opening.pid,
                start=start_of(opening.pid),
                vm=opening.vm,
                state=DeviceState.RUNNING.name,
            ),
            options=self._options,
            habits=self._habits,
        )

    def _recorded(self, opening: Opening) -> Held | None:
        """Return what was recorded of a function that the same process has open still."""
        held = Moves(self._host).held(opening.address)
        if held is None or (held.pid, held.start) != (opening.pid, start_of(opening.pid)):
            raise NvmelmError(
                f"nothing is known of {opening.address}, which {opening.vm} has open",
                cause="the interposer began anew, and its records are gone or speak of another process",
                fix="restart the VM under nvmelm vm run",
                reason="vm-unknown",
            )
        return held
