"""The arcs of VFIO's migration protocol, version 2: which single one is next on the way from a state to another.

What a device has to do is said by the single arcs alone; the kernel makes every other one of them, always in the same
way, and so is it here. A function without pre-copy has these::

    RUNNING <--> RUNNING_P2P <--> STOP <--> STOP_COPY
                                  STOP <--> RESUMING

Source: Linux 6.2 ``drivers/vfio/vfio_main.c``, ``vfio_mig_get_next_state``.
"""

from __future__ import annotations

from collections.abc import Iterator

from nvmelm.vfio.seam import DeviceState

_ERROR, _STOP, _RUNNING, _STOP_COPY, _RESUMING, _P2P = (
    DeviceState.ERROR,
    DeviceState.STOP,
    DeviceState.RUNNING,
    DeviceState.STOP_COPY,
    DeviceState.RESUMING,
    DeviceState.RUNNING_P2P,
)

#: What a function can be asked for; ERROR is entered by a failure alone, and the pre-copy states are not offered.
SETTABLE = frozenset({_STOP, _RUNNING, _STOP_COPY, _RESUMING, _P2P})

#: The single arcs, from each state to those that one step reaches.
SINGLE: dict[DeviceState, frozenset[DeviceState]] = {
    _RUNNING: frozenset({_P2P}),
    _P2P: frozenset({_RUNNING, _STOP}),
    _STOP: frozenset({_P2P, _STOP_COPY, _RESUMING}),
    _STOP_COPY: frozenset({_STOP}),
    _RESUMING: frozenset({_STOP}),
    _ERROR: frozenset(),
}

#: From a state to those no single arc reaches: the next one is always the same.
_BY_WAY_OF: dict[DeviceState, DeviceState] = {
    _RUNNING: _P2P,
    _P2P: _STOP,
    _STOP: _P2P,
    _STOP_COPY: _STOP,
    _RESUMING: _STOP,
}


def next_state(state: DeviceState, wanted: DeviceState) -> DeviceState:
    """Return the next state on the way to another one.

    Raises:
        ValueError: there is no way: out of ERROR only a reset leads, and into it, or into pre-copy, nothing.
    """
    if wanted not in SETTABLE or state not in SETTABLE:
        raise ValueError(f"no arc leads from {state.name} to {wanted.name}")
    return wanted if wanted in SINGLE[state] else _BY_WAY_OF[state]


def way(state: DeviceState, wanted: DeviceState) -> Iterator[tuple[DeviceState, DeviceState]]:
    """Yield the single arcs from a state to another; none when it is there already.

    Raises:
        ValueError: see :func:`next_state`.
    """
    while state != wanted:
        following = next_state(state, wanted)
        yield state, following
        state = following
