"""Layouts and words: declarations that contradict themselves fail, and every declared offset is the reference's."""

from __future__ import annotations

import importlib
import pkgutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nvmelm.wire
from nvmelm.errors import MalformedError
from nvmelm.wire.layout import U8, U16, U32, Layout, Raw, Text, Word
from tests.unit import golden

#: Our structure: its name in the reference, and our names for fields where they differ.
STRUCTURES: dict[str, tuple[str, dict[str, str]]] = {
    "CompletionQueueEntry": ("nvme_cqe", {}),
    "ControllerStateHeader": ("nvme_lm_controller_state_data_header", {}),
    "DataQueueFeature": ("nvme_feat_cdq_get_data_spec", {}),
    "EffectsLog": ("nvme_cmd_effects_log", {}),
    "IdentifyController": ("nvme_id_ctrl", {}),
    "IdentifyControllerNvm": ("nvme_id_ctrl_nvm", {}),
    "IoCompletionQueue": ("nvme_lm_io_completion_queue_data", {}),
    "IoSubmissionQueue": ("nvme_lm_io_submission_queue_data", {}),
    "MemoryRangeTrackingDescriptor": ("nvme_lm_memory_range_tracking_descriptor", {}),
    "MigrationQueueEntry": ("nvme_lba_migration_queue_entry_type0", {}),
    "NvmeStateHeader": ("nvme_lm_nvme_controller_state_data_header", {}),
    "PrimaryControllerCapabilities": ("nvme_primary_ctrl_cap", {}),
    "SecondaryControllerEntry": ("nvme_secondary_ctrl", {}),
    "StateFormatsHeader": ("nvme_supported_ctrl_state_formats", {}),
    "SubmissionQueueEntry": ("nvme_sqe", {}),
    "TrackMemoryChangesHeader": ("nvme_lm_track_memory_changes_data", {}),
    "TrackedMemoryChangedDescriptor": ("nvme_lm_tracked_memory_changed_descriptor", {}),
    "TrackedMemoryChangesHeader": ("nvme_lm_tracked_memory_change_data", {}),
    "UuidListEntry": ("nvme_id_uuid_list_entry", {"value": "uuid"}),
}

#: Of this structure only the head is fixed; the lists behind it are read with their lengths.
HEADS = {"StateFormatsHeader": 2}

#: Not in the reference: typed from the NVM Command Set Specification 1.2, "Identify Namespace data structure".
IDENTIFY_NAMESPACE = {
    "nsze": (0, 8),
    "ncap": (8, 8),
    "nuse": (16, 8),
    "nsfeat": (24, 1),
    "nlbaf": (25, 1),
    "flbas": (26, 1),
    "mc": (27, 1),
    "dpc": (28, 1),
    "dps": (29, 1),
    "nmic": (30, 1),
    "nvmcap": (48, 16),
    "nguid": (104, 16),
    "eui64": (120, 8),
    "lbaf": (128, 256),
}

#: Parts of a reference structure that nothing here reads: power states, vendor bytes, and variable tails.
UNREAD = {
    ("IdentifyController", "psd"),
    ("IdentifyController", "vs"),
    ("StateFormatsHeader", "data"),
    ("TrackMemoryChangesHeader", "desc"),
    ("TrackedMemoryChangesHeader", "desc"),
}


def wire_layouts() -> dict[str, type[Layout]]:
    for module in pkgutil.iter_modules(nvmelm.wire.__path__, "nvmelm.wire."):
        importlib.import_module(module.name)
    return {kind.__name__: kind for kind in Layout.__subclasses__() if kind.__module__.startswith("nvmelm.wire.")}


def test_every_structure_has_a_reference() -> None:
    assert set(wire_layouts()) == {*STRUCTURES, "IdentifyNamespace"}


@pytest.mark.parametrize("name", sorted(STRUCTURES))
def test_size_and_offsets_are_those_a_compiler_found(name: str) -> None:
    layout = wire_layouts()[name]
    reference_name, renamed = STRUCTURES[name]
    reference = golden.structure(reference_name)
    assert layout.size == HEADS.get(name, reference["size"])
    declared = {renamed.get(field.name, field.name): [field.offset, field.size] for field in layout.fields.values()}
    assert declared == {field: reference["fields"][field] for field in declared}


