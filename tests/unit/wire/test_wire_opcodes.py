"""Every constant of the reference is in our enumerations, and no number has two names."""

from __future__ import annotations

import inspect
from enum import IntEnum

import pytest

from nvmelm.wire import opcodes, tracking
from nvmelm.wire.opcodes import (
    Cns,
    DataQueueSelect,
    DataQueueType,
    FeatureId,
    MigrationReceiveSelect,
    MigrationSendSelect,
    Opcode,
    ResourceType,
    Sequence,
    SuspendType,
    TrackAction,
    TrackReceiveSelect,
    TrackSendSelect,
    VirtualizationAction,
)
from nvmelm.wire.status import StatusCode
from nvmelm.wire.tracking import EntryMarker, RangeScope
from tests.unit import golden

GROUPS: list[tuple[tuple[str, ...], type[IntEnum]]] = [
    (("opcode",), Opcode),
    (("cns",), Cns),
    (("fid",), FeatureId),
    (("virt_mgmt", "act"), VirtualizationAction),
    (("virt_mgmt", "rt"), ResourceType),
    (("migration_send", "sel"), MigrationSendSelect),
    (("migration_send", "stype"), SuspendType),
    (("migration_send", "seqind"), Sequence),
    (("migration_receive", "sel"), MigrationReceiveSelect),
    (("track_send", "sel"), TrackSendSelect),
    (("track_send", "lact"), TrackAction),
    (("track_send", "tact"), TrackAction),
    (("track_receive", "sel"), TrackReceiveSelect),
    (("cdq", "sel"), DataQueueSelect),
    (("cdq", "qt"), DataQueueType),
    (("status",), StatusCode),
    (("lbamq_esa",), EntryMarker),
    (("lbamq_lbacir",), RangeScope),
]

#: Checked elsewhere: numbers of the transport, and bit ranges that the parsers prove.
ELSEWHERE = {"ioctl", "status_bits", "lbamq_type0_lbamqa_bits"}


@pytest.mark.parametrize(("path", "kind"), GROUPS, ids=["/".join(path) for path, _ in GROUPS])
def test_constants_are_the_reference_s(path: tuple[str, ...], kind: type[IntEnum]) -> None:
    expected = {name.upper(): value for name, value in golden.constants(*path).items()}
    ours = {member.name: member.value for member in kind}
    assert {name: ours.get(name) for name in expected} == expected


def test_no_group_of_constants_is_forgotten() -> None:
    assert set(golden.constants()) == {path[0] for path, _ in GROUPS} | ELSEWHERE


@pytest.mark.parametrize("module", [opcodes, tracking], ids=["opcodes", "tracking"])
def test_no_number_has_two_names(module: object) -> None:
    for _, kind in inspect.getmembers(module, lambda value: isinstance(value, type) and issubclass(value, IntEnum)):
        # An alias of an enumeration is in __members__ and not in its iteration.
        assert len(kind.__members__) == len(list(kind)), kind


def test_bits_of_the_queue_entry_are_the_reference_s() -> None:
    bits = golden.constants("lbamq_type0_lbamqa_bits")
    entry = tracking.MigrationQueueEntry(
        tracking.MigrationQueueEntry.pack(
            lbamqa=1 << bits["cdqp"][0] | 5 << bits["esa"][0] | 1 << bits["dlba"][0] | 2 << bits["lbacir"][0]
        )
    )
    assert (entry.phase, entry.marker, entry.deallocated, entry.scope) == (1, 5, True, 2)
