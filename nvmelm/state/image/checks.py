"""What an image must be before a byte of it is used: the single checks, each with the reason of its refusal.

Every refusal is an :class:`~nvmelm.errors.ImageError` with one of these reasons:

=========================  ==================================================================
image-foreign              not a state image
image-newer                of a format version this program does not know
image-truncated            it ends early
image-altered              it is not what was written: digest, magic or header do not fit
image-trailing-data        something stands behind its end
image-sizes-disagree       header, trailer and controller state say different sizes
image-not-suspended        not proven that the controller was suspended while it was read
=========================  ==================================================================
"""

from __future__ import annotations

from pydantic import ValidationError

from nvmelm.errors import ImageError
from nvmelm.state.image.format import (
    FORMAT_VERSION,
    KNOWN_PROOF,
    MAGIC,
    MAX_HEADER_BYTES,
    REQUIRED_PROOF,
    ImageHeader,
    Prefix,
    Proof,
    Trailer,
)
from nvmelm.wire.migration import KNOWN_VERSION, ControllerStateHeader, NvmeStateHeader

#: 65535 queues of either kind: more NVMe state than this no controller has.
_MAX_NVME_BYTES = 8 + 24 * 2 * 0xFFFF

_SAVE_AGAIN = "save the state again, or use another copy of the image"


def refuse(reason: str, message: str, cause: str = "", fix: str = _SAVE_AGAIN) -> ImageError:
    """Return the error of an image that may not be used."""
    return ImageError(message, cause=cause, fix=fix, reason=reason)


def _not_suspended(name: str) -> ImageError:
    return refuse(
        "image-not-suspended",
        f"{name} was not read from a suspended controller",
        "a controller that runs changes its state while it is read",
        "suspend the controller, then save its state again",
    )


def check_prefix(raw: bytes, name: str) -> Prefix:
    """Read an image's first 16 bytes.

    Raises:
        ImageError: foreign, newer or truncated.
    """
    if not raw or not MAGIC.startswith(raw[: len(MAGIC)]):
        cause = "it does not begin as an image begins" if raw else "it is empty"
        raise refuse("image-foreign" if raw else "image-truncated", f"{name} is not a state image", cause)
    if len(raw) < Prefix.size:
        raise refuse("image-truncated", f"{name} ends inside its first 16 bytes")
    prefix = Prefix(raw)
    if prefix.version > FORMAT_VERSION:
        cause = f"it has format version {prefix.version}, and this program knows {FORMAT_VERSION}"
        raise refuse("image-newer", f"{name} was written by a newer nvmelm", cause, "use that version to read it")
    if prefix.version == 0 or not 1 <= prefix.header_bytes <= MAX_HEADER_BYTES:
        raise refuse("image-altered", f"{name} was altered", "its first 16 bytes are impossible")
    return prefix


def parse_header(raw: bytes, name: str) -> ImageHeader:
    """Read an image's JSON header.

    Raises:
        ImageError: it is not one.
    """
    try:
        return ImageHeader.model_validate_json(raw, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))[:60]
        cause = f"its header cannot be read: {where or 'document'}: {first['msg'][:120]}"
        raise refuse("image-altered", f"{name} was altered", cause) from error


def check_trailer(trailer: Trailer, header: ImageHeader, image_bytes: int, name: str) -> Proof:
    """Check what stands behind a state, all but its digest.

    Args:
        image_bytes: the length of the image as it was counted.

    Raises:
        ImageError: no proof of suspension, other sizes, or of a newer kind.
    """
    if trailer.proof & ~int(KNOWN_PROOF) or trailer.reserved:  # ~ of an IntFlag knows no other bits
        raise refuse("image-newer", f"{name} was written by a newer nvmelm", fix="use that version to read it")
    if (trailer.state_bytes, trailer.image_bytes) != (header.state_bytes, image_bytes):
        raise refuse("image-sizes-disagree", f"{name}: header and trailer announce different sizes")
    proof = Proof(trailer.proof)
    if proof & REQUIRED_PROOF != REQUIRED_PROOF:
        raise _not_suspended(name)
    return proof


def check_state(head: bytes, header: ImageHeader, name: str) -> ControllerStateHeader:
    """Compare the beginning of a controller state, its header and the NVMe part's, with what the image announces.

    Raises:
        ImageError: it was not suspended, or the sizes disagree.
    """
    state = ControllerStateHeader(head[: ControllerStateHeader.size])
    if state.ver != KNOWN_VERSION:
        cause = f"the Controller State structure has version {state.ver}"
        raise refuse("image-newer", f"{name} holds a state of a newer kind", cause, "use a newer nvmelm")
    if not state.suspended:
        raise _not_suspended(name)
    if (state.nvme_bytes, state.vendor_bytes) != (header.nvme_bytes, header.vendor_bytes):
        raise refuse("image-sizes-disagree", f"{name}: the header and the state in it have different sizes")
    check_nvme_size(head[ControllerStateHeader.size :][: header.nvme_bytes], header, name)
    return state


def check_nvme_size(head: bytes, header: ImageHeader, name: str) -> None:
    """Compare the queue counts at the head of an NVMe Controller State with its size.

    Raises:
        ImageError: they do not agree.
    """
    if header.state_version is None:
        return
    if len(head) < NvmeStateHeader.size or NvmeStateHeader(head).ver != header.state_version:
        raise refuse("image-sizes-disagree", f"{name}: the NVMe state is not of version {header.state_version}")
    if header.state_version == KNOWN_VERSION and NvmeStateHeader(head).total_bytes != header.nvme_bytes:
        raise refuse("image-sizes-disagree", f"{name}: the queues of the NVMe state do not fill it")


def require_possible(header: ImageHeader, name: str) -> None:
    """Refuse what no controller has: its queues are counted by 16 bits.

    Raises:
        ImageError: it announces more.
    """
    if header.nvme_bytes > _MAX_NVME_BYTES:
        raise refuse("image-sizes-disagree", f"{name}: {header.nvme_bytes} bytes of NVMe state are too many")
