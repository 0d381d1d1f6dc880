"""A manifest: what a controlled function is, or would be, as a flat set of facts with a digest over them.

::

    {
      "schema": "nvmelm.manifest", "version": 1,
      "level": "device",                       "prospective": the function is not there yet
      "digest": "sha256:…",                    over the facts alone
      "subject": {"host": "a", "cntlid": "0x0042"},   for people
      "labels": {"rack": "r1"},                for ``compat match``
      "facts": {"identity.model": "…", …}      flat, sorted; what could not be known is not there
    }

A manifest may come from a file or another host, so all of it is checked, its size is bounded, and a digest that does
not fit the facts is refused. Facts this version does not know are kept, for the verdict has to see them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal, cast

from nvmelm.compat.facts import FACTS
from nvmelm.compat.rules import LARGEST, MAX_ITEMS, MAX_TEXT, FactValue, Kind, valid
from nvmelm.documents import Report, about
from nvmelm.errors import MalformedError

Level = Literal["device", "prospective"]


#: Bytes; a manifest of a function with as many namespaces as a controller can name in practice stays below.
MAX_BYTES = 16 * 1024 * 1024
_MAX_FACTS = 512
#: What identifies a namespace, a list along ``namespaces.ids`` each.
_IDENTIFIERS = ("namespaces.nguid", "namespaces.eui64", "namespaces.uuid")
_MAX_WORDS = 64
_FORMS = "facts are numbers, words, true, false, or lists of one of these"
_FACT_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}(\.[a-z][a-z0-9_]{0,31}){1,3}")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
_KEYS = frozenset(("schema", "version", "level", "digest", "subject", "labels", "facts"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestDocument(Report):
    """What a controlled function is, or would be."""

    schema_name = "nvmelm.manifest"

    level: Level = field(metadata=about("prospective: the function is not there yet"))
    digest: str = field(metadata=about("sha256: and 64 hexadecimal digits, over the facts alone"))
    subject: dict[str, str] = field(metadata=about("who this is, for people; no serial number"))
    labels: dict[str, str] = field(metadata=about("what a site says of it: rack, site, …"))
    facts: dict[str, FactValue] = field(metadata=about("by name; what could not be known is not there"))


_VERSION = ManifestDocument.schema_version


@dataclass(frozen=True)
class Manifest:
    """Facts of one function; see the module's docstring.

    Attributes:
        subject: who this is, for people; no part of the digest and without a serial number.
        labels: what a site says of it, such as rack or site; no part of the digest.
    """

    level: Level
    facts: Mapping[str, FactValue]
    subject: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        """Return ``sha256:`` and 64 hexadecimal digits over the facts in their canonical form."""
        import hashlib

        return f"sha256:{hashlib.sha256(canonical(self.facts)).hexdigest()}"

    @property
    def name(self) -> str:
        """Return how messages call it: host and function, as far as they are known."""
        subject = self.subject
        where = subject.get("primary") or subject.get("node") or ""
        which = subject.get("cntlid", "")
        function = "/".join(part for part in (where, which) if part)
        host = subject.get("host", "")
        return f"{function or 'a function'} on {host}" if host else function or self.digest[:19]

    def document(self) -> ManifestDocument:
        """Return what ``nvmelm compat export`` prints; facts in the order of their names."""
        return ManifestDocument(
            level=self.level,
            digest=self.digest,
            subject=dict(self.subject),
            labels=dict(self.labels),
            facts={name: self.facts[name] for name in sorted(self.facts)},
        )

    def to_json(self) -> dict[str, Any]:
        """Return the document, keys in the order in which they are read."""
        return self.document().to_json()

    def dumps(self, *, indent: int | None = 2) -> str:
        """Return the document as ASCII text; ``indent`` None gives the one line of an NDJSON stream."""
        return json.dumps(self.to_json(), indent=indent)

    @classmethod
    def parse(cls, text: str | bytes) -> Manifest:
        """Read one document.

        Raises:
            MalformedError: not a manifest, or its digest is not that of its facts.
        """
        return cls.from_json(load(text))

    @classmethod
    def from_json(cls, document: object) -> Manifest:
        """Read a document that was parsed already; the errors are those of :meth:`parse`."""
        if not isinstance(document, dict) or document.get("schema") != ManifestDocument.schema_name:
            raise _bad("it does not say that it is one", fix="name a file made by nvmelm compat export")
        if type(document.get("version")) is not int or document["version"] != _VERSION:
            raise _bad(f"its version is not {_VERSION}", fix="read it with the nvmelm that wrote it")
        if set(document) != _KEYS:
            raise _bad(f"its keys are not {', '.join(sorted(_KEYS))}")
        level = document["level"]
        if level not in ("device", "prospective"):
            raise _bad("its level is neither device nor prospective")
        manifest = cls(
            cast("Level", level),
            check_facts(document["facts"]),
            _words(document["subject"], "subject"),
            _words(document["labels"], "labels"),
        )
        if document["digest"] != manifest.digest:
            raise MalformedError(
                "the manifest's digest is not that of its facts",
                cause="it was altered, or damaged on the way",
                fix="export it again: nvmelm compat export PF CNTLID -o FILE",
                reason="manifest-altered",
            )
        return manifest


def canonical(facts: Mapping[str, FactValue]) -> bytes:
    """Return the bytes a digest is taken over: JSON, keys sorted, no blanks, ASCII."""
    return json.dumps({"facts": dict(facts), "version": _VERSION}, sort_keys=True, separators=(",", ":")).encode()


def load(text: str | bytes) -> object:
    """Parse JSON that may be hostile: bounded, no key twice, no numbers that are none.

    Raises:
        MalformedError: it is not such JSON.
    """
    if len(text) > MAX_BYTES:
        raise _bad(f"it is longer than {MAX_BYTES} bytes")
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        parsed: object = json.loads(decoded, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        raise _bad("it is not JSON", fix="name a file made by nvmelm compat export") from error
    return parsed


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice")
    return document


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def check_facts(facts: object) -> dict[str, FactValue]:
    """Return facts of unknown origin when every one has a form a fact can have, and lists of namespaces agree.

    Raises:
        MalformedError: with the first that is wrong.
    """
    if not isinstance(facts, dict) or len(facts) > _MAX_FACTS:
        raise _bad(f"its facts are not an object of at most {_MAX_FACTS}")
    for name, value in facts.items():
        known = FACTS.get(name)
        if known is not None and not valid(known, value):
            raise _bad(f"{name} is not {known.kind}")
        if known is None and not (_FACT_NAME.fullmatch(name) and _plain(value)):
            raise _bad(f"{str(name)[:80]!r} is no fact", cause=_FORMS)
    _check_namespaces(facts)
    _check_identified(facts)
    return facts


def _plain(value: object) -> bool:
    """Return whether a fact of a later version has a form a fact can have."""
    if isinstance(value, list):
        return len(value) <= MAX_ITEMS and len({type(item) for item in value}) <= 1 and all(map(_scalar, value))
    return isinstance(value, bool) or _scalar(value)


def _scalar(value: object) -> bool:
    return (type(value) is int and -LARGEST <= value <= LARGEST) or (isinstance(value, str) and len(value) <= MAX_TEXT)


def _check_namespaces(facts: Mapping[str, Any]) -> None:
    """Refuse lists that do not run along the namespaces' ids: item n would speak of another namespace."""
    ids = facts.get("namespaces.ids")
    if ids is not None and any(left >= right for left, right in pairwise(ids)):
        raise _bad("namespaces.ids do not ascend")
    along = [value for name, value in facts.items() if name.startswith("namespaces.") and _runs_along(name)]
    if len({len(value) for value in along}) > 1:
        raise _bad("its lists of namespaces are not equally long")