@pytest.mark.parametrize("name", sorted(STRUCTURES))
def test_no_field_of_the_reference_is_forgotten(name: str) -> None:
    layout = wire_layouts()[name]
    reference_name, renamed = STRUCTURES[name]
    declared = {renamed.get(field, field) for field in layout.fields}
    expected = {field for field in golden.structure(reference_name)["fields"] if not field.startswith("rsvd")}
    assert {(name, field) for field in expected - declared} <= UNREAD


def test_identify_namespace_is_the_specification_s() -> None:
    layout = wire_layouts()["IdentifyNamespace"]
    assert layout.size == 4096
    assert {name: (field.offset, field.size) for name, field in layout.fields.items()} == IDENTIFY_NAMESPACE


@given(st.data())
def test_every_structure_reads_any_bytes_of_its_size(data: st.DataObject) -> None:
    layout = data.draw(st.sampled_from(sorted(wire_layouts().values(), key=lambda kind: kind.__name__)))
    head = data.draw(st.binary(max_size=min(layout.size, 640)))
    raw = head.ljust(layout.size, b"\xff")
    assert layout(raw).values().keys() == layout.fields.keys()
    assert repr(layout(raw)).startswith(layout.__name__)


@given(st.data())
def test_what_was_packed_is_read_back(data: st.DataObject) -> None:
    layout = data.draw(st.sampled_from(sorted(wire_layouts().values(), key=lambda kind: kind.__name__)))
    numbers = {name: field for name, field in layout.fields.items() if isinstance(field, U8 | U16 | U32)}
    values = {name: data.draw(st.integers(0, (1 << 8 * field.size) - 1)) for name, field in numbers.items()}
    read = layout(layout.pack(**values)).values()
    assert {name: read[name] for name in values} == values


def test_overlapping_fields_fail_at_import() -> None:
    with pytest.raises(TypeError, match="second overlaps first"):

        class _Overlap(Layout, size=4):
            first = U16(0, "")
            second = U16(1, "")


def test_a_field_behind_the_end_fails_at_import() -> None:
    with pytest.raises(TypeError, match="ends at 5"):

        class _Overflow(Layout, size=4):
            last = U16(3, "")


class _Sample(Layout, size=16):
    number = U16(0, "a number")
    text = Text(2, 6, "a text")
    raw_bytes = Raw(8, 8, "bytes")


@pytest.mark.parametrize("size", [0, 15, 17])
def test_missing_and_trailing_bytes_are_errors(size: int) -> None:
    with pytest.raises(MalformedError, match="is 16 bytes"):
        _Sample(bytes(size))


def test_a_structure_at_an_offset_must_be_whole() -> None:
    assert _Sample.at(b"\0\0\7" + bytes(15), 2).number == 7
    with pytest.raises(MalformedError):
        _Sample.at(bytes(17), 2)


@pytest.mark.parametrize(
    "values",
    [
        {"number": 0x10000},
        {"number": -1},
        {"text": "toolong"},
        {"raw_bytes": b"short"},
        {"nothing": 1},
    ],
)
def test_values_that_do_not_fit_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"fit|longer|bytes|no field"):
        _Sample.pack(**values)


def test_text_from_a_device_cannot_control_a_terminal() -> None:
    assert _Sample(b"\0\0\x1b[2J\0\0" + bytes(8)).text == "\\x1b[2J"


def test_equal_bytes_are_equal_structures() -> None:
    one, other = _Sample(_Sample.pack(number=1)), _Sample(_Sample.pack(number=1))
    assert one == other
    assert hash(one) == hash(other)
    assert one != _Sample(bytes(16))


def test_a_word_packs_and_unpacks_its_ranges() -> None:
    word = Word(sel="7:0", seqind="17:16", top="31")
    assert word.pack(sel=2, seqind=3, top=True) == 0x8003_0002
    assert word.unpack(0x8003_0002) == {"sel": 2, "seqind": 3, "top": 1}


@pytest.mark.parametrize("values", [{"sel": 0x100}, {"sel": -1}, {"top": 2}])
def test_a_word_refuses_what_does_not_fit(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Word(sel="7:0", top="31").pack(**values)


@pytest.mark.parametrize("ranges", [{"a": "7:0", "b": "7:4"}, {"a": "32:31"}, {"a": "0:7"}])
def test_impossible_ranges_fail_at_import(ranges: dict[str, str]) -> None:
    with pytest.raises((TypeError, ValueError)):
        Word(**ranges)
