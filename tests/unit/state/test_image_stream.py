"""A state that arrives in pieces is the same image, proven by the same rules, whatever the pieces are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelm.errors import ImageError
from nvmelm.state.image.reader import Part
from nvmelm.state.image.stream import StreamedImage, TailDigest
from tests.unit.state.test_image import GOLDEN, STATE, sealed


def pieces(raw: bytes, cuts: Iterable[int]) -> list[bytes]:
    at = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    return [raw[left:right] for left, right in pairwise(at)]


def streamed(parts: list[bytes]) -> StreamedImage:
    left = iter([*parts, None])
    return StreamedImage(lambda: next(left, None), "the state")


@given(cuts=st.lists(st.integers(0, 10_000), max_size=12), limit=st.sampled_from([56, 64, 108, 112, 4096]))
@settings(deadline=None)
def test_whatever_the_pieces_are_the_state_is_the_same(cuts: list[int], limit: int) -> None:
    image = streamed(pieces(GOLDEN, cuts))
    parts = list(image.parts(limit))
    assert b"".join(bytes(part.data) for part in parts) == STATE
    assert [part.offset for part in parts] == list(range(0, len(STATE), limit))
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert image.proven == GOLDEN[-32:]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "image-truncated"),
        (b"\x7fELF" + bytes(200), "image-foreign"),
        (GOLDEN[:100], "image-truncated"),
        (GOLDEN[:-1], "image-truncated"),
        (GOLDEN + b"\n", "image-trailing-data"),
        (sealed(version=2), "image-newer"),
        (sealed(proof=0), "image-not-suspended"),
        (sealed(proof=1), "image-not-suspended"),
        (sealed(proof=15), "image-newer"),
        (sealed(state=STATE[:2] + b"\0" + STATE[3:]), "image-not-suspended"),
        (sealed(state_bytes=108), "image-sizes-disagree"),
        (sealed(state=STATE[:16] + b"\x0f" + STATE[17:]), "image-sizes-disagree"),
    ],
)
@pytest.mark.parametrize("limit", [64, 4096])
def test_the_last_part_of_an_image_that_is_not_proven_never_comes(raw: bytes, reason: str, limit: int) -> None:
    came: list[Part] = []  # extend() keeps what came before the error
    with pytest.raises(ImageError) as met:
        came.extend(streamed(pieces(raw, [50, 77])).parts(limit))
    assert met.value.reason == reason
    assert not any(part.last for part in came)


@given(position=st.integers(0, len(GOLDEN) - 1), change=st.integers(1, 255), limit=st.sampled_from([64, 4096]))
@settings(deadline=None)
def test_no_altered_byte_gets_to_the_last_part(position: int, change: int, limit: int) -> None:
    raw = bytearray(GOLDEN)
    raw[position] ^= change
    came: list[Part] = []  # extend() keeps what came before the error
    with pytest.raises(ImageError):
        came.extend(streamed(pieces(bytes(raw), [33])).parts(limit))
    assert not any(part.last for part in came)


def test_a_state_of_one_part_can_be_had_again_and_a_longer_one_cannot() -> None:
    short, long = streamed([GOLDEN]), streamed([GOLDEN])
    assert list(short.parts(4096)) == list(short.parts(4096))
    assert list(long.parts(64))
    assert list(long.parts(64)) == []


@given(st.lists(st.binary(max_size=80)))
def test_a_running_digest_leaves_out_the_last_32_bytes(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    digest = TailDigest()
    for part in parts:
        digest.update(part)
    assert digest.value == hashlib.sha256(whole[:-32] if len(whole) > 32 else b"").digest()
    sealed_digest = TailDigest()
    for part in [*parts, hashlib.sha256(whole).digest()]:
        sealed_digest.update(part)
    assert sealed_digest.right()
