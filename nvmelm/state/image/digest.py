"""The digests that prove a state: SHA-256 in every image, and between two hosts a faster one that both have.

A state that is moved is hashed at both ends while the guest stands still, and SHA-256 is slower than a pipe. What is
asked of the digest there is that nothing was lost, mixed up or altered by accident: against somebody on the way the
link protects itself (ssh), and whoever can alter a state can alter the digest behind it too. XXH3 with 128 bits answers
that at the speed of memory. It needs the package ``xxhash`` at both ends; without it SHA-256 is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Protocol

from nvmelm.wire.layout import Buffer

#: Room for a digest; a shorter one is followed by zeros.
DIGEST_BYTES = 32

SHA256, XXH3 = "sha256", "xxh3-128"
#: The best one first.
_KNOWN = (XXH3, SHA256)


class Digest(Protocol):
    """A digest that is being made."""

    def update(self, data: Buffer, /) -> None:
        """Take the next bytes."""
        ...

    def digest(self) -> bytes:
        """Return the digest of what was taken so far."""
        ...


def available() -> tuple[str, ...]:
    """Return the names of the digests this program can make, the best one first."""
    try:
        import xxhash  # noqa: F401 - whether it is there is the question
    except ImportError:
        return (SHA256,)
    return _KNOWN


def agreed(theirs: Collection[str]) -> str:
    """Return the best digest that both sides can make; both come to the same answer."""
    return next((name for name in available() if name in theirs), SHA256)


def begin(name: str = SHA256) -> Digest:
    """Return a new digest.

    Args:
        name: one that :func:`available` has named.
    """
    if name == XXH3:
        import xxhash

        return xxhash.xxh3_128()
    return hashlib.sha256()


def finished(digest: Digest) -> bytes:
    """Return a digest's 32 bytes."""
    return digest.digest().ljust(DIGEST_BYTES, b"\0")
