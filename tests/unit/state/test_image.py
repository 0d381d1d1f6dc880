"""The state image: its bytes, and every way in which one is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nvmelm.errors import HostError, ImageError, NvmelmError, UsageError
from nvmelm.state.image import spool
from nvmelm.state.image.checks import require_possible
from nvmelm.state.image.format import ImageHeader, ImageSource, ImageWriter, Proof, open_sink
from nvmelm.state.image.reader import Image, open_image
from nvmelm.state.image.view import show
from tests.unit.fakes import queue_state, state_header

# Typed from the layout in the documentation. One pair of queues (56 bytes = 14 dwords) and 8 bytes of vendor data.
DOCUMENT = (
    b'{"image_id":"6ba7b810-9dad-41d1-80b4-00c04fd430c8","created_utc":"2026-01-02T03:04:05Z","nvmelm_version":"0.1.0",'
    b'"source":{"vendor_id":6966,"subsystem_vendor_id":6900,"model":"A Controller","firmware":"1.0","serial":"SN1",'
    b'"nvme_version":"2.1","cntlid":1,"vf_number":1,"vq":4,"vi":3},"state_version":0,'
    b'"vendor_uuid":"12345678-1234-4678-9234-567812345678","state_bytes":112,"nvme_bytes":56,"vendor_bytes":8}'
)
STATE = (
    bytes.fromhex("0000 01 00000000000000000000000000")
    + bytes.fromhex("0e000000000000000000000000000000 02000000000000000000000000000000")
    + bytes.fromhex("0000 0100 0100 0000")
    + bytes.fromhex("0000170500000000 ff03 0100 0100 0100 0700 0900 00000000")
    + bytes.fromhex("00405d0400000000 ff03 0100 0500 0700 07000100 00000000")
    + b"vendor!!"
)


def sealed(
    *,
    document: bytes = DOCUMENT,
    state: bytes = STATE,
    version: int = 1,
    proof: int = 7,
    state_bytes: int | None = None,
) -> bytes:
    """Return an image with a true digest, put together from the documented layout."""
    body = b"\x89NVMELM\n" + version.to_bytes(4, "little") + len(document).to_bytes(4, "little") + document + state
    length = len(body) + 64
    body += b"\x89NVMEND\n" + (state_bytes if state_bytes is not None else len(state)).to_bytes(8, "little")
    body += length.to_bytes(8, "little") + proof.to_bytes(4, "little") + bytes(4)
    return body + hashlib.sha256(body).digest()


GOLDEN = sealed()

HEADER = ImageHeader(
    image_id=UUID("6ba7b810-9dad-41d1-80b4-00c04fd430c8"),
    created_utc=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    nvmelm_version="0.1.0",
    source=ImageSource(
        vendor_id=0x1B36,
        subsystem_vendor_id=0x1AF4,
        model="A Controller",
        firmware="1.0",
        serial="SN1",
        nvme_version="2.1",
        cntlid=1,
        vf_number=1,
        vq=4,
        vi=3,
    ),
    state_version=0,
    vendor_uuid=UUID("12345678-1234-4678-9234-567812345678"),
    state_bytes=112,
    nvme_bytes=56,
    vendor_bytes=8,
)


def opened(directory: Path, raw: bytes) -> Image:
    path = directory / "image"
    path.write_bytes(raw)
    return open_image(path, spool_directory=directory)


def reason_of(directory: Path, raw: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        opened(directory, raw)
    assert caught.value.fix
    return caught.value.reason


@contextmanager
def piped(raw: bytes) -> Iterator[Path]:
    """Yield the name of a pipe that holds bytes."""
    reading, writing = os.pipe()

    def fill() -> None:
        with suppress(BrokenPipeError), os.fdopen(writing, "wb") as pipe:  # it is refused before its end
            pipe.write(raw)

    filler = threading.Thread(target=fill)
    filler.start()
    try:
        yield Path(f"/proc/self/fd/{reading}")
    finally:
        os.close(reading)
        filler.join()


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Let no file grow beyond a size: what a full disk is, without one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_golden(path: Path) -> bytes:
    with open_sink(path, replace=True) as sink:
        writer = ImageWriter(sink, HEADER)
        writer.write(STATE[:50])
        writer.write(STATE[50:])
        return writer.finish(Proof(7))


def test_the_state_typed_by_hand_is_the_one_the_fakes_build() -> None:
    nvme = bytearray(queue_state(1))
    nvme[8] = nvme[32] = 0  # the fakes give every queue its own address
    assert state_header(14, 2, suspended=True) + nvme + b"vendor!!" == STATE


def test_an_image_is_written_as_documented(tmp_path: Path) -> None:
    digest = write_golden(tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == GOLDEN
    assert digest == GOLDEN[-32:]


def test_an_image_is_readable_by_its_owner_only_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    write_golden(tmp_path / "image")
    assert (tmp_path / "image").stat().st_mode & 0o7777 == 0o600
    assert os.listdir(tmp_path) == ["image"]


def test_an_image_replaces_an_older_one_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"older")
    with open_sink(path, replace=True) as sink:
        ImageWriter(sink, HEADER).write(STATE)
    assert path.read_bytes() == b"older"
    write_golden(path)
    assert path.read_bytes() == GOLDEN


def test_a_verified_image_gives_its_header_and_its_state_in_parts(tmp_path: Path) -> None:
    with opened(tmp_path, GOLDEN) as image:
        parts = list(image.parts(52))
        assert image.header == HEADER
        assert [(part.offset, len(part.data), part.last) for part in parts] == [
            (0, 52, False),
            (52, 52, False),
            (104, 8, True),
        ]
        assert b"".join(part.data for part in parts) == STATE
        assert [part.data for part in image.parts(4096)] == [STATE]


def test_showing_an_image_tells_its_queues_but_neither_vendor_data_nor_guest_addresses(tmp_path: Path) -> None:
    with opened(tmp_path, GOLDEN) as image:
        document = show(image).to_json()
    (queue,) = document["completion_queues"]
    assert (queue["qid"], queue["slots"], queue["head"], queue["tail"], queue["slot_0_phase"]) == (1, 1024, 5, 7, 1)
    assert document["submission_queues"][0]["tail"] == 9
    assert document["vendor_sha256"] == hashlib.sha256(b"vendor!!").hexdigest()
    text = repr(document)
    assert "vendor!!" not in text
    assert "5170000" not in text


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        pytest.param(b"", "image-truncated", id="empty"),
        pytest.param(b"\x7fELF" + bytes(200), "image-foreign", id="another format"),
        pytest.param(GOLDEN[:12], "image-truncated", id="in the prefix"),
        pytest.param(GOLDEN[:100], "image-truncated", id="in the header"),
        pytest.param(GOLDEN[:-1], "image-truncated", id="last byte missing"),
        pytest.param(GOLDEN + b"\n", "image-trailing-data", id="one byte more"),
        pytest.param(GOLDEN + GOLDEN, "image-trailing-data", id="two images"),
        pytest.param(sealed(version=2), "image-newer", id="newer version"),
        pytest.param(sealed(version=0), "image-altered", id="version 0"),
        pytest.param(sealed(proof=8 | 7), "image-newer", id="unknown proof"),
        pytest.param(sealed(proof=0), "image-not-suspended", id="no proof"),
        pytest.param(sealed(proof=1), "image-not-suspended", id="not read again"),
        pytest.param(sealed(state=STATE[:2] + b"\0" + STATE[3:]), "image-not-suspended", id="state was running"),
        pytest.param(sealed(state=b"\1" + STATE[1:]), "image-newer", id="newer state structure"),
        pytest.param(sealed(state_bytes=108), "image-sizes-disagree", id="trailer"),
        pytest.param(sealed(state=STATE[:16] + b"\x0f" + STATE[17:]), "image-sizes-disagree", id="state header"),
        pytest.param(sealed(state=STATE[:50] + b"\2" + STATE[51:]), "image-sizes-disagree", id="queue count"),
        pytest.param(sealed(state=STATE[:48] + b"\1" + STATE[49:]), "image-sizes-disagree", id="NVMe state version"),
        pytest.param(sealed(document=DOCUMENT[:-1]), "image-altered", id="half a document"),
        pytest.param(sealed(document=b""), "image-altered", id="no document"),
        pytest.param(sealed(document=DOCUMENT.replace(b'"vq"', b'"qv"')), "image-altered", id="unknown field"),
        pytest.param(
            sealed(document=DOCUMENT.replace(b'"state_bytes":112', b'"state_bytes":%d' % (1 << 130))),
            "image-altered",
            id="state of 2**130 bytes",
        ),
        pytest.param(
            sealed(document=DOCUMENT.replace(b":112", b":%d" % ((1 << 62) + 56)).replace(b":8}", b":%d}" % (1 << 62))),
            "image-altered",
            id="parts that do not add up",
        ),
        pytest.param(
            sealed(document=DOCUMENT.replace(b":112", b":%d" % ((1 << 62) + 104)).replace(b":8}", b":%d}" % (1 << 62))),
            "image-truncated",
            id="larger than any disk",
        ),
    ],
)
def test_an_image_is_refused_with_the_reason(tmp_path: Path, raw: bytes, reason: str) -> None:
    assert reason_of(tmp_path, raw) == reason
    with piped(raw) as pipe, pytest.raises(ImageError) as caught:
        open_image(pipe, spool_directory=tmp_path)
    assert caught.value.reason == reason
    assert os.listdir(tmp_path) == ["image"]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(position=st.integers(0, len(GOLDEN) - 1), change=st.integers(1, 255))
def test_no_altered_byte_goes_unnoticed(tmp_path: Path, position: int, change: int) -> None:
    raw = bytearray(GOLDEN)
    raw[position] ^= change
    reason_of(tmp_path, bytes(raw))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(length=st.integers(0, len(GOLDEN) - 1))
def test_no_truncated_image_is_used(tmp_path: Path, length: int) -> None:
    assert reason_of(tmp_path, GOLDEN[:length]) == "image-truncated"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(raw=st.binary(max_size=400))
@example(raw=b"\x89NVMELM\n")
def test_random_bytes_are_refused(tmp_path: Path, raw: bytes) -> None:
    reason_of(tmp_path, raw)
    reason_of(tmp_path, GOLDEN[:16] + raw)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(document=st.binary(min_size=1, max_size=300))
def test_a_header_of_random_bytes_with_a_true_digest_is_refused(tmp_path: Path, document: bytes) -> None:
    reason_of(tmp_path, sealed(document=document))


def test_a_piped_image_is_verified_before_it_is_used_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with piped(GOLDEN) as pipe, open_image(pipe, spool_directory=tmp_path) as image:
        assert [part.data for part in image.parts(4096)] == [STATE]
        assert os.listdir(tmp_path) == []


def test_a_pipe_that_does_not_fit_the_spool_is_an_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with piped(GOLDEN) as pipe, at_most(100), pytest.raises(HostError) as caught:
        open_image(pipe, spool_directory=tmp_path)
    assert caught.value.errno_name == "EFBIG"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("limit", [52, 112, 4096])
def test_the_last_part_is_held_back_when_the_file_changed_after_it_was_verified(tmp_path: Path, limit: int) -> None:
    with opened(tmp_path, GOLDEN) as image:
        (tmp_path / "image").write_bytes(sealed(state=STATE[:-1] + b"?"))
        given_out = []
        with pytest.raises(ImageError) as caught:
            given_out.extend(image.parts(limit))  # extend keeps what came before the error
    assert caught.value.reason == "image-altered"
    assert not any(part.last for part in given_out)


def test_a_file_that_shrinks_after_it_was_verified_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path, GOLDEN) as image:
        (tmp_path / "image").write_bytes(GOLDEN[:500])
        with pytest.raises(ImageError, match="became shorter"):
            list(image.parts(4096))


def test_a_full_disk_leaves_no_image_and_keeps_the_older_one(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"older")
    with at_most(200), pytest.raises(HostError):
        write_golden(path)
    assert path.read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["image"]


def test_a_full_device_is_an_error_with_its_errno() -> None:
    with pytest.raises(HostError) as caught:
        write_golden(Path("/dev/full"))
    assert caught.value.errno_name == "ENOSPC"
    assert Path("/dev/full").is_char_device()


def test_ctrl_c_leaves_no_image(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_sink(tmp_path / "image") as sink:
        ImageWriter(sink, HEADER).write(STATE[:50])
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_file_system_without_unnamed_files_gets_a_hidden_one_that_vanishes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # opening a directory for writing is EISDIR, as it is there
    with pytest.raises(KeyboardInterrupt), open_sink(tmp_path / "image"):
        assert len(os.listdir(tmp_path)) == 1
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    write_golden(tmp_path / "image")
    assert (tmp_path / "image").read_bytes() == GOLDEN
    assert (tmp_path / "image").stat().st_mode & 0o7777 == 0o600
    with piped(GOLDEN) as pipe, open_image(pipe, spool_directory=tmp_path):
        assert os.listdir(tmp_path) == ["image"]


def test_an_image_with_more_or_less_state_than_announced_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(NvmelmError), open_sink(tmp_path / "image") as sink:
        writer = ImageWriter(sink, HEADER)
        writer.write(STATE[:-4])
        writer.finish(Proof(7))
    assert os.listdir(tmp_path) == []


def test_an_image_goes_through_a_pipe(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    write_golden(Path(f"/proc/self/fd/{writing}"))
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == GOLDEN


def test_a_terminal_gets_no_image_and_gives_none() -> None:
    leader, follower = os.openpty()
    terminal = Path(os.ttyname(follower))
    with pytest.raises(UsageError, match="terminal"):
        open_sink(terminal)
    with pytest.raises(UsageError, match="terminal"):
        open_image(terminal, spool_directory=Path("/nonexistent"))
    os.close(leader)
    os.close(follower)


def test_a_directory_or_a_link_is_no_place_for_an_image(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("file")
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(UsageError):
            open_sink(path)
    with pytest.raises(UsageError):
        open_image(tmp_path, spool_directory=tmp_path)
    assert (tmp_path / "file").read_bytes() == b"kept"


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="nowhere"):
        open_sink(tmp_path / "nowhere" / "image")
    with pytest.raises(HostError, match="nowhere"):
        open_image(tmp_path / "nowhere", spool_directory=tmp_path)


def announcing(**sizes: int) -> bytes:
    """Return the beginning of an image whose header announces other sizes."""
    header_bytes = int.from_bytes(GOLDEN[12:16], "little")
    head: dict[str, Any] = json.loads(GOLDEN[16 : 16 + header_bytes]) | sizes
    head["state_bytes"] = 48 + head["nvme_bytes"] + head["vendor_bytes"]
    document = json.dumps(head).encode()
    return GOLDEN[:12] + len(document).to_bytes(4, "little") + document


def test_an_image_in_a_pipe_for_which_there_is_no_room_is_refused_before_the_disk_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bytes] = []
    monkeypatch.setattr(spool, "_keep", lambda data, *_: written.append(bytes(data)))
    disk = os.statvfs(tmp_path)
    huge = disk.f_blocks * disk.f_frsize // 4 * 4
    with piped(announcing(vendor_bytes=huge) + bytes(2 << 20)) as pipe, pytest.raises(HostError) as met:
        open_image(pipe, spool_directory=tmp_path)
    assert met.value.errno == errno.ENOSPC
    assert str(huge)[:4] in met.value.cause
    assert written == []


def test_an_image_in_a_pipe_whose_header_is_not_wanted_is_not_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "_keep", lambda *_: pytest.fail("it was copied"))

    def refuse(header: ImageHeader) -> None:
        raise ImageError("not for this controller")

    with piped(GOLDEN) as pipe, pytest.raises(ImageError, match="not for this"):
        open_image(pipe, spool_directory=tmp_path, fits=refuse)


@pytest.mark.parametrize(("queues", "possible"), [(2 * 65535, True), (2 * 65535 + 1, False)])
def test_an_image_may_have_as_many_queues_as_16_bits_count_and_none_more(queues: int, possible: bool) -> None:
    header = HEADER.model_copy(update={"nvme_bytes": 8 + 24 * queues})
    with nullcontext() if possible else pytest.raises(ImageError, match="too many"):
        require_possible(header, "image")


def test_more_queues_than_16_bits_count_are_refused_by_the_header(tmp_path: Path) -> None:
    with piped(announcing(nvme_bytes=1 << 30) + bytes(4096)) as pipe, pytest.raises(ImageError) as met:
        open_image(pipe, spool_directory=tmp_path)
    assert met.value.reason == "image-sizes-disagree"
