"""Identify structures: real controllers read as what they are, and nonsense is refused."""

from __future__ import annotations

import contextlib
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.errors import MalformedError
from nvmelm.wire.formats import EffectsLog, SupportedStateFormats, parse_uuid_list
from nvmelm.wire.identify import (
    IdentifyController,
    IdentifyControllerNvm,
    IdentifyNamespace,
    PrimaryControllerCapabilities,
    SecondaryControllerEntry,
    build_controller_list,
    build_namespace_list,
    build_secondary_list,
    parse_controller_list,
    parse_namespace_list,
    parse_secondary_list,
)
from tests.unit import golden

UUID = uuid.UUID("a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf")


def answer(recording: str, number: int) -> bytes:
    return golden.recording(recording)[number].data_in


def test_a_controller_without_live_migration() -> None:
    controller = IdentifyController(answer("stock-qemu-7.2", 0))
    assert (controller.vid, controller.ssvid) == (0x1B36, 0x1AF4)
    assert (controller.sn, controller.mn, controller.fr) == ("LAB000a", "QEMU NVMe Ctrl", "7.2.22")
    assert (controller.version, controller.mdts, controller.cntrltype) == ((1, 4, 0), 7, 1)
    assert (controller.oacs, controller.cmic, controller.ctratt) == (0x010A, 2, 0x8000)
    assert (controller.sqes, controller.cqes, controller.nn) == (0x66, 0x44, 256)
    assert controller.subnqn == "nqn.2019-08.org.qemu:nqn.2026-11.lab:a"
    assert not controller.host_managed_live_migration
    assert not controller.virtualization_management
    assert controller.namespace_management


def test_a_controller_that_manages_live_migration() -> None:
    controller = IdentifyController(answer("tp4159-controller", 0))
    assert controller.host_managed_live_migration
    assert controller.virtualization_management
    assert (controller.fr, controller.oacs, controller.hmpre) == ("9.2.50", 0x0AAA, 0)
    assert (controller.trattr, controller.mcmr, controller.mcudmq) == (0b010, 1, 0)
    assert (controller.tracks_host_memory, controller.logs_user_data) == (False, True)


def test_the_nvm_command_set_structure() -> None:
    nvm = IdentifyControllerNvm(answer("tp4159-controller", 5))
    assert (nvm.vsl, nvm.dmrl, nvm.dmrsl, nvm.ver, nvm.lbamqf) == (7, 0xFF, 0x003FFFFF, 0, 0)


@pytest.mark.parametrize("name", golden.RECORDINGS)
@pytest.mark.parametrize(("number", "assigned"), [(2, (0, 0)), (20, (6, 4))], ids=["nothing", "two-secondaries"])
def test_primary_capabilities(name: str, number: int, assigned: tuple[int, int]) -> None:
    caps = PrimaryControllerCapabilities(answer(name, number))
    assert (caps.cntlid, caps.supports_vq, caps.supports_vi) == (0, True, True)
    assert (caps.vqfrt, caps.vqrfap, caps.vqprt, caps.vqfrsm, caps.vqgran) == (12, 0, 5, 3, 1)
    assert (caps.vifrt, caps.virfap, caps.viprt, caps.vifrsm, caps.vigran) == (8, 0, 9, 2, 1)
    assert (caps.vqrfa, caps.virfa) == assigned


@pytest.mark.parametrize("name", golden.RECORDINGS)
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        pytest.param(3, [(1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 0, 0)], id="vfs-disabled"),
        pytest.param(13, [(1, 3, 2), (2, 0, 0), (3, 0, 0), (4, 0, 0)], id="assigned"),
        pytest.param(19, [(1, 3, 2), (2, 3, 2), (3, 0, 0), (4, 0, 0)], id="online"),
        pytest.param(45, [(1, 3, 2), (2, 0, 0), (3, 0, 0), (4, 0, 0)], id="offline-again"),
    ],
)
def test_secondary_list(name: str, number: int, expected: list[tuple[int, int, int]]) -> None:
    entries = parse_secondary_list(answer(name, number))
    assert [(entry.vfn, entry.nvq, entry.nvi) for entry in entries] == expected
    assert [(entry.scid, entry.pcid) for entry in entries] == [(1, 0), (2, 0), (3, 0), (4, 0)]
    assert [entry.online for entry in entries] == [number >= 19, number == 19, False, False]


