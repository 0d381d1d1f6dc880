"""Where a migration goes to: what is accepted, and that nothing in it becomes an option, a path or shell."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.errors import UsageError
from nvmelm.inventory.address import Address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssh://host", Address("host")),
        ("ssh://host/nvme0", Address("host", pf="nvme0")),
        ("ssh://host/nvme0/0x42", Address("host", pf="nvme0", cntlids=(0x42,))),
        ("ssh://host/nvme0/66,43h", Address("host", pf="nvme0", cntlids=(66, 0x43))),
        ("ssh://me@host:2222/0000:01:00.0/1", Address("host", "me", 2222, "0000:01:00.0", (1,))),
        ("ssh://[fe80::1%eth0]:22/nvme0", Address("fe80::1%eth0", port=22, pf="nvme0")),
        ("ssh://[fe80::1%25eth0]/nvme0", Address("fe80::1%eth0", pf="nvme0")),
        ("ssh://[fe80::1%25251]/nvme0", Address("fe80::1%251", pf="nvme0")),
        ("ssh://admin@corp.example@b/nvme0", Address("b", "admin@corp.example", pf="nvme0")),
        ("ssh://admin%40corp.example@b:22/nvme0", Address("b", "admin@corp.example", 22, "nvme0")),
        ("ssh://CORP%5Cadmin@b/nvme0", Address("b", "CORP\\admin", pf="nvme0")),
        ("ssh://b%2Dhost/nvme0", Address("b-host", pf="nvme0")),
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
        "ssh://%2DoProxyCommand=reboot/nvme0",
        "ssh://%2Dl@host/nvme0",
        "ssh://a%20b@host/nvme0",
        "ssh://a@@/nvme0",
        "ssh://@corp@host/nvme0",
        "ssh://me@host%2Fetc/nvme0",
        "ssh://[fe80::1%25eth0;reboot]/nvme0",
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


@pytest.mark.parametrize(
    "text", ["ssh://admin@corp.example@b/nvme0", "ssh://[fe80::1%25eth0]:22/nvme0", "ssh://CORP%5Ca@b/0000:01:00.0"]
)
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert Address.parse(str(Address.parse(text))) == Address.parse(text)


def test_ssh_gets_the_user_with_his_domain() -> None:
    assert Address.parse("ssh://admin%40corp.example@b/nvme0").command("true")[-2:] == ["admin@corp.example@b", "true"]


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_a_usage_error(text: str) -> None:
    try:
        address = Address.parse(f"ssh://{text}")
    except UsageError:
        return
    assert not address.host.startswith("-")
    assert not address.user.startswith("-")
    assert Address.parse(str(address)) == address


def test_ssh_gets_the_host_behind_the_end_of_its_options() -> None:
    command = Address.parse("ssh://me@host:2222/nvme0").command("nvmelm serve")
    assert command == ["ssh", "-T", "-p", "2222", "--", "me@host", "nvmelm serve"]


def test_what_replaces_ssh_gets_the_host_and_one_line() -> None:
    command = Address.parse("ssh://host/nvme0").command("sudo nvmelm serve", rsh="my-rsh -x 'a b'")
    assert command == ["my-rsh", "-x", "a b", "host", "sudo nvmelm serve"]
