"""The opaque-version dialect: one ASCII string that is read at the source and tested at the destination.

::

    nvmelm1-d-<8 hexadecimal digits>-<base64url>
            |  |                      `-- the facts, canonical JSON, deflated
            |  `-- the first 32 bits of the payload's SHA-256, against a string that was cut or mistyped
            `-- d: a function that is there (device level), t: one to come (type level)

To everybody but nvmelm the string is opaque; nvmelm finds in it all that a verdict needs. It has at most 4096
characters (PATH_MAX, as the proposal has it): facts that do not fit make no string, which means: incompatible.

Source: Y. Zhao, migration_version, v5, April 2020 (see docs/compat-dialects.md).
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import re
import zlib
from dataclasses import dataclass, field
from typing import Literal

from nvmelm.compat.manifest import Level, Manifest, canonical, load
from nvmelm.compat.policy import Policy
from nvmelm.compat.verdict import Verdict, judge
from nvmelm.documents import Report, about
from nvmelm.errors import MalformedError, NotSupportedError

MAX_CHARACTERS = 4096
_LEVELS: dict[str, Level] = {"d": "device", "t": "prospective"}
_TOKEN = re.compile(r"nvmelm([0-9]{1,6})-([a-z])-([0-9a-f]{8})-([A-Za-z0-9_-]+)")
_VERSION = "1"
#: What a payload may become; a manifest of this size would not have made a string.
_MAX_FACTS_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Tested:
    """What testing a string gave.

    Attributes:
        errno: 0 when it was accepted. EINVAL: not compatible; EBADMSG: not a string of nvmelm's, or damaged;
            EPROTONOSUPPORT: of a newer nvmelm.
        why: one sentence for the log; empty when it was accepted.
        verdict: the reasons, when it came to a verdict.
    """

    errno: int
    why: str
    verdict: Verdict | None = None

    @property
    def accepted(self) -> bool:
        """Return whether the source's state can be set here."""
        return self.errno == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDocument(Report):
    """The opaque version string of a function."""

    schema_name = "nvmelm.token"

    token: str = field(metadata=about("ASCII, at most 4096 characters"))
    level: Literal["device", "type"] = field(metadata=about("type: of a function to come"))
    digest: str = field(metadata=about("of the manifest the string carries"))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTestDocument(Report):
    """Whether a source's version string was accepted."""

    schema_name = "nvmelm.token_test"

    accepted: bool
    errno: int = field(metadata=about("0 when it was accepted"))
    errno_name: str
    why: str = field(metadata=about("for the log; empty when it was accepted"))


def document(manifest: Manifest) -> TokenDocument:
    """Return what ``nvmelm compat token`` prints.

    Raises:
        IncompatibleError: see :func:`encode`.
    """
    level: Literal["device", "type"] = "type" if manifest.level == "prospective" else "device"
    return TokenDocument(token=encode(manifest), level=level, digest=manifest.digest)


def encode(manifest: Manifest) -> str:
    """Return the string of a function.

    Raises:
        NotSupportedError: its facts do not fit; no migration can be asked for with this dialect.
    """
    packed = zlib.compress(canonical(manifest.facts), 9)
    payload = base64.urlsafe_b64encode(packed).decode("ascii").rstrip("=")
    level = next(letter for letter, name in _LEVELS.items() if name == manifest.level)
    token = f"nvmelm{_VERSION}-{level}-{_check(payload)}-{payload}"
    if len(token) > MAX_CHARACTERS:
        raise NotSupportedError(
            f"{manifest.name} has more facts than a version string carries",
            cause=f"the string would have {len(token)} characters, and {MAX_CHARACTERS} are allowed",
            fix="compare manifests: nvmelm compat export, nvmelm compat check",
            reason="token-too-long",
        )
    return token


def decode(token: str) -> Manifest:
    """Return the facts a string carries.

    Raises:
        MalformedError: it is none, or was damaged; the reason ``token-newer`` says that a newer nvmelm made it.
    """
    match = _TOKEN.fullmatch(token) if len(token) <= MAX_CHARACTERS else None
    if match is None:
        raise _bad("it does not look like one")
    version, level, check, payload = match.groups()
    if version != _VERSION:
        raise MalformedError(
            "the version string is of another nvmelm",
            cause=f"its format is {version}, and this program knows {_VERSION}",
            fix="install the same nvmelm on both hosts",
            reason="token-newer",
        )
    if level not in _LEVELS or check != _check(payload):
        raise _bad("it was cut, or mistyped")
    try:
        packed = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
        inflater = zlib.decompressobj()
        raw = inflater.decompress(packed, _MAX_FACTS_BYTES)
    except (ValueError, binascii.Error, zlib.error) as error:
        raise _bad("it was damaged") from error
    if inflater.unconsumed_tail or inflater.unused_data or not inflater.eof:
        raise _bad("what is in it is too long, or not whole")
    body = load(raw)
    if not isinstance(body, dict) or set(body) != {"facts", "version"}:
        raise _bad("what is in it are no facts")
    manifest = Manifest.from_json(
        {
            "schema": "nvmelm.manifest",
            "version": body["version"],
            "level": _LEVELS[level],
            "digest": f"sha256:{hashlib.sha256(raw).hexdigest()}",
            "subject": {},
            "labels": {},
            "facts": body["facts"],
        }
    )
    if canonical(manifest.facts) != raw:
        raise _bad("what is in it is not as nvmelm writes it")
    return manifest


def probe(token: str, destination: Manifest, policy: Policy | None = None) -> Tested:
    """Say whether the source of a string fits a destination. Any error means that it does not.

    A string of a function to come is tested by a destination that is there or to come; one of a function that is there
    by both as well: the facts are the same.
    """
    try:
        source = decode(token)
    except MalformedError as error:
        number = errno.EPROTONOSUPPORT if error.reason == "token-newer" else errno.EBADMSG
        return Tested(number, f"{error.message}: {error.cause}" if error.cause else error.message)
    verdict = judge(source, destination, policy)
    if verdict.compatible:
        return Tested(0, "", verdict)
    why = "; ".join(reason.message for reason in verdict.blocking())
    return Tested(errno.EINVAL, why, verdict)


def _check(payload: str) -> str:
    return hashlib.sha256(payload.encode("ascii")).hexdigest()[:8]


def _bad(why: str) -> MalformedError:
    return MalformedError(
        "this is no version string of nvmelm", cause=why, fix="nvmelm compat token PF CNTLID prints one", reason="token"
    )