def test_the_golden_secondary_list_both_ways() -> None:
    raw = golden.data("secondary_ctrl_list_2_first96bytes").ljust(4096, b"\0")
    entries = parse_secondary_list(raw)
    assert [(e.scid, e.pcid, e.scs, e.vfn, e.nvq, e.nvi) for e in entries] == [(1, 0, 1, 1, 2, 1), (2, 0, 0, 2, 0, 0)]
    packed = [
        SecondaryControllerEntry.pack(scid=1, scs=1, vfn=1, nvq=2, nvi=1),
        SecondaryControllerEntry.pack(scid=2, vfn=2),
    ]
    assert build_secondary_list(packed) == raw


def test_an_unknown_secondary_state_survives_as_a_number() -> None:
    entry = SecondaryControllerEntry(SecondaryControllerEntry.pack(scs=0x04))
    assert (entry.scs, entry.online) == (0x04, False)
    assert SecondaryControllerEntry(SecondaryControllerEntry.pack(scs=0x05)).online


def test_a_full_secondary_list_holds_127_entries() -> None:
    packed = [SecondaryControllerEntry.pack(scid=scid) for scid in range(127)]
    assert [entry.scid for entry in parse_secondary_list(build_secondary_list(packed))] == list(range(127))
    with pytest.raises(ValueError, match="127"):
        build_secondary_list([*packed, packed[0]])
    with pytest.raises(ValueError, match="32 bytes"):
        build_secondary_list([b"short"])


@pytest.mark.parametrize("count", [128, 255])
def test_more_secondaries_than_a_list_holds_are_refused(count: int) -> None:
    with pytest.raises(MalformedError, match=str(count)):
        parse_secondary_list(bytes([count]).ljust(4096, b"\0"))


@pytest.mark.parametrize("name", golden.RECORDINGS)
def test_controller_lists_of_real_subsystems(name: str) -> None:
    assert parse_controller_list(answer(name, 1)) == [0]
    assert parse_controller_list(answer(name, 12)) == [0, 1, 2]


def test_controller_lists_both_ways() -> None:
    assert build_controller_list([1, 0x102])[:8] == bytes.fromhex("0200 0100 0201 0000")
    ids = list(range(2047))
    assert parse_controller_list(build_controller_list(ids)) == ids
    for wrong in (range(2048), [0x10000], [-1]):
        with pytest.raises(ValueError, match=r"fit|holds"):
            build_controller_list(wrong)


def test_more_controllers_than_a_list_holds_are_refused() -> None:
    with pytest.raises(MalformedError, match="2048 controllers"):
        parse_controller_list(b"\x00\x08".ljust(4096, b"\0"))
    with pytest.raises(MalformedError, match="announces 3 ids"):
        parse_controller_list(b"\x03\x00\x01\x00")


def test_namespace_lists_both_ways() -> None:
    assert build_namespace_list([1, 0x102])[:12] == bytes.fromhex("01000000 02010000 00000000")
    ids = list(range(1, 1025))
    assert parse_namespace_list(build_namespace_list(ids)) == ids
    for wrong in (range(1, 1026), [0], [1 << 32]):
        with pytest.raises(ValueError, match=r"holds|between"):
            build_namespace_list(wrong)


def test_state_formats_of_a_real_controller() -> None:
    formats = SupportedStateFormats.parse(answer("tp4159-controller", 4))
    assert (formats.versions, formats.uuids) == ((0,), ())


def test_the_golden_state_formats_both_ways() -> None:
    raw = golden.data("supported_ctrl_state_formats_nv1_nuuid1_first20bytes")
    assert SupportedStateFormats.parse(raw) == SupportedStateFormats((0,), (UUID,))
    assert SupportedStateFormats((0,), (UUID,)).pack() == raw.ljust(4096, b"\0")


