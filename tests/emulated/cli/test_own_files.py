"""What stands where nvmelm keeps something of its own is named, with what to do; no device is blamed, nobody waits."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nvmelm.cli import main
from nvmelm.emulator.host import create

PF = "0000:01:00.0"
#: What nvmelm keeps below a host's directory, and the verbs that need it.
OWN = {
    "": ["status", "show nvme0", "recover", "source prepare nvme0 --vfs 2 --yes", "release nvme0 --yes"],
    "locks": ["status", "show nvme0", "secondary list nvme0", "state suspend nvme0 0x42 --yes"],
    f"locks/{PF}.lock": ["status", "show nvme0", "secondary online nvme0 0x42", "host check"],
    "journal": ["recover", "source prepare nvme0 --vfs 2 --vq 4 --yes", "release nvme0 --yes"],
    f"journal/{PF}.jsonl": ["recover", "source prepare nvme0 --vfs 2 --vq 4 --yes", "release nvme0 --yes"],
    "marks": ["status", "show nvme0", "state suspend nvme0 0x42 --yes"],
    f"marks/{PF}": ["status", "show nvme0", "state suspend nvme0 0x42 --yes"],
    f"marks/{PF}/0x0042.json": ["status", "show nvme0", "state suspend nvme0 0x42 --yes"],
    "sessions.db": ["status", "recover", "secondary offline nvme0 0x42 --yes"],
}
MAKE: dict[str, Callable[[Path], object]] = {
    "file": lambda path: path.write_text("x"),
    "directory": lambda path: path.mkdir(mode=0o700),
    "pipe": lambda path: os.mkfifo(path, 0o600),
    "loop": lambda path: path.symlink_to(path.name),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("own") / "host"
    create(place).close()
    assert main(["--host", f"emulated:{place}", "source", "prepare", "nvme0", "--vfs", "2", "--vq", "3", "--yes"]) == 0
    return place


@pytest.fixture
def host(template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(template, tmp_path / "host")


def misplace(path: Path, kind: str) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    MAKE[kind](path)


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Fail when the block still waits for who has the other end of a pipe."""

    def late(*_about: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def wrong() -> Iterator[tuple[str, str]]:
    for name in OWN:
        own_kind = "file" if name.endswith((".lock", ".jsonl", ".json", ".db")) else "directory"
        yield from ((name, kind) for kind in MAKE if kind != own_kind)


@pytest.mark.parametrize(("name", "kind"), [*wrong()])
def test_every_verb_that_needs_it_names_the_wrong_one_and_what_to_do(
    host: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    path = host / "nvmelm" / name if name else host / "nvmelm"
    misplace(path, kind)
    for verb in OWN[name]:
        capsys.readouterr()
        with deadline(20):
            code = main(["--host", f"emulated:{host}", *verb.split()])
        said = "".join(capsys.readouterr())
        assert code != 0, verb
        assert str(path) in said, verb
        assert "look at it" in said, verb
        assert "does not answer" not in said, verb
        assert "bug in nvmelm" not in said, verb
