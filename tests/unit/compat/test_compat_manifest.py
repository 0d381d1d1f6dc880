"""A manifest survives being written and read, and nothing else is taken for one."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.compat.manifest import Manifest
from nvmelm.compat.verdict import judge
from nvmelm.errors import MalformedError
from tests.unit.manifests import ANY, manifest


def document() -> dict[str, Any]:
    return manifest(subject={"host": "a", "cntlid": "0x0042"}, labels={"rack": "r1"}).to_json()


@given(ANY)
def test_what_is_written_is_read_again(one: Manifest) -> None:
    again = Manifest.parse(one.dumps())
    assert again == one
    assert again.digest == one.digest
    assert one.dumps().isascii()
    assert Manifest.parse(one.dumps(indent=None).encode()) == one
    assert "\n" not in one.dumps(indent=None)


def test_the_digest_is_over_the_facts_alone() -> None:
    one = manifest(subject={"host": "a"}, labels={"rack": "r1"})
    assert one.digest == manifest().digest
    assert one.digest == manifest(level="prospective").digest
    assert one.digest != manifest({"resources.vq": 5}).digest
    assert one.digest != manifest(without="resources.vq").digest


def test_the_digest_is_the_sha256_of_the_canonical_text() -> None:
    import hashlib

    text = '{"facts":{"host.iommu":true,"namespaces.ids":[1,7],"resources.vq":4},"version":1}'
    one = Manifest("device", {"resources.vq": 4, "namespaces.ids": [1, 7], "host.iommu": True})
    assert one.digest == "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "nvmelm.verdict"),
        (("version",), 2),
        (("version",), True),
        (("version",), None),
        (("level",), "both"),
        (("facts",), []),
        (("facts", "resources.vq"), "4"),
        (("facts", "resources.vq"), 4.0),
        (("facts", "resources.vq"), None),
        (("facts", "resources.vq"), -1),
        (("facts", "host.iommu"), 1),
        (("facts", "namespaces.ids"), [7, 1]),
        (("facts", "namespaces.ids"), [1, 1]),
        (("facts", "namespaces.ids"), [1]),
        (("facts", "a.later_fact"), {"deep": 1}),
        (("facts", "a.later_fact"), 1.5),
        (("facts", "a.later_fact"), [[1]]),
        (("facts", "a.later_fact"), [1, "1"]),
        (("facts", "../escape"), 1),
        (("facts", "A.B"), 1),
        (("facts", "alone"), 1),
        (("subject",), None),
        (("subject",), {"host": 1}),
        (("labels",), {"rack\n": "r1"}),
        (("labels",), {"": "r1"}),
        (("extra",), 1),
    ],
)
def test_a_document_that_is_not_quite_a_manifest_is_refused(path: tuple[str, ...], value: object) -> None:
    changed = document()
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(MalformedError) as caught:
        Manifest.from_json(changed)
    assert caught.value.reason == "manifest-malformed"
    assert caught.value.fix


@pytest.mark.parametrize("key", ["schema", "version", "level", "digest", "subject", "labels", "facts"])
def test_a_document_that_lacks_a_key_is_refused(key: str) -> None:
    changed = document()
    del changed[key]
    with pytest.raises(MalformedError):
        Manifest.from_json(changed)


@pytest.mark.parametrize("digest", ["", "sha256:" + "0" * 64, None, 1])
def test_altered_facts_are_refused(digest: object) -> None:
    with pytest.raises(MalformedError) as caught:
        Manifest.from_json({**document(), "digest": digest})
    assert caught.value.reason == "manifest-altered"


def test_a_fact_changed_by_hand_is_refused() -> None:
    changed = document()
    changed["facts"]["resources.vq"] = 64
    with pytest.raises(MalformedError, match="digest"):
        Manifest.from_json(changed)


def test_a_fact_of_a_later_version_survives() -> None:
    one = manifest({"identity.later": ["x"]})
    assert Manifest.parse(one.dumps()).facts["identity.later"] == ["x"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"schema": "nvmelm.manifest", "schema": "nvmelm.manifest"}',
        b'{"schema": NaN}',
        b'{"schema": ' + b"9" * 5000 + b"}",
        b'"\\ud800"',
        b" " * (16 * 1024 * 1024 + 1),
    ],
    ids=lambda text: str(text[:12]),
)
def test_hostile_text_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedError):
        Manifest.parse(text)


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_random_text_is_never_a_manifest(text: bytes | str) -> None:
    with pytest.raises(MalformedError):
        Manifest.parse(text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_a_mutilated_manifest_never_crashes_and_never_fits(data: st.DataObject) -> None:
    whole = manifest()
    changed = copy.deepcopy(whole.to_json())
    inner = changed["facts"] if data.draw(st.booleans()) else changed
    key = data.draw(st.sampled_from(sorted(inner)) | st.text(max_size=10))
    before = copy.deepcopy(inner.get(key))
    inner[key] = data.draw(_JSON)
    text = json.dumps(changed)
    try:
        read = Manifest.parse(text)
    except MalformedError:
        return
    assert judge(read, whole).compatible is (read.digest == whole.digest)
    assert read.digest == whole.digest, f"{key} was {before}: its digest did not notice"


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ({"host": "a", "primary": "0000:01:00.0", "cntlid": "0x0042"}, "0000:01:00.0/0x0042 on a"),
        ({"node": "nvme0"}, "nvme0"),
        ({}, manifest().digest[:19]),
    ],
)
def test_a_manifest_has_a_name_for_messages(subject: dict[str, str], name: str) -> None:
    assert manifest(subject=subject).name == name


ZEROS = {
    "namespaces.nguid": ["0" * 32, "0" * 32],
    "namespaces.eui64": ["0" * 16, "0" * 16],
    "namespaces.uuid": ["00000000-0000-0000-0000-000000000000"] * 2,
}


@pytest.mark.parametrize("without", ["", *ZEROS])
def test_a_claim_of_identifiers_without_one_is_not_believed(without: str) -> None:
    claims = manifest(ZEROS, without=without)
    with pytest.raises(MalformedError, match="namespace 1 has no identifier"):
        Manifest.parse(claims.dumps())
    assert Manifest.parse(manifest({**ZEROS, "namespaces.identified": False}, without=without).dumps())


@pytest.mark.parametrize("name", ZEROS)
def test_one_identifier_of_any_kind_is_enough(name: str) -> None:
    Manifest.parse(manifest({**ZEROS, name: [word.replace("0", "f") for word in ZEROS[name]]}).dumps())


def test_no_namespaces_need_no_identifiers() -> None:
    facts = {
        name: [] for name in manifest().facts if name.startswith("namespaces.") and name != "namespaces.identified"
    }
    assert Manifest.parse(manifest(facts).dumps()).facts["namespaces.identified"] is True