def test_format_indexes_count_from_one_and_unknown_versions_survive() -> None:
    formats = SupportedStateFormats.parse(SupportedStateFormats((0, 1, 0xBEEF), (UUID,)).pack())
    assert formats.versions == (0, 1, 0xBEEF)
    assert [formats.version_index(version) for version in (0, 1, 0xBEEF, 2)] == [1, 2, 3, None]
    assert [formats.uuid_index(value) for value in (UUID, uuid.UUID(int=1))] == [1, None]


def test_format_lists_longer_than_the_structure_are_refused() -> None:
    with pytest.raises(MalformedError, match="255 versions and 255 UUIDs"):
        SupportedStateFormats.parse(b"\xff\xff".ljust(4096, b"\0"))
    with pytest.raises(ValueError, match="structure has 4096"):
        SupportedStateFormats(tuple(range(255)), (UUID,) * 255).pack()
    with pytest.raises(ValueError, match="16 bits"):
        SupportedStateFormats((0x10000,)).pack()


def test_uuid_lists_end_at_the_first_zero() -> None:
    raw = bytes(32) + b"\x02".ljust(16, b"\0") + UUID.bytes + bytes(4096 - 64)
    entries = parse_uuid_list(raw)
    assert [(entry.association, entry.uuid) for entry in entries] == [(2, UUID)]


def test_effects_of_a_controller_without_live_migration() -> None:
    log = EffectsLog(answer("stock-qemu-7.2", 6))
    assert [opcode for opcode in (0x1C, 0x3D, 0x3E, 0x41, 0x42, 0x45) if log.admin(opcode).csupp] == [0x1C]
    attachment = log.admin(0x15)
    assert (attachment.csupp, attachment.nic, attachment.ccc, attachment.uss) == (True, True, False, False)


def test_effects_of_a_controller_with_live_migration() -> None:
    log = EffectsLog(answer("tp4159-controller", 6))
    assert all(log.admin(opcode).csupp for opcode in (0x1C, 0x3D, 0x3E, 0x41, 0x42, 0x45))
    assert log.admin(0x15).ccc
    assert log.io(0x01).lbcc
    with pytest.raises(ValueError, match="8 bits"):
        log.admin(0x100)


def test_effects_bits() -> None:
    raw = bytearray(4096)
    raw[4 * 0x41 : 4 * 0x41 + 4] = (1 | 0b10 << 14 | 0b101 << 16 | 1 << 19 | 0x020 << 20).to_bytes(4, "little")
    effects = EffectsLog(raw).admin(0x41)
    assert (effects.csupp, effects.lbcc, effects.ncc, effects.nic, effects.ccc) == (True, False, False, False, False)
    assert (effects.cser, effects.cse, effects.uss, effects.scope) == (2, 5, True, 0x020)


def test_block_sizes_of_namespaces() -> None:
    formats = bytearray(256)
    formats[4 * 1 + 2] = 12
    formats[4 * 17 + 2] = 9
    formats[4 * 2 + 2] = 64
    sizes = [IdentifyNamespace(IdentifyNamespace.pack(flbas=flbas, lbaf=formats)) for flbas in (1, 0b0010_0001, 0, 2)]
    assert [namespace.block_bytes for namespace in sizes[:3]] == [4096, 512, 0]
    with pytest.raises(MalformedError, match=r"2\^64"):
        assert sizes[3].block_bytes


PARSERS = [
    parse_secondary_list,
    parse_controller_list,
    parse_namespace_list,
    parse_uuid_list,
    SupportedStateFormats.parse,
    EffectsLog,
    IdentifyController,
]


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__qualname__)
@given(raw=st.binary(max_size=200), padded=st.booleans())
def test_any_bytes_are_a_value_or_malformed(parse: object, raw: bytes, padded: bool) -> None:
    with contextlib.suppress(MalformedError):
        parse(raw.ljust(4096, b"\xa5") if padded else raw)


@given(st.lists(st.integers(0, 0xFFFF), max_size=40), st.lists(st.uuids(), max_size=40))
def test_state_formats_survive_packing(versions: list[int], uuids: list[uuid.UUID]) -> None:
    formats = SupportedStateFormats(tuple(versions), tuple(uuids))
    assert SupportedStateFormats.parse(formats.pack()) == formats
