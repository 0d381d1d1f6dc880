"""The configuration: what is accepted, and errors that name file, line and key."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.desired import config
from nvmelm.desired.config import config_files, load, parse
from nvmelm.errors import UsageError

GOOD = """
[[pf]]
serial = "A"
vfs = 4
role = "source"
vq = 2
vi = 1
expires = "8h"

[[pf]]
address = "0000:02:00.0"
vfs = 1
"""


def test_every_entry_is_read_with_its_place() -> None:
    first, second = parse("f", GOOD)
    assert (first.by, first.name, first.vfs, first.role) == ("serial", "A", 4, "source")
    assert (first.vq, first.vi, first.expires_s, first.place) == (2, 1, 28800, "f:2")
    assert (second.by, second.role, second.vq, second.expires_s, second.place) == (
        "address",
        "unmarked",
        None,
        None,
        "f:10",
    )


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[[pf]]\nserial = 'A'\nvfs = 0", "f:3: vfs"),
        ("[[pf]]\nserial = 'A'\nvfs = true", "f:3: vfs"),
        ("[[pf]]\nserial = 'A'\nvfs = 1\nroel = 'source'", "f:4: roel is unknown; meant is role?"),
        ("[[pf]]\nserial = 'A'\nvfs = 1\n[[pf]]\nserial = 'B'\nvfs = 1\nrole = 'x'", "f:7: role"),
        ("[[pf]]\nserial = 'A'\naddress = 'x'\nvfs = 1", "f:3: address"),
        ("# nothing\n[[pf]]\nvfs = 1", "f:2: pf"),
        ("[[pf]]\nserial = ''\nvfs = 1", "f:2: serial"),
        ("[[pf]]\nserial = 'A'", "f:1: pf vfs is missing"),
        ("[[pf]]\nserial = 'A'\nvfs = 1\nexpires = '0h'", "f:4: expires"),
        ("\nother = 1", "f:2: other"),
        ("pf = 1", "f:1: pf"),
        ("[[pf]\n", "not TOML"),
    ],
)
def test_an_error_names_file_line_and_key(text: str, place: str) -> None:
    with pytest.raises(UsageError) as met:
        parse("f", text)
    assert place in met.value.message


@given(st.text(max_size=200))
def test_any_text_is_a_configuration_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        parse("f", text)


@given(
    st.dictionaries(
        st.sampled_from(["serial", "address", "vfs", "role", "vq", "expires", "else"]),
        st.integers(-5, 70000).map(str) | st.sampled_from(['"source"', '"A"', "true", "[]", "1.5", '"8h"', '""']),
    )
)
def test_any_values_are_a_configuration_or_a_usage_error(values: dict[str, str]) -> None:
    text = "[[pf]]\n" + "\n".join(f"{key} = {value}" for key, value in values.items())
    with suppress(UsageError):
        assert len(parse("f", text)) == 1


def test_files_are_read_in_order_and_a_function_stands_once(tmp_path: Path) -> None:
    (tmp_path / "nvmelm.d").mkdir()
    (tmp_path / "nvmelm.toml").write_text("[[pf]]\nserial = 'A'\nvfs = 1\n")
    (tmp_path / "nvmelm.d" / "b.toml").write_text("[[pf]]\nserial = 'B'\nvfs = 1\n")
    (tmp_path / "nvmelm.d" / "a.toml").write_text("[[pf]]\nserial = 'C'\nvfs = 1\n")
    assert [entry.name for entry in load(config_files(tmp_path))] == ["A", "C", "B"]
    (tmp_path / "nvmelm.d" / "z.toml").write_text("\n[[pf]]\nserial = 'A'\nvfs = 2\n")
    with pytest.raises(UsageError) as met:
        load(config_files(tmp_path))
    assert "nvmelm.toml:1" in met.value.cause
    assert "z.toml:2" in met.value.cause


@pytest.mark.parametrize("text", ["nvme0", "/dev/nvme0", "0000:01:00", "0000:01:20.0", "0000:01:00.8", " "])
def test_an_address_that_is_none_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(UsageError) as met:
        parse("f", f"[[pf]]\nvfs = 1\naddress = '{text}'")
    assert met.value.message.startswith("f:3: address is no PCI address")
    assert met.value.reason == "config"


@pytest.mark.parametrize("text", ["01:00.0", "0000:01:00.0", " 0000:01:00.0 "])
def test_an_address_is_kept_as_the_kernel_writes_it(text: str) -> None:
    assert parse("f", f"[[pf]]\nvfs = 1\naddress = '{text}'")[0].name == "0000:01:00.0"


def test_one_function_in_two_spellings_stands_twice(tmp_path: Path) -> None:
    rows = "[[pf]]\nvfs = 1\naddress = '01:00.0'\n[[pf]]\nvfs = 1\naddress = '0000:01:00.0'\n"
    (tmp_path / "nvmelm.toml").write_text(rows)
    with pytest.raises(UsageError, match="stands twice"):
        load(config_files(tmp_path))


def causes(directory: Path | None) -> str:
    with pytest.raises(UsageError) as met:
        config_files(directory)
    assert met.value.reason == "config"
    return f"{met.value.message}: {met.value.cause}"


def test_a_directory_without_a_configuration_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert causes(tmp_path).endswith(f"neither nvmelm.toml nor nvmelm.d/*.toml is in {tmp_path}")
    monkeypatch.setenv("NVMELM_CONFIG", str(tmp_path))
    assert causes(None).endswith(f"is in {tmp_path}")
    assert causes(tmp_path / "none").endswith(f"{tmp_path / 'none'} is no directory")


def test_what_bears_a_name_of_the_configuration_and_is_no_file_is_said_to_be_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "nvmelm.toml"
    path.mkdir()
    assert causes(tmp_path) == f"{path} is no file: it is a directory"
    path.rmdir()
    path.symlink_to("nowhere")
    assert causes(tmp_path) == f"{path} is no file: it is a link to {tmp_path / 'nowhere'}, which cannot be read"
    path.unlink()
    path.symlink_to("/dev/zero")
    assert causes(tmp_path) == f"{path} is no file: it is a device"
    path.unlink()
    more = tmp_path / "nvmelm.d"
    more.write_text("")
    assert causes(tmp_path) == f"{more} is no directory: it is a file"
    more.unlink()
    more.mkdir()
    (more / "a.toml").symlink_to("nowhere")
    assert "a.toml is no file: it is a link to" in causes(tmp_path)


def test_a_pipe_or_a_socket_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "nvmelm.toml"
    os.mkfifo(path)
    assert causes(tmp_path) == f"{path} is no file: it is a pipe or a socket, which is not waited for"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        assert "it is a pipe or a socket" in causes(tmp_path)


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "nvmelm.toml"
    path.write_bytes("[[pf]]\nserial = 'GERÄT'\nvfs = 1\n".encode("latin-1"))
    with pytest.raises(UsageError) as met:
        load([path])
    assert met.value.message == f"{path}:2: this is not UTF-8"
    assert "0xc4" in met.value.cause
    path.write_text("[[pf]]\nserial = 'GERÄT'\nvfs = 1\n")
    assert load([path])[0].name == "GERÄT"


def test_the_place_of_each_of_many_entries_is_found_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def again(*_: object) -> int:
        raise AssertionError("the text was gone through once more")

    monkeypatch.setattr(config, "_line", again)
    text = "".join(f"[[pf]]\nserial = 'S{number}'\nvfs = 1\n\n" for number in range(4000))
    entries = parse("f", text)
    assert [entry.place for entry in entries] == [f"f:{1 + 4 * number}" for number in range(4000)]


def test_entries_of_an_inline_list_have_a_place_too() -> None:
    assert [entry.place for entry in parse("f", "pf = [{serial = 'A', vfs = 1}, {serial = 'B', vfs = 2}]")] == [
        "f:1"
    ] * 2


def test_an_entry_masked_with_dev_null_and_an_editors_lock_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "nvmelm.d").mkdir()
    (tmp_path / "nvmelm.d" / "a.toml").symlink_to("/dev/null")
    (tmp_path / "nvmelm.d" / ".#b.toml").symlink_to("user@host.1234")
    assert load(config_files(tmp_path)) == []