def _check_identified(facts: Mapping[str, Any]) -> None:
    """Refuse a claim that each namespace has an identifier when not every one shows one: zeros are none."""
    if facts.get("namespaces.identified") is not True:
        return
    for place, nsid in enumerate(facts.get("namespaces.ids", ())):
        stated = (facts[name][place] for name in _IDENTIFIERS if name in facts)
        if not any(identifier.strip("0-") for identifier in stated):
            raise _bad(
                f"namespaces.identified is true, and namespace {nsid} has no identifier",
                cause="its NGUID, EUI64 and UUID are zeros, or not stated",
            )


def _runs_along(name: str) -> bool:
    return name in FACTS and FACTS[name].kind in (Kind.INTS, Kind.TEXTS)


def _words(value: object, what: str) -> dict[str, str]:
    fine = isinstance(value, dict) and len(value) <= _MAX_WORDS
    if not fine or not all(label_fits(key, word) for key, word in cast("dict[str, Any]", value).items()):
        raise _bad(f"its {what} are not words by name")
    return cast("dict[str, str]", value)


def label_fits(key: str, word: object) -> bool:
    """Return whether a label, or a part of the subject, has a form one can have."""
    return _KEY.fullmatch(key) is not None and isinstance(word, str) and len(word) <= MAX_TEXT


def _bad(why: str, *, cause: str = "", fix: str = "nvmelm compat export writes manifests") -> MalformedError:
    message = f"this is not a manifest that can be used: {why}"
    return MalformedError(message, cause=cause, fix=fix, reason="manifest-malformed")
