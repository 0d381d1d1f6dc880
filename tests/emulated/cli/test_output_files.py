"""Files that a verb is told to write: nothing is overwritten without a word, no link is followed, nobody else reads."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvmelm.cli import main
from nvmelm.cli.verbs.migrate.migration import RoundsFile
from nvmelm.disk.atomic import AtomicFile
from nvmelm.emulator.host import create
from nvmelm.errors import HostError, NotReadyError, UsageError

PF, VF = "nvme0", "0x42"

#: Every verb that writes a file whose name was typed, NAME here; a move's are below.
WRITERS = [
    "state save nvme0 0x42 NAME",
    "compat export nvme0 0x42 -o NAME",
    "bug-report nvme0 -o NAME",
    "fixture record NAME nvme0",
    "show nvme0 --record NAME",
    "--record NAME list",
]


def typed(words: str, name: str, *more: str) -> int:
    return main([*words.replace("NAME", name).split(), *more])


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a directory with a prepared host whose first controller is suspended; nothing is masked."""
    create(tmp_path / "host")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NVMELM_HOST", f"emulated:{tmp_path}/host")
    assert main(["source", "prepare", PF, "--vfs", "1"]) == 0
    assert main(["state", "suspend", PF, VF, "--yes"]) == 0
    before = os.umask(0)
    yield tmp_path
    os.umask(before)


@pytest.mark.parametrize("words", WRITERS)
def test_a_file_that_is_there_is_replaced_only_by_force(
    place: Path, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = place / "file"
    file.write_text("precious")
    capsys.readouterr()
    assert typed(words, "file") == 10
    error = capsys.readouterr().err
    assert "error: file is there already" in error
    assert "--force" in error
    assert file.read_text() == "precious"
    assert typed(words, "file", "--force") == 0
    assert file.read_bytes()[:8] != b"precious"


@pytest.mark.parametrize("words", WRITERS)
@pytest.mark.parametrize("force", [[], ["--force"]], ids=["", "force"])
def test_a_link_is_not_followed(place: Path, words: str, force: list[str]) -> None:
    (place / "victim").write_text("precious")
    (place / "link").symlink_to("victim")
    (place / "dangling").symlink_to("nowhere")
    for name in ("link", "dangling"):
        assert typed(words, name, *force) == 2
    assert (place / "victim").read_text() == "precious"
    assert not (place / "nowhere").exists()


@pytest.mark.parametrize("words", WRITERS)
def test_what_is_written_is_its_owners_whatever_the_umask(place: Path, words: str) -> None:
    assert typed(words, "file") == 0
    assert stat.S_IMODE((place / "file").stat().st_mode) == 0o600


def test_a_tree_is_replaced_only_by_force_and_through_no_link(place: Path) -> None:
    words = ["compat", "export", PF, VF, "--tree", "tree"]
    assert main(words) == 0
    value = place / "tree" / "migration" / "self" / "digest"
    (place / "victim").write_text("precious")
    value.unlink()
    value.symlink_to(place / "victim")
    assert main(words) == 10
    assert value.is_symlink()
    assert main([*words, "--force"]) == 2
    assert (place / "victim").read_text() == "precious"
    value.unlink()
    assert main([*words, "--force"]) == 0
    assert stat.S_IMODE(value.stat().st_mode) == 0o600


@pytest.mark.parametrize("replace", [False, True])
def test_rounds_follow_no_link_and_are_read_by_nobody_else(tmp_path: Path, *, replace: bool) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "link").symlink_to("victim")
    with pytest.raises(UsageError), RoundsFile(tmp_path / "link", replace=replace) as rounds:
        rounds.write({})
    assert (tmp_path / "victim").read_text() == "precious"
    before = os.umask(0)
    try:
        with RoundsFile(tmp_path / "file", replace=replace) as rounds:
            rounds.write({"round": 1})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_rounds_replace_by_force_and_leave_who_has_the_old_file_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "other").hardlink_to(tmp_path / "file")
    with pytest.raises(NotReadyError), RoundsFile(tmp_path / "file"):
        pass
    with RoundsFile(tmp_path / "file", replace=True) as rounds:
        rounds.write({"round": 1})
    assert (tmp_path / "other").read_text() == "precious"
    assert (tmp_path / "file").read_text() == '{"round": 1}\n'


def _file(path: Path) -> None:
    path.write_text("precious")


def _link(path: Path) -> None:
    path.symlink_to("nowhere")


@pytest.mark.parametrize("appear", [_file, _link])
@pytest.mark.parametrize("nameless", [True, False])
def test_a_name_that_was_taken_meanwhile_stays_with_who_took_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, appear: Callable[[Path], None], *, nameless: bool
) -> None:
    if not nameless:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # a file system that has none: EISDIR
    with AtomicFile(tmp_path / "file") as file:
        file.write(b"mine")
        appear(tmp_path / "file")
        with pytest.raises(NotReadyError, match="is there already"):
            file.commit()
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").is_symlink() or (tmp_path / "file").read_text() == "precious"


def test_a_directory_that_is_not_there_is_an_error_with_its_cause_and_a_fix(tmp_path: Path) -> None:
    with pytest.raises(HostError) as caught:
        AtomicFile(tmp_path / "nowhere" / "file")
    assert caught.value.cause
    assert caught.value.fix


@pytest.mark.parametrize("option", ["--report", "--log-user-data", "--dirty"])
@pytest.mark.parametrize("where", ["nowhere/file", "taken/file", "/proc/file"])
def test_a_move_names_the_option_of_a_file_that_it_could_not_write_before_anything_moves(
    place: Path, option: str, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "taken").write_text("a file, and no directory")
    track = ["--track", "0:4096"] if option == "--dirty" else []
    capsys.readouterr()
    words = ["migrate", PF, VF, "--to", "ssh://nobody/nvme0", "--rsh", "/bin/false", option, where, *track]
    assert main(words) == 1
    error = capsys.readouterr().err
    assert f"error: cannot write the file of {option}: {where}: " in error
    assert "rounds" not in error
    assert f"{option} FILE" in error
