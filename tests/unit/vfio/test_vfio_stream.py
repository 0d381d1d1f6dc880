"""A VM's stream is a stranger's: whatever bytes come, they are taken whole or refused in words, and never crash."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvmelm.errors import ImageError, NvmelmError
from nvmelm.state.image.format import (
    REQUIRED_PROOF,
    ImageHeader,
    ImageSource,
    ImageWriter,
    StreamSink,
)
from nvmelm.vfio.stream import (
    PADDING_BYTES,
    ArrivingStream,
    SavedAdminQueue,
    SavedRegisters,
    SpooledStream,
    StreamHeader,
)
from nvmelm.wire.migration import ControllerStateHeader, NvmeStateHeader

_SOURCE = ImageSource(
    vendor_id=1, subsystem_vendor_id=1, model="m", firmware="f", serial="s", nvme_version="2.1.0", cntlid=66,
    vf_number=1, vq=3, vi=2,
)  # fmt: skip
_ID = UUID(int=7)


def spool() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def image(image_id: UUID = _ID) -> int:
    """Return a descriptor of an image of a controller without queues."""
    state = ControllerStateHeader.pack(csattr=1, nvmecss=2) + NvmeStateHeader.pack()
    header = ImageHeader(
        image_id=image_id, created_utc=datetime(2026, 1, 1, tzinfo=UTC), nvmelm_version="0", source=_SOURCE,
        state_version=0, vendor_uuid=None, state_bytes=len(state), nvme_bytes=8, vendor_bytes=0,
    )  # fmt: skip
    descriptor = spool()
    writer = ImageWriter(StreamSink(descriptor, "test", owned=False), header)
    writer.write(state)
    writer.finish(REQUIRED_PROOF)
    return descriptor


def header(**values: object) -> StreamHeader:
    body: dict[str, object] = {
        "id": "0" * 32, "created_utc": datetime(2026, 1, 1, tzinfo=UTC), "nvmelm_version": "0", "vm": "db1",
        "address": "0000:01:00.1", "source": _SOURCE, "manifest": "{}",
        "registers": SavedRegisters(cc=0x460001, aqa=0x1F001F, asq=0, acq=4096),
        "admin_queue": SavedAdminQueue(
            completions=15, sq_head=16, event_requests=(31,), unidentified=0, rings_sha256="0" * 64
        ),
        "image_id": _ID, "image_bytes": 0, "padding_bytes": PADDING_BYTES,
    }  # fmt: skip
    return StreamHeader.model_validate(body | values)


def whole(image_id: UUID = _ID) -> bytes:
    """Return all bytes of a stream."""
    descriptor = image(image_id)
    stream = SpooledStream(header(image_bytes=os.fstat(descriptor).st_size), descriptor)
    data = b""
    while piece := stream.read(77):
        data += piece
    assert stream.finished
    assert len(data) == stream.total_bytes
    stream.close()
    return data


WHOLE = whole()
#: Where the padding begins: what the page says of its length.
PADDING_AT = len(WHOLE) - 131072


def taken(data: bytes, step: int = 50, judge: Callable[[StreamHeader], None] = lambda _: None) -> StreamHeader | None:
    """Take bytes in pieces and verify what has arrived."""
    stream = ArrivingStream(spool(), judge)
    try:
        for at in range(0, len(data), step):
            stream.write(data[at : at + step])
        found = stream.image()
        if found is not None:
            found.close()
        return stream.header
    finally:
        stream.close()


@pytest.mark.parametrize("step", [1, 13, 4096, 1 << 20])
def test_a_whole_stream_is_taken_in_pieces_of_any_length(step: int) -> None:
    found = taken(WHOLE, step)
    assert found is not None
    assert found.admin_queue is not None
    assert found.admin_queue.position().event_requests == (31,)


def test_a_stream_that_ends_anywhere_early_is_refused() -> None:
    for end in (*range(PADDING_AT + 1), PADDING_AT + 65536, len(WHOLE) - 1):
        with pytest.raises(ImageError, match="ends early"):
            taken(WHOLE[:end], 4096)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, PADDING_AT - 1) | st.integers(PADDING_AT, len(WHOLE) - 1), st.integers(1, 255))
def test_a_stream_of_which_any_byte_was_altered_is_refused(at: int, flip: int) -> None:
    data = bytearray(WHOLE)
    data[at] ^= flip
    with pytest.raises(NvmelmError):
        taken(bytes(data))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_crash_it(noise: bytes, magic: bool) -> None:
    with pytest.raises(NvmelmError):
        taken(WHOLE[:12] * magic + noise)


def test_bytes_behind_the_end_are_refused() -> None:
    with pytest.raises(ImageError, match="longer"):
        taken(WHOLE + b"x")


def test_an_image_that_is_not_the_one_the_header_names_is_refused() -> None:
    with pytest.raises(ImageError) as refusal:
        taken(whole(UUID(int=8)))
    assert refusal.value.cause == "the image is not the one its header names"


def test_the_judge_is_asked_before_a_byte_of_the_image_is_kept() -> None:
    def refuse(_: StreamHeader) -> None:
        raise NvmelmError("no")

    descriptor = spool()
    stream = ArrivingStream(os.dup(descriptor), refuse)
    with pytest.raises(NvmelmError, match="no"):
        stream.write(WHOLE)
    assert os.fstat(descriptor).st_size == 0
    stream.close()
    os.close(descriptor)


def test_the_image_is_verified_before_a_byte_of_the_padding_is_taken() -> None:
    data = bytearray(WHOLE[:PADDING_AT])
    data[-1] ^= 1
    stream = ArrivingStream(spool(), lambda _: None)
    with pytest.raises(ImageError):
        stream.write(bytes(data))
    stream.close()


@pytest.mark.parametrize("padding", [0, 131071, (1 << 20) + 1])
def test_a_header_with_less_padding_than_can_be_on_its_way_unseen_is_none(padding: int) -> None:
    with pytest.raises(ValueError, match="padding_bytes"):
        header(padding_bytes=padding)


def test_a_controller_that_is_off_has_its_padding_behind_the_header() -> None:
    stream = SpooledStream(header(image_id=None, admin_queue=None), None)
    data = stream.read(1 << 20) + stream.read(1 << 20)
    assert (len(data), stream.finished, stream.read(1)) == (stream.total_bytes, True, b"")
    assert taken(data, 4096) is not None
    with pytest.raises(ImageError, match="ends early"):
        taken(data[:-131072], 4096)


def test_an_announced_header_is_not_waited_for_when_it_is_too_long() -> None:
    with pytest.raises(ImageError) as refusal:
        taken(WHOLE[:12] + (1 << 30).to_bytes(4, "little"))
    assert refusal.value.cause == "the length of its header is impossible"


@pytest.mark.parametrize(
    "change", [{"image_id": None, "image_bytes": 5}, {"image_bytes": -1}, {"id": "../x"}, {"vm": 1}]
)
def test_a_header_that_contradicts_itself_is_none(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        header(image_bytes=1, **change) if "image_bytes" not in change else header(**change)


def test_a_stream_lies_in_the_format_its_page_describes() -> None:
    length = int.from_bytes(WHOLE[12:16], "little")
    assert WHOLE[:12] == bytes.fromhex("89 4e 56 4d 45 56 4d 0a 02 00 00 00")
    assert WHOLE[16:17] == b"{"
    assert WHOLE[48 + length : 56 + length] == b"\x89NVMELM\n"
    assert WHOLE[PADDING_AT:] == bytes(131072)
    assert WHOLE[PADDING_AT - 1] != 0


@pytest.mark.parametrize(("padding", "taken"), [(1 << 20, True), ((1 << 20) + 1, False)])
def test_a_stream_announces_a_mebibyte_of_padding_at_most(padding: int, taken: bool) -> None:
    with nullcontext() if taken else pytest.raises(ValueError, match="padding_bytes"):
        header(image_bytes=1, padding_bytes=padding)


@pytest.mark.parametrize("name", ["cc", "aqa"])
def test_a_register_of_a_stream_has_32_bits(name: str) -> None:
    registers = {"cc": 0, "aqa": 0, "asq": 0, "acq": 0}
    SavedRegisters.model_validate({**registers, name: (1 << 32) - 1})
    with pytest.raises(ValueError, match=name):
        SavedRegisters.model_validate({**registers, name: 1 << 32})
