"""A controlling function is found by its name or address where it is, and searched for by its serial number only."""

from __future__ import annotations

import pytest

from nvmelm.errors import UsageError
from nvmelm.inventory.find import find_primary
from tests.emulated.conftest import MakeHost

PF, SECOND = "0000:01:00.0", "0000:02:00.0"


@pytest.mark.parametrize("name", ["nvme1", "/dev/nvme1", SECOND, SECOND.removeprefix("0000:")])
def test_a_name_or_address_needs_no_search(make_host: MakeHost, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    host = make_host("nvme-2.1", "nvme-2.1")
    monkeypatch.setattr(type(host.sysfs), "devices", lambda *_: pytest.fail("every controller was looked for"))
    assert (find_primary(host, name).node, str(find_primary(host, name).address)) == ("nvme1", SECOND)


def test_a_serial_number_is_searched_for(make_host: MakeHost) -> None:
    host = make_host("nvme-2.1", "nvme-2.1")
    wanted = find_primary(host, "nvme1")
    assert find_primary(host, wanted.serial) == wanted


@pytest.mark.parametrize("name", ["nvme7", "nvme", "../nvme0", "0000:09:00.0", "", "."])
def test_a_name_that_nothing_has_is_refused(make_host: MakeHost, name: str) -> None:
    with pytest.raises(UsageError, match="there is no controlling function"):
        find_primary(make_host(), name)
