"""Two disks are one only when they say so: identifiers of zeros are not known, and what is not known does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvmelm.compat.describe import of_function
from nvmelm.compat.manifest import Manifest
from nvmelm.compat.policy import Policy
from nvmelm.compat.verdict import Verdict, judge
from nvmelm.emulator.host import create
from nvmelm.emulator.machine.generations import NVME_2_1, DeviceGeneration, NamespaceRow
from nvmelm.errors import MalformedError
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.prepare import sequence
from nvmelm.wire.namespace_id import IdType, parse_descriptors

PF, FIRST = "nvme0", 0x42
NAMELESS = NVME_2_1.with_(namespace_ids=False)


def agree(_question: str) -> None:
    """Say yes to everything."""


def manifest(directory: Path, row: DeviceGeneration, media: Path | None = None, fault: str = "") -> Manifest:
    """Return the manifest of the first controlled function of a new host."""
    host = create(directory, (row,), storage=media)
    with host, open_primary(host, PF, change=True) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 1, vq=2, vi=2, confirm=agree)
        if fault:
            host.arm(fault)
        picture = pf.picture()
        return of_function(host, pf.queue, picture, picture.secondaries[0])


def verdict(tmp_path: Path, row: DeviceGeneration, *, shared: bool) -> Verdict:
    media = [tmp_path / "media"] * 2 if shared else [tmp_path / "mine", tmp_path / "yours"]
    source, destination = (manifest(tmp_path / name, row, place) for name, place in zip("ab", media, strict=True))
    return judge(source, destination)


def codes(judged: Verdict) -> set[str]:
    return {reason.code for reason in judged.blocking()}


def test_two_hosts_that_share_a_medium_fit(tmp_path: Path) -> None:
    assert verdict(tmp_path, NVME_2_1, shared=True).compatible


def test_two_hosts_with_media_of_their_own_do_not(tmp_path: Path) -> None:
    assert codes(verdict(tmp_path, NVME_2_1, shared=False)) == {"nguid-differs", "uuid-differs"}


@pytest.mark.parametrize("shared", [True, False])
def test_namespaces_without_identifiers_do_not_fit_whatever_they_are(shared: bool, tmp_path: Path) -> None:
    assert codes(verdict(tmp_path, NAMELESS, shared=shared)) == {"namespace-unidentified"}


def test_a_policy_lets_them_fit_on_an_operators_word(tmp_path: Path) -> None:
    judged = [manifest(tmp_path / name, NAMELESS, tmp_path / "media") for name in "ab"]
    allowed = '[[allow]]\nfact = "namespaces.identified"\nwhy = "one array, two paths"\n'
    assert judge(*judged, Policy.parse(f'schema = "nvmelm.policy"\nversion = 1\n{allowed}')).compatible


def test_one_nameless_namespace_among_others_is_enough_to_block(tmp_path: Path) -> None:
    facts = dict(manifest(tmp_path / "a", NVME_2_1).facts)
    assert facts["namespaces.identified"] is True
    two = NAMELESS.with_(namespaces=(NamespaceRow(), NamespaceRow(nsid=2)))
    assert manifest(tmp_path / "b", two).facts["namespaces.identified"] is False


def test_a_function_without_namespaces_has_none_that_is_nameless(tmp_path: Path) -> None:
    facts = manifest(tmp_path / "a", NVME_2_1.with_(namespaces=())).facts
    assert (facts["namespaces.ids"], facts["namespaces.identified"]) == ([], True)


@pytest.mark.parametrize("status", [0x4002, 0x400B])
def test_a_controller_that_does_not_tell_the_uuid_has_none_that_is_known(status: int, tmp_path: Path) -> None:
    facts = manifest(tmp_path / "a", NVME_2_1, fault=f"admin/0x06/3=status:{status:#x}").facts
    assert facts["namespaces.uuid"] == ["00000000-0000-0000-0000-000000000000"]
    assert facts["namespaces.identified"] is True, "it has an NGUID"


def test_one_that_fails_to_tell_leaves_the_namespaces_unknown(tmp_path: Path) -> None:
    facts = manifest(tmp_path / "a", NVME_2_1, fault="admin/0x06/3=status:0x4006").facts
    assert not [name for name in facts if name.startswith("namespaces.")]


def test_descriptors_are_read_as_the_specification_lays_them_out() -> None:
    uuid = bytes(range(16))
    page = bytes([3, 16, 0, 0, *uuid, 1, 8, 0, 0, *range(8), 4, 1, 0, 0, 0]).ljust(4096, b"\0")
    assert parse_descriptors(page) == {IdType.UUID: uuid, IdType.EUI64: bytes(range(8))}


@pytest.mark.parametrize("page", [bytes([3, 8, 0, 0, *range(8)]), bytes([2, 16, 0, 0, 1])])
def test_descriptors_that_make_no_sense_are_refused(page: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_descriptors(page)
