"""The command lines that the Ansible modules run: in check mode nothing that changes anything, whatever it is named."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import nvmelm

COLLECTION = Path(nvmelm.__file__).parent / "share/ansible/ansible_collections/nvmelm/fleet/plugins"


class Ended(Exception):  # noqa: N818
    """The module ended, as Ansible's own ``exit_json`` and ``fail_json`` do."""


class Module:
    """What the modules use of an AnsibleModule; the commands they run are kept."""

    def __init__(self, *, check_mode: bool, agree: bool = True, **params: Any) -> None:
        self.check_mode = check_mode
        self.params = {"executable": "nvmelm", "host": None, "agree": agree, **params}
        self.ran: list[list[str]] = []

    def run_command(self, command: list[str], environ_update: dict[str, str]) -> tuple[int, str, str]:
        self.ran.append(command)
        return 0, "{}", ""

    def exit_json(self, **_: Any) -> None:
        raise Ended

    fail_json = exit_json


@pytest.fixture(scope="module")
def shared() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shared", COLLECTION / "module_utils" / "nvmelm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("value", ["list", "show", "check", "export", "--dry-run", "nvme0"])
@pytest.mark.parametrize(("check_mode", "added"), [(True, "--dry-run"), (False, "--yes")])
def test_no_name_and_no_value_makes_a_verb_one_that_changes_nothing(
    value: str, check_mode: bool, added: str, shared: ModuleType
) -> None:
    module = Module(check_mode=check_mode)
    command = shared.words(module, "migrate", to="ssh://b/nvme0", policy=value, names=[value, value])
    shared.run(module, command, changes=True)
    options = ["nvmelm", "migrate", "--to=ssh://b/nvme0", f"--policy={value}", added, "--json"]
    assert module.ran == [[*options, "--", value, value]]


def test_what_changes_nothing_is_run_as_it_is(shared: ModuleType) -> None:
    module = Module(check_mode=True)
    command = shared.words(module, "show", names=["nvme0"])
    shared.run(module, command, changes=False)
    assert module.ran == [command]


def test_without_agree_nothing_is_agreed_to(shared: ModuleType) -> None:
    module = Module(check_mode=False, agree=False)
    command = shared.words(module, "release", names=["show"])
    shared.run(module, command, changes=True)
    assert module.ran == [command]


@pytest.mark.parametrize("state", ["prepared", "released"])
def test_a_function_named_like_a_verb_is_prepared_and_released_in_a_dry_run_only(
    state: str, shared: ModuleType
) -> None:
    asked: dict[str, Any] = {"vfs": 1, "vq": None, "vi": None, "unmarked": False, "expires": None}
    module = Module(check_mode=True, pf="show", state=state, **asked)
    with pytest.raises(Ended):
        shared.prepare(lambda **_: module, "destination")
    assert "--dry-run" in module.ran[0][: module.ran[0].index("--")]
    assert module.ran[0][module.ran[0].index("--") :] == ["--", "show"]


@pytest.mark.parametrize("text", ["--yes", "-y", "0x42 --yes", "", "0x12345", "0x42\n", "\N{ARABIC-INDIC DIGIT ONE}"])
def test_what_is_no_controller_id_is_none(text: str, shared: ModuleType) -> None:
    with pytest.raises(Ended):
        shared.cntlid(Module(check_mode=False), text)


@pytest.mark.parametrize("text", ["0x42", "0X0042", "66", "42h"])
def test_a_controller_id_is_passed_on_as_it_was_written(text: str, shared: ModuleType) -> None:
    assert shared.cntlid(Module(check_mode=False), text) == text


@pytest.mark.parametrize("value", ["--yes", "--rsh=touch /nowhere", "-y", "--", "--json"])
def test_whatever_stands_in_an_inventory_is_no_option(value: str, shared: ModuleType) -> None:
    module = Module(check_mode=False, agree=False)
    command = shared.words(module, "source", "prepare", vq=value, names=[value])
    shared.run(module, command, changes=True)
    assert module.ran == [["nvmelm", "source", "prepare", f"--vq={value}", "--json", "--", value]]
