"""The attribute tree: one value a file, the same manifest when it is read again, and nothing hostile taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nvmelm.compat.dialects.tree import read_tree, write_tree
from nvmelm.compat.verdict import judge
from nvmelm.errors import HostError, MalformedError
from tests.unit.manifests import manifest

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_tree(manifest(), tmp_path / "tree")
    return tmp_path / "tree"


def own(tree: Path) -> Path:
    return tree / "migration" / "self"


def test_a_tree_is_the_manifest_it_was_made_of(tree: Path) -> None:
    found = read_tree(tree)
    assert found.digest == manifest().digest
    assert judge(found, manifest()).compatible


def test_every_file_is_one_line_of_ascii_with_one_value(tree: Path) -> None:
    for file in tree.rglob("*"):
        if file.is_file():
            text = file.read_text(encoding="ascii")
            assert text.endswith("\n")
            assert text.count("\n") == 1


def test_a_tree_has_the_fields_the_proposal_demands(tree: Path) -> None:
    facts = manifest().facts
    assert (own(tree) / "device_api").read_text() == "vfio-pci\n"
    assert (own(tree) / "software_version").read_text() == f"{facts['identity.nvme_version']}\n"
    ids = f"{facts['identity.vendor_id']:04x}:{facts['identity.vf_device_id']:04x}\n"
    assert (own(tree) / "pci_id").read_text() == ids
    assert (tree / "migration" / "compatible" / "resources.vq").read_text().startswith(("equal ", "at-least "))


def test_a_tree_that_is_written_again_has_nothing_left_over(tree: Path) -> None:
    (own(tree) / "left.over").write_text("1\n")
    write_tree(manifest(), tree, replace=True)
    assert read_tree(tree).digest == manifest().digest


@pytest.mark.parametrize("name", ["digest", "level", "type", "pci_id", "device_api", "identity.model", "resources.vq"])
def test_a_tree_without_one_of_its_files_is_no_manifest(tree: Path, name: str) -> None:
    (own(tree) / name).unlink()
    with pytest.raises(MalformedError):
        read_tree(tree)


@SLOW
@given(data=st.data())
def test_no_altered_tree_is_taken(data: st.DataObject, tmp_path: Path) -> None:
    place = tmp_path / data.draw(st.uuids()).hex
    write_tree(manifest(), place, replace=True)
    name = data.draw(st.sampled_from(sorted(os.listdir(own(place)))))
    text = data.draw(st.text(max_size=20))
    before = (own(place) / name).read_text()
    (own(place) / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    try:
        found = read_tree(place)
    except MalformedError:
        return
    assert text.removesuffix("\n") == before.removesuffix("\n") or found.digest == manifest().digest


def test_links_pipes_and_odd_names_are_refused(tree: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("1\n")
    for make in (
        lambda path: path.symlink_to(secret),
        os.mkfifo,
        Path.mkdir,
    ):
        path = own(tree) / "limits.more"
        make(path)
        with pytest.raises((MalformedError, HostError)):
            read_tree(tree)
        path.rmdir() if path.is_dir() else path.unlink()
    for name in ("UPPER", "a b", "..x", "x" * 200):
        (own(tree) / name).write_text("1\n")
        with pytest.raises(MalformedError):
            read_tree(tree)
        (own(tree) / name).unlink()


def test_a_value_of_a_megabyte_is_refused(tree: Path) -> None:
    (own(tree) / "limits.more").write_text("1" * (1 << 20) + "\n")
    with pytest.raises(MalformedError):
        read_tree(tree)


def test_a_directory_that_is_no_tree_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError):
        read_tree(tmp_path)
