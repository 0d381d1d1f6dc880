"""The map of the rooms is that of the folders, and every room says what lives there."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

import nvmelm

HOUSE = Path(nvmelm.__file__).parent
CONTRIBUTING = Path(__file__).parents[2] / "docs" / "contributing.md"
#: What a room may hold at most before it is a drawer.
MOST = 27
#: Lines a module may have at most; a longer one has two subjects.
LONGEST = 400
#: Rooms whose listing is a table of the program: the words that are typed.
LISTED_ELSEWHERE = {"cli/verbs"}


def rooms() -> list[Path]:
    """Return the packages of nvmelm; what lies in share/ is for others."""
    return sorted(file.parent for file in HOUSE.rglob("__init__.py") if "share" not in file.parts)


def contents(room: Path) -> set[str]:
    """Return what is in a room: its modules, and its own rooms with a slash."""
    modules = {file.stem for file in room.glob("*.py") if not file.stem.startswith("__")}
    return modules | {f"{file.parent.name}/" for file in room.glob("*/__init__.py")}


def named(room: Path) -> set[str]:
    """Return what the docstring of a room lists."""
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    table = re.findall(r"^    (\w+/?) {2,}\S", text, re.MULTILINE)
    roles = re.findall(r"^:mod:`~[\w.]*?(\w+)` +\S", text, re.MULTILINE)
    return {*table, *roles}


def mapped() -> set[str]:
    """Return the paths that the map in docs/contributing.md names, folders with a slash."""
    lines = CONTRIBUTING.read_text(encoding="utf-8").partition("```text\nnvmelm/\n")[2].partition("```")[0]
    above: list[str] = []
    paths = set()
    for line in lines.splitlines():
        word = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[: depth - 1], word]
        paths.add("".join(above))
    return paths


def classes(text: str) -> list[str]:
    """Return the classes that a module defines, at any depth."""
    return [node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]


def test_no_two_classes_have_one_name() -> None:
    """A name in a signature or a traceback says which class it is; what lies in share/ is named by Ansible."""
    modules = defaultdict(list)
    for file in sorted(HOUSE.rglob("*.py")):
        if "share" not in file.relative_to(HOUSE).parts:
            for name in classes(file.read_text(encoding="utf-8")):
                modules[name].append(file.relative_to(HOUSE).as_posix())
    assert {name: places for name, places in modules.items() if len(places) > 1} == {}


def test_a_structure_outside_the_wire_room_says_whose_it_is() -> None:
    """NVMe's own are declared as the specification's tables; any other has the owner's name for it, or a reason."""
    bare = []
    for file in sorted(HOUSE.rglob("*.py")):
        lines = file.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            if "= struct.Struct(" in line and HOUSE / "wire" not in file.parents:
                before = lines[number - 1]
                if not before.startswith("#") and "= struct.Struct(" not in before:
                    bare.append(f"{file.relative_to(HOUSE)}:{number + 1}")
    assert bare == []


def test_the_map_is_that_of_the_folders() -> None:
    folders = {f"{room.relative_to(HOUSE).as_posix()}/" for room in rooms() if room != HOUSE} | {"share/"}
    modules = {file.name for file in HOUSE.glob("*.py") if not file.stem.startswith("__")}
    assert mapped() == folders | modules


@pytest.mark.parametrize("room", rooms(), ids=lambda room: room.relative_to(HOUSE).as_posix())
def test_every_room_opens_with_what_lives_there(room: Path) -> None:
    if room.relative_to(HOUSE).as_posix() in LISTED_ELSEWHERE:
        return
    assert named(room) - {"share/"} == contents(room)


@pytest.mark.parametrize("room", rooms(), ids=lambda room: room.relative_to(HOUSE).as_posix())
def test_no_room_is_a_drawer(room: Path) -> None:
    assert len(contents(room)) <= MOST


def test_no_module_is_longer_than_can_be_read_at_once() -> None:
    """A longer one is cut by subject; what lies in share/ counts, too."""
    lines = {
        file.relative_to(HOUSE).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
        for file in HOUSE.rglob("*.py")
    }
    assert len(lines) > 200
    assert {module: count for module, count in lines.items() if count > LONGEST} == {}


def test_the_places_that_contributors_are_sent_to_are_there() -> None:
    text = CONTRIBUTING.read_text(encoding="utf-8").partition("| What is new |")[2].partition("\n\n")[0]
    places = re.findall(r"`([a-z_]+(?:/[a-z_]*)*(?:\.py|/))`", text)
    assert len(places) > 10
    assert [place for place in places if not (HOUSE / place).exists()] == []
