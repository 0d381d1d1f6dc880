"""``show`` says which namespaces each VF sees: one without any would be an empty controller to its VM."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nvmelm import cli
from nvmelm.emulator.machine.generations import NVME_2_1
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.prepare import sequence
from tests.emulated.answers import agree
from tests.emulated.conftest import MakeHost


@pytest.mark.parametrize(
    ("attached", "nsids", "sentence"),
    [(True, [1], "0x0042 sees namespace 1"), (False, [], "0x0042 sees no namespace: its VM gets an empty controller")],
)
def test_show_says_which_namespaces_an_enabled_vf_sees(
    attached: bool, nsids: list[int], sentence: str, make_host: MakeHost, capsys: Any
) -> None:
    host = make_host(NVME_2_1.with_(max_vfs=4, attached_to_secondaries=attached))
    with open_primary(host, "nvme0", change=True) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 1, confirm=agree)
    assert cli.main(["--host", host.name, "show", "nvme0"]) == 0
    assert sentence in capsys.readouterr().out
    assert cli.main(["--host", host.name, "show", "nvme0", "--json"]) == 0
    first, *others = json.loads(capsys.readouterr().out)["secondaries"]
    assert first["namespaces"] == nsids
    assert {secondary["namespaces"] for secondary in others} == {None}


def test_a_device_that_does_not_tell_is_shown_all_the_same(make_host: MakeHost, capsys: Any) -> None:
    host = make_host(NVME_2_1.with_(max_vfs=4))
    with open_primary(host, "nvme0", change=True) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 1, confirm=agree)
    host.arm("admin/0x06/0x12*9=status:0x4002")
    assert cli.main(["--host", host.name, "show", "nvme0"]) == 0
    assert "sees" not in capsys.readouterr().out
