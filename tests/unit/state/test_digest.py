"""Digests of a state: what each is, and which one two hosts agree on."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from nvmelm.errors import ImageError
from nvmelm.state.image.digest import SHA256, XXH3, agreed, available, begin, finished
from nvmelm.state.image.format import ImageWriter, Proof, Trailer
from nvmelm.state.image.stream import StreamedImage, TailDigest
from nvmelm.wire.layout import Buffer
from tests.unit.state.test_image import HEADER, STATE

BOTH = (XXH3, SHA256)


class Gathered:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: Buffer) -> None:
        self.data += bytes(data)

    def commit(self) -> None: ...

    def close(self) -> None: ...

    def __enter__(self) -> Gathered:
        return self

    def __exit__(self, *error: object) -> None: ...


def image(name: str) -> bytes:
    sink = Gathered()
    writer = ImageWriter(sink, HEADER, digest=name)
    writer.write(STATE)
    writer.finish(Proof.STATE_SAID_SO | Proof.SAME_AT_THE_END)
    return sink.data


def received(data: bytes, name: str) -> StreamedImage:
    """Receive an image whose digest is made while it arrives, as a session does."""
    digest = TailDigest(name)
    digest.update(data)
    pieces = iter([data])
    found = StreamedImage(lambda: next(pieces, None), "it", digest=digest)
    list(found.parts(1 << 20))
    return found


def test_digests_are_those_their_authors_publish() -> None:
    # The empty input: FIPS 180-4's examples, and xxHash's own XXH3_128bits.
    assert finished(begin(SHA256)).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert finished(begin(XXH3)).hex() == "99aa06d3014798d86001c324468d497f" + 32 * "0"


def test_an_image_has_a_sha256_unless_two_hosts_agreed_on_another_digest() -> None:
    whole = image(SHA256)
    assert whole[-32:] == hashlib.sha256(whole[:-32]).digest()
    quick = image(XXH3)
    assert len(quick) == len(whole)
    assert quick[-16:] == bytes(16)
    assert quick[-32:-16] != whole[-32:-16]


@pytest.mark.parametrize("name", BOTH)
def test_every_altered_byte_is_noticed_whichever_digest_it_is(name: str) -> None:
    whole = image(name)
    assert received(whole, name).proven == whole[-32:]
    for place in range(len(whole) - Trailer.size - len(STATE), len(whole)):
        altered = bytearray(whole)
        altered[place] ^= 1
        with pytest.raises(ImageError):
            received(bytes(altered), name)


@pytest.mark.parametrize(("made", "expected"), [(SHA256, XXH3), (XXH3, SHA256)])
def test_an_image_of_another_digest_than_was_agreed_is_refused(made: str, expected: str) -> None:
    with pytest.raises(ImageError) as met:
        received(image(made), expected)
    assert met.value.reason == "image-altered"


@pytest.mark.parametrize(
    ("theirs", "expected"),
    [([SHA256, XXH3], XXH3), ([XXH3], XXH3), ([SHA256], SHA256), (["of-tomorrow", SHA256], SHA256), ([], SHA256)],
)
def test_the_best_digest_both_can_make_is_agreed_on(theirs: list[str], expected: str) -> None:
    assert available() == BOTH
    assert agreed(theirs) == expected


def test_without_the_package_it_is_sha256(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xxhash", None)
    assert available() == (SHA256,)
    assert agreed(BOTH) == SHA256


def test_files_have_a_sha256(tmp_path: Path) -> None:
    """What a file is proven by does not depend on what is installed where it was written."""
    from nvmelm.state.image.format import open_sink
    from nvmelm.state.image.reader import open_image

    with open_sink(tmp_path / "image") as sink:
        writer = ImageWriter(sink, HEADER)
        writer.write(STATE)
        writer.finish(Proof.STATE_SAID_SO | Proof.SAME_AT_THE_END)
    (tmp_path / "quick").write_bytes(image(XXH3))
    with open_image(tmp_path / "image", spool_directory=tmp_path) as opened:
        assert opened.sha256 == hashlib.sha256((tmp_path / "image").read_bytes()[:-32]).digest()
    with pytest.raises(ImageError):
        open_image(tmp_path / "quick", spool_directory=tmp_path)
