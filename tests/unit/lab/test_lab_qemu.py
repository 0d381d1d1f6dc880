"""The lab's own QEMU: where our lines go in its source, and what the build asks of the machine. Nothing is compiled."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.lab.qemu import build, hooks
from tests.lab.qemu.hooks import HOOKS, BuildError, Hook, insert

HEADER = Hook("hw/nvme/nvme.h", '#include "block/nvme.h"\n', '#include "migration.h"\n')
BEFORE = Hook("hw/nvme/ctrl.c", "static int second(void)\n{\n", '#include "migration.c"\n\n', before=True)
AFTER = Hook("hw/nvme/ctrl.c", "    first();\n", "    ours();\n")
MADE_UP = (HEADER, BEFORE, AFTER)
CODE = "static int first(void);\n\nstatic int second(void)\n{\n    first();\n    return 0;\n}\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a source tree of two files, made up."""
    place = tmp_path / "qemu/hw/nvme"
    place.mkdir(parents=True)
    (place / "nvme.h").write_text('#include "qemu/uuid.h"\n#include "block/nvme.h"\n')
    (place / "ctrl.c").write_text(CODE)
    return tmp_path / "qemu"


def test_the_lines_stand_beside_their_anchors_and_nothing_else_is_changed(tree: Path) -> None:
    insert(tree, MADE_UP)
    assert (tree / "hw/nvme/nvme.h").read_text() == (
        '#include "qemu/uuid.h"\n#include "block/nvme.h"\n#include "migration.h"\n'
    )
    assert (tree / "hw/nvme/ctrl.c").read_text() == (
        'static int first(void);\n\n#include "migration.c"\n\n'
        "static int second(void)\n{\n    first();\n    ours();\n    return 0;\n}\n"
    )


@pytest.mark.parametrize("code", [CODE.replace("    first();\n", ""), CODE + CODE], ids=["missing", "twice"])
def test_an_anchor_that_is_not_there_exactly_once_is_named_and_no_file_is_touched(tree: Path, code: str) -> None:
    (tree / "hw/nvme/ctrl.c").write_text(code)
    header = (tree / "hw/nvme/nvme.h").read_text()
    with pytest.raises(BuildError, match=r"ctrl\.c has this (0|2) times") as caught:
        insert(tree, (HEADER, AFTER))
    assert str(caught.value).endswith("\n    first();")
    assert (tree / "hw/nvme/ctrl.c").read_text() == code
    assert (tree / "hw/nvme/nvme.h").read_text() == header


def test_a_second_time_is_refused_and_changes_nothing(tree: Path) -> None:
    insert(tree, MADE_UP)
    once = (tree / "hw/nvme/ctrl.c").read_text()
    with pytest.raises(BuildError, match="has the lab's lines already"):
        insert(tree, MADE_UP)
    assert (tree / "hw/nvme/ctrl.c").read_text() == once


def test_a_source_without_nvme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="not the source of a QEMU"):
        insert(tmp_path, MADE_UP)


def test_anchors_are_whole_lines_and_every_function_they_call_is_ours() -> None:
    code = (hooks.HERE / "migration.c").read_text()
    for hook in HOOKS:
        assert hook.anchor.endswith("\n")
        assert hook.lines.endswith("\n")
        for called in re.findall(r"\bnvme_migration_\w+(?=\()", hook.lines):
            assert re.search(rf"^static \w+ {called}\(", code, re.MULTILINE), called
    assert len({(hook.file, hook.anchor) for hook in HOOKS}) == len(HOOKS)


def test_preparing_is_done_once_and_other_lines_ask_for_a_new_source(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "configs/devices/x86_64-softmmu").mkdir(parents=True)
    monkeypatch.setattr(build, "HOOKS", MADE_UP)
    monkeypatch.setattr(build, "insert", lambda root: insert(root, MADE_UP))
    build.prepare(tree)
    once, stamp = (tree / "hw/nvme/ctrl.c").read_text(), (tree / "hw/nvme/migration.c").stat().st_mtime_ns
    build.prepare(tree)
    assert (tree / "hw/nvme/ctrl.c").read_text() == once
    assert (tree / "hw/nvme/migration.c").stat().st_mtime_ns == stamp  # nothing to compile again
    assert "CONFIG_NVME_PCI=y\n" in (tree / "configs/devices/x86_64-softmmu/lab.mak").read_text()
    monkeypatch.setattr(build, "HOOKS", (HEADER,))
    with pytest.raises(BuildError, match="remove it"):
        build.prepare(tree)


def test_what_is_missing_is_named_by_its_debian_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda program, path: None if program == "meson" else f"/bin/{program}")
    monkeypatch.setattr(build, "INCLUDES", tmp_path)

    def pkg_config(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(words, 1 if words[-1] == "pixman-1" else 0)

    monkeypatch.setattr("subprocess.run", pkg_config)
    assert build.missing_packages() == ["meson", "libpixman-1-dev", "libfdt-dev", "libattr1-dev"]


def test_both_files_say_their_licence() -> None:
    for name in hooks.FILES:
        assert "SPDX-License-Identifier: MIT" in (hooks.HERE / name).read_text().splitlines()[1]


def test_a_binary_is_built_once_for_all_that_it_is_made_from(
    tree: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    built: list[str] = []

    def compiled(_tree: Path, _jobs: int) -> Path:
        built.append("built")
        (tree / "built").write_text("binary")
        return tree / "built"

    monkeypatch.setattr(build, "missing_packages", list)
    monkeypatch.setattr(build, "fetch", lambda _into: tree)
    monkeypatch.setattr(build, "prepare", lambda _tree: None)
    monkeypatch.setattr(build, "build", compiled)
    monkeypatch.setattr(build, "_run", lambda words: Path(words[2]).write_bytes(Path(words[3]).read_bytes()))
    monkeypatch.setattr(build, "_installed_version", lambda: "1:7.2")
    cache = tmp_path / "cache"
    for number in range(2):  # another clone has the same cache
        assert build.provide(tmp_path / f"clone{number}", 1, cache).read_text() == "binary"
    assert built == ["built"]
    monkeypatch.setattr(build, "HOOKS", (HEADER,))
    build.provide(tmp_path / "clone0", 1, cache)
    assert built == ["built", "built"]
