"""A controlled function is named in three ways, and each verb that takes one reads all of them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from nvmelm.cli import main
from nvmelm.cli.frame import functions
from nvmelm.cli.reference import tree
from nvmelm.emulator.host import create
from nvmelm.errors import UsageError

FORMS = {"two words": ["nvme0", "0x42"], "one word": ["nvme0/0x42"], "address": ["0000:01:00.1"]}
VERBS = {verb.name: verb for topic in tree.topics() for verb in topic.verbs}
TAKES = {name for name, verb in VERBS.items() if any(one in verb.pieces for one in ("FUNCTION", "END", "SOURCE"))}


class Rest(NamedTuple):
    """What is typed around the function, and on what kind of host."""

    before: str = ""
    after: str = ""
    suspended: bool = False


#: LIST, MANIFEST and IMAGE are files.
REST = {
    "show": Rest(),
    "secondary list": Rest(),
    "secondary assign": Rest(after="--vq 2 --dry-run"),
    "secondary online": Rest(after="--dry-run"),
    "secondary offline": Rest(after="--dry-run --yes"),
    "secondary allow-migration": Rest(after="--dry-run"),
    "secondary allow-resume": Rest(after="--dry-run --yes"),
    "secondary revoke": Rest(after="--dry-run"),
    "vfio bind": Rest(after="--dry-run"),
    "vfio unbind": Rest(after="--dry-run"),
    "vm attach": Rest(after="--print"),
    "vm detach": Rest(after="--qmp /nowhere --dry-run"),
    "state suspend": Rest(after="--dry-run"),
    "state resume": Rest(after="--dry-run", suspended=True),
    "state save": Rest(after="IMAGE --dry-run", suspended=True),
    "state restore": Rest(after="MANIFEST --dry-run"),
    "migrate": Rest(after="--to ssh://b/nvme0 --rsh /bin/true --dry-run"),
    "compat export": Rest(),
    "compat check": Rest(after="nvme0/0x43"),
    "compat steps": Rest(after="nvme0/0x43"),
    "compat token": Rest(),
    "compat parameters info": Rest(),
    "compat parameters list": Rest(),
    "compat parameters check": Rest(before="LIST"),
    "compat parameters apply": Rest(before="LIST", after="--dry-run"),
}
#: What differs between two runs of the same words; how the end of a link is noticed does, too.
PASSING = {"at", "created_at", "command", "cause", "notes"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("names")
    create(directory / "a").close()
    world = f"emulated:{directory}/a"
    assert main(["--host", world, "source", "prepare", "nvme0", "--vfs", "2", "--vq", "2", "--vi", "2"]) == 0
    assert main(["--host", world, "compat", "export", "nvme0", "0x42", "-o", str(directory / "MANIFEST")]) == 0
    shutil.copytree(directory / "a", directory / "a-suspended")
    assert main(["--host", f"{world}-suspended", "state", "suspend", "nvme0", "0x42", "--yes"]) == 0
    return directory


def answer(place: Path, capsys: pytest.CaptureFixture[str], name: str, function: list[str]) -> tuple[int, Any]:
    rest = REST[name]
    files = {word: str(place / word) for word in ("LIST", "MANIFEST", "IMAGE")}
    before, after = ([files.get(word, word) for word in part.split()] for part in (rest.before, rest.after))
    capsys.readouterr()
    world = f"emulated:{place}/a{'-suspended' if rest.suspended else ''}"
    status = main(["--host", world, *name.split(), "--json", *before, *function, *after])
    return status, without(json.loads(capsys.readouterr().out))


def without(value: Any) -> Any:
    if isinstance(value, list):
        return [without(item) for item in value]
    if isinstance(value, dict):
        return {key: without(item) for key, item in value.items() if key not in PASSING}
    return value


def test_every_verb_that_takes_a_function_is_tried_here() -> None:
    assert set(REST) == TAKES


def test_no_verb_asks_for_an_address_or_an_id_alone() -> None:
    words = {word.strip("[].") for verb in VERBS.values() for word in verb.pieces.split()}
    assert not words & {"VF", "CNTLID", "ADDRESS", "BDF"}


@pytest.mark.parametrize("name", REST)
def test_the_three_names_are_one_function(place: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    listed = main(["--host", f"emulated:{place}/a", "compat", "parameters", "list", "nvme0", "0x42", "--json"])
    (place / "LIST").write_text(capsys.readouterr().out)
    assert listed == 0
    answers = [answer(place, capsys, name, form) for form in FORMS.values()]
    status, document = answers[0]
    assert status != 2, document
    assert answers == [answers[0]] * 3


def test_a_list_may_mix_the_three_and_ids_belong_to_the_pf_before_them() -> None:
    words = ["nvme0", "0x42", "43h", "nvme1/0x1", "0000:01:00.1", "/dev/nvme2", "7"]
    assert functions.names(words) == ["nvme0/0x42", "nvme0/43h", "nvme1/0x1", "0000:01:00.1", "/dev/nvme2/7"]


def test_a_word_too_many_is_refused_and_not_passed_over() -> None:
    with pytest.raises(UsageError, match="2 functions"):
        functions.name(["nvme0", "0x41", "0x42"])
    with pytest.raises(UsageError, match="3 ends"):
        functions.ends(["nvme0", "nvme1", "nvme2"], 2)


@pytest.mark.parametrize("words", ["release nvme0/0x42", "sriov disable nvme0/0x42", "release 0000:01:00.1"])
def test_where_the_whole_pf_is_meant_a_function_is_refused_with_its_pf(
    place: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    assert main(["--host", f"emulated:{place}/a", *words.split(), "--dry-run"]) == 2
    assert "fix:   name its PF, " in capsys.readouterr().err


def test_one_function_is_shown_alone(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, document = answer(place, capsys, "show", ["0000:01:00.1"])
    assert [secondary["cntlid"] for secondary in document["secondaries"]] == [0x42]


def test_fixes_say_what_was_meant_by_an_address(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--host", f"emulated:{place}/a", "state", "save", "0000:01:00.1", str(place / "image")]) == 10
    assert "0x0042" in capsys.readouterr().err


def test_a_function_of_the_other_host_is_named_by_its_address_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, verb in (("a", "source"), ("b", "destination")):
        create(tmp_path / name, serials=[name], storage=tmp_path / "media").close()
        assert main(["--host", f"emulated:{tmp_path}/{name}", verb, "prepare", "nvme0", "--vfs", "2"]) == 0
    capsys.readouterr()
    rsh = ["--rsh", f"{sys.executable} -m nvmelm emulate rsh {tmp_path}", "--program", f"{sys.executable} -m nvmelm"]
    to = "ssh://b/0000:01:00.2"
    assert (
        main(["--host", f"emulated:{tmp_path}/a", "migrate", "nvme0", "0x42", "--to", to, *rsh, "--yes", "--json"]) == 0
    )
    moved = json.loads(capsys.readouterr().out)
    assert [one["destination_cntlid"] for one in moved["controllers"]] == [0x43]
