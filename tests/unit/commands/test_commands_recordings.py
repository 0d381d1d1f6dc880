"""Every recorded command is what our builder makes, word for word and byte for byte."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nvmelm.commands import identify, migration, tracking, virtualization
from nvmelm.host import AdminCommand
from nvmelm.wire.extents import Extent
from nvmelm.wire.opcodes import ResourceType, Sequence, SuspendType
from nvmelm.wire.tracking import TrackMemoryChanges
from tests.unit import golden
from tests.unit.golden import Exchange

VQ, VI = ResourceType.VQ, ResourceType.VI
RANGES = TrackMemoryChanges(0, (Extent(4096, 8192),))


def get(cntlid: int, offset: int, length: int, version_index: int = 1) -> AdminCommand:
    return migration.get_state(cntlid, offset=offset, length=length, version_index=version_index)


def put(cntlid: int, state: bytes, sequence: Sequence = Sequence.ONLY, version_index: int = 1) -> AdminCommand:
    return migration.set_state(cntlid, state, offset=0, sequence=sequence, version_index=version_index)


def session(state: bytes) -> list[Callable[[], AdminCommand]]:
    """Return what was sent, in order, for a controller whose state is these bytes."""
    whole, half = len(state), len(state) // 2
    return [
        identify.controller,
        identify.controllers,
        identify.primary_capabilities,
        identify.secondary_controllers,
        identify.state_formats,
        identify.nvm_controller,
        identify.effects_log,
        lambda: virtualization.online(1),
        lambda: virtualization.assign(1, VQ, 3),
        lambda: virtualization.assign(1, VI, 2),
        lambda: virtualization.assign(2, VQ, 9),
        lambda: virtualization.assign(99, VQ, 2),
        identify.controllers,
        identify.secondary_controllers,
        lambda: virtualization.online(1),
        lambda: virtualization.assign(1, VQ, 2),
        lambda: virtualization.assign(2, VQ, 3),
        lambda: virtualization.assign(2, VI, 2),
        lambda: virtualization.online(2),
        identify.secondary_controllers,
        identify.primary_capabilities,
        lambda: get(1, 0, 48),
        lambda: migration.resume(1),
        lambda: migration.suspend(1, SuspendType.SUSPEND_NOTIFICATION),
        lambda: migration.suspend(1),
        lambda: migration.suspend(1),
        lambda: get(1, 0, 48),
        lambda: get(1, 0, whole),
        lambda: get(1, 0, half),
        lambda: get(1, half, half),
        lambda: get(1, whole, 16),
        lambda: get(1, 0, 48, version_index=7),
        lambda: get(77, 0, 48),
        lambda: get(1, 0, 48, version_index=0),
        lambda: put(1, state),
        lambda: put(2, state, Sequence.FIRST),
        lambda: put(2, state, version_index=0),
        lambda: migration.suspend(2),
        lambda: put(2, state),
        lambda: get(2, 0, whole),
        lambda: migration.resume(1),
        lambda: tracking.start_user_data_log(5),
        lambda: tracking.start_memory_tracking(1, RANGES.pack()),
        lambda: tracking.tracked_memory(1, 16),
        lambda: virtualization.offline(2),
        identify.secondary_controllers,
    ]


def sent() -> list[object]:
    cases = []
    for name in golden.RECORDINGS:
        exchanges = golden.recording(name)
        state = exchanges[38].data_out
        assert state is not None
        for exchange, build in zip(exchanges, session(state), strict=True):
            cases.append(pytest.param(exchange, build, id=f"{name}: {exchange.about}"))
    return cases


@pytest.mark.parametrize(("exchange", "build"), sent())
def test_our_command_is_the_recorded_one(exchange: Exchange, build: Callable[[], AdminCommand]) -> None:
    command = build()
    assert (command.opcode, command.nsid, command.words) == (exchange.opcode, exchange.nsid, exchange.words)
    assert (command.data_out, command.data_length) == (exchange.data_out, exchange.data_length)
    assert command.data_in_length == len(exchange.data_in)


def test_the_two_devices_answer_the_same_but_for_live_migration() -> None:
    stock, managing = (golden.recording(name) for name in golden.RECORDINGS)
    refused = [number for number, exchange in enumerate(stock) if exchange.status == 0x4001]
    assert refused == [*range(21, 44)]
    assert {number for number in range(46) if stock[number].status != managing[number].status} <= {4, *refused}


def test_assignments_report_how_many_they_gave() -> None:
    exchanges = golden.recording("tp4159-controller")
    assert [exchanges[number].result for number in (8, 9, 16, 17)] == [3, 2, 3, 2]
