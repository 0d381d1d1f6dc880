"""The arcs of VFIO's migration protocol, against the kernel's own table."""

from __future__ import annotations

import pytest

from nvmelm.vfio.arcs import SETTABLE, next_state, way
from nvmelm.vfio.seam import DeviceState

#: ``vfio_from_fsm_table`` of Linux 6.1, of a device with STOP_COPY and P2P: from a state, the next for each wanted one.
_ORDER = ("STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P")
_KERNEL = {
    "STOP": ("STOP", "RUNNING_P2P", "STOP_COPY", "RESUMING", "RUNNING_P2P"),
    "RUNNING": ("RUNNING_P2P", "RUNNING", "RUNNING_P2P", "RUNNING_P2P", "RUNNING_P2P"),
    "STOP_COPY": ("STOP", "STOP", "STOP_COPY", "STOP", "STOP"),
    "RESUMING": ("STOP", "STOP", "STOP", "RESUMING", "STOP"),
    "RUNNING_P2P": ("STOP", "RUNNING", "STOP", "STOP", "RUNNING_P2P"),
}


@pytest.mark.parametrize(
    ("state", "wanted", "following"),
    [(state, wanted, row[number]) for state, row in _KERNEL.items() for number, wanted in enumerate(_ORDER)],
)
def test_every_arc_is_made_of_the_single_ones_the_kernel_would_take(state: str, wanted: str, following: str) -> None:
    if state != wanted:
        assert next_state(DeviceState[state], DeviceState[wanted]) is DeviceState[following]
    steps = [first for first, _ in way(DeviceState[state], DeviceState[wanted])]
    assert len(steps) == len(set(steps)) <= 4


@pytest.mark.parametrize("state", sorted(SETTABLE))
def test_a_repeated_request_takes_no_arc(state: DeviceState) -> None:
    assert list(way(state, state)) == []


@pytest.mark.parametrize("state", sorted(SETTABLE))
@pytest.mark.parametrize("wanted", [DeviceState.ERROR, DeviceState.PRE_COPY, DeviceState.PRE_COPY_P2P])
def test_what_is_not_offered_is_refused(state: DeviceState, wanted: DeviceState) -> None:
    with pytest.raises(ValueError, match="no arc leads"):
        list(way(state, wanted))


@pytest.mark.parametrize("wanted", sorted(SETTABLE))
def test_only_a_reset_leads_out_of_error(wanted: DeviceState) -> None:
    with pytest.raises(ValueError, match="no arc leads"):
        list(way(DeviceState.ERROR, wanted))
