"""Where a migration goes to: what is accepted, and that nothing in it becomes an option, a path or shell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.errors import UsageError
from nvmelm.migrate.address import Address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssh://host", Address("host")),
        ("ssh://host/nvme0", Address("host", pf="nvme0")),
        ("ssh://host/nvme0/0x42", Address("host", pf="nvme0", cntlids=(0x42,))),
        ("ssh://host/nvme0/66,43h", Address("host", pf="nvme0", cntlids=(66, 0x43))),
        ("ssh://me@host:2222/0000:01:00.0/1", Address("host", "me", 2222, "0000:01:00.0", (1,))),
        ("ssh://[fe80::1%eth0]:22/nvme0", Address("fe80::1%eth0", port=22, pf="nvme0")),
        ("ssh://host/dev/nvme0", Address("host", pf="/dev/nvme0")),
        ("ssh://host//dev/nvme0/0x42", Address("host", pf="/dev/nvme0", cntlids=(0x42,))),
    ],
)
def test_an_address_names_host_pf_and_controllers(text: str, expected: Address) -> None:
    assert Address.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host/nvme0",
        "http://host/nvme0",
        "ssh://",
        "ssh://-oProxyCommand=reboot/nvme0",
        "ssh://-l@host/nvme0",
        "ssh://host:/nvme0",
        "ssh://host:0/nvme0",
        "ssh://host:65536/nvme0",
        "ssh://host:22x/nvme0",
        "ssh://ho st/nvme0",
        "ssh://host;reboot/nvme0",
        "ssh://host/-rf/1",
        "ssh://host/nvme0;reboot/1",
        "ssh://host/nvme0\n/1",
        "ssh://[::1;reboot]/nvme0",
        "ssh://host/nvme0/nonsense",
        "ssh://host/nvme0/0x10000",
        "ssh://" + "h" * 2000,
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Address.parse(text)


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        found = Address.parse(f"ssh://{text}")
    except UsageError:
        return
    assert not found.host.startswith("-")
    assert not found.user.startswith("-")
    assert Address.parse(str(found)) == found


def test_ssh_gets_the_host_behind_the_end_of_its_options() -> None:
    command = Address.parse("ssh://me@host:2222/nvme0").command("nvmelm serve")
    assert command == ["ssh", "-T", "-p", "2222", "--", "me@host", "nvmelm serve"]


def test_what_replaces_ssh_gets_the_host_and_one_line() -> None:
    command = Address.parse("ssh://host/nvme0").command("sudo nvmelm serve", rsh="my-rsh -x 'a b'")
    assert command == ["my-rsh", "-x", "a b", "host", "sudo nvmelm serve"]
