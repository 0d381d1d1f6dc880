"""Whether a controller has I/O queues, as its state says: only somebody's driver makes them."""

from __future__ import annotations

from collections.abc import Sequence

from nvmelm.commands import AdminCommandError
from nvmelm.errors import BusyError
from nvmelm.inventory import state_reader
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import Primary, Secondary
from nvmelm.inventory.state_reader import StateReader
from nvmelm.wire.migration import KNOWN_VERSION, ControllerStateHeader, NvmeStateHeader


def require_none(pf: OpenPrimary, primary: Primary, controllers: Sequence[Secondary]) -> None:
    """Refuse targets that run for somebody, whatever their marks say.

    A controller that was just brought online has no I/O queues; neither has one that waits in a VMM for its state. Two
    short reads each; nothing is changed. A device that does not tell is not held against it: the marks speak, too.

    Raises:
        BusyError: one has I/O queues.
    """
    versions = min(len(state_reader.formats_of(primary).versions), 1)
    for controller in controllers:
        if _runs(StateReader(pf.queue, controller.cntlid, versions, 0)):
            raise BusyError(
                f"controller {controller.cntlid:#06x} has I/O queues: it runs for somebody",
                cause="a state that is set there would destroy what runs; its mark should not be there",
                fix=f"nvmelm secondary revoke {primary.node} {controller.cntlid:#06x}; then name another destination",
                reason="target-runs",
            )


def has_any(reader: StateReader, header: ControllerStateHeader) -> bool | None:
    """Return whether a controller has I/O queues; None when its state does not tell.

    Args:
        header: of its state, as the reader gives it.

    Raises:
        AdminCommandError: the device refused to tell.
    """
    if not reader.version_index or header.nvme_bytes < NvmeStateHeader.size:
        return None
    queues = NvmeStateHeader(reader.receive(ControllerStateHeader.size, NvmeStateHeader.size))
    return bool(queues.niosq or queues.niocq) if queues.ver == KNOWN_VERSION else None


def _runs(reader: StateReader) -> bool:
    try:
        return has_any(reader, reader.header()) is True
    except AdminCommandError:
        return False
