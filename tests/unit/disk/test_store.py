"""A small file that is remembered is whole, its owner's, and not held up by one who was killed while writing it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nvmelm.disk import store
from nvmelm.disk.private import prove_private
from nvmelm.errors import HostError


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_is_replaced_as_a_whole_and_leaves_nothing_beside_it(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "mark.json"
    for content in ("a longer text", "short"):
        store.write(path, content, durable=durable)
    assert path.read_text() == "short"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["mark.json"]


def test_what_a_killed_process_of_the_same_number_left_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / f".mark.json.{os.getpid()}.new").touch()
    store.write(tmp_path / "mark.json", "here")
    assert store.read(tmp_path / "mark.json") == "here"


def test_every_directory_that_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    store.append(tmp_path / "state/journal/0000:01:00.0.jsonl", "line\n")
    assert prove_private(tmp_path / "proven/below")
    for name in ("state", "state/journal", "proven", "proven/below"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o700


def test_a_file_where_the_directory_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(HostError, match="it is no directory") as caught:
        prove_private(tmp_path / "state")
    assert caught.value.reason == "state-directory-not-private"
