"""The paths the kernel shows a function at name it; a namespace names none, and says whose it is."""

from __future__ import annotations

import pytest

from nvmelm.emulator.host import EmulatedHost
from nvmelm.errors import UsageError
from nvmelm.inventory.find import find_function, find_primary
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.prepare import sequence
from tests.emulated.answers import agree
from tests.emulated.conftest import MakeHost

PF, VF = "0000:01:00.0", "0000:01:00.1"


@pytest.fixture
def host(make_host: MakeHost) -> EmulatedHost:
    host = make_host()
    with open_primary(host, PF, change=True) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, 1, confirm=agree)
    return host


@pytest.mark.parametrize(
    "text",
    [
        "nvme0",
        "/dev/nvme0",
        PF,
        f"/sys/bus/pci/devices/{PF}",
        f"/sys/bus/pci/devices/{PF}/",
        f"/sys/devices/pci0000:00/0000:00:03.0/{PF}",
        "/sys/class/nvme/nvme0",
        "/sys/class/nvme/nvme0/",
    ],
)
def test_a_path_names_the_controlling_function_that_it_shows(host: EmulatedHost, text: str) -> None:
    assert str(find_primary(host, text).address) == PF
    if not text.endswith("/"):
        assert find_function(host, f"{text}/0x42")[1] == 0x42


def test_a_path_names_the_controlled_function_that_it_shows(host: EmulatedHost) -> None:
    ref, which = find_function(host, f"/sys/bus/pci/devices/{VF}")
    assert (str(ref.address), str(which)) == (PF, VF)
    with pytest.raises(UsageError, match="is a VF, not a controlling function"):
        find_primary(host, f"/sys/bus/pci/devices/{VF}")


@pytest.mark.parametrize(
    "text", ["/dev/nvme0n1", "nvme0n1", "/dev/nvme0n1p2", "/dev/ng0n1", "/sys/class/block/nvme0n1"]
)
def test_a_namespace_is_refused_by_name(host: EmulatedHost, text: str) -> None:
    for find in (find_primary, find_function):
        with pytest.raises(UsageError, match="is a namespace, not a function") as met:
            find(host, text)
        assert "nvmelm list" in met.value.fix or "nvme0" in met.value.fix
