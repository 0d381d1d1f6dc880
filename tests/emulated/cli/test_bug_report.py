"""``nvmelm bug-report``: one archive for its owner alone, without serial numbers, and never a controller's state."""

from __future__ import annotations

import json
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelm.cli import main
from nvmelm.cli.verbs.bug_report.archive import Secrets
from nvmelm.emulator.host import create
from nvmelm.ownership.sessions import Moving, Sessions, Side, State, new_record

SERIALS = ("SECRET-ONE", "SECRET-TWO")
SESSION = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An emulated host with two PFs, a preparation on each, and a saved state."""
    create(tmp_path / "host", ["nvme-2.1", "nvme-2.1"], serials=list(SERIALS)).close()
    monkeypatch.setenv("NVMELM_HOST", f"emulated:{tmp_path}/host")
    monkeypatch.chdir(tmp_path)
    for pf in ("nvme0", "nvme1"):
        assert main(["source", "prepare", pf, "--vfs", "1"]) == 0
    return tmp_path


def contents(file: Path) -> dict[str, str]:
    with tarfile.open(file) as archive:
        return {member.name: _text(archive, member) for member in archive.getmembers()}


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    opened = archive.extractfile(member)
    assert opened is not None
    return opened.read().decode()


def texts(files: dict[str, str]) -> Iterator[str]:
    for name, text in files.items():
        yield name
        yield text


def test_it_holds_a_recording_of_each_pf_and_what_else_is_needed(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["bug-report", "-o", "report.tar.gz", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    files = contents(place / "report.tar.gz")
    names = {name.removeprefix("nvmelm-bug-report/") for name in files}
    shows = {"show-0000-01-00.0.json", "show-0000-02-00.0.json"}
    assert names == {"README", "host-check.json", "versions.json", "runs.json", "sessions.json", *shows}
    assert {file["name"] for file in document["files"]} == names - {"README"}
    assert document["redacted"] is True
    assert document["missing"] == []
    versions = json.loads(files["nvmelm-bug-report/versions.json"])
    assert {"pydantic", "typer", "pyudev"} <= set(versions["packages"])
    runs = json.loads(files["nvmelm-bug-report/runs.json"])
    assert [run_["verb"] for run_ in runs] == ["source prepare"] * 2


def test_its_recordings_replay(place: Path) -> None:
    assert main(["bug-report", "nvme0", "-o", "report.tar.gz"]) == 0
    recording = contents(place / "report.tar.gz")["nvmelm-bug-report/show-0000-01-00.0.json"]
    (place / "recording.json").write_text(recording)
    assert main(["fixture", "replay", "recording.json"]) == 0


def test_no_serial_number_or_nqn_of_any_pf_is_in_it_also_when_it_is_about_one(place: Path) -> None:
    for words in (["bug-report"], ["bug-report", "nvme0"], ["bug-report", "SECRET-TWO"]):
        assert main([*words, "-o", "report.tar.gz", "--force"]) == 0
        for text in texts(contents(place / "report.tar.gz")):
            for secret in (*SERIALS, "nqn.2026"):
                assert secret not in text
                assert secret.encode().hex() not in text


def test_the_serial_number_of_a_pf_that_is_gone_is_not_in_it_however_short_it_is(place: Path) -> None:
    from nvmelm.hosts import open_host
    from nvmelm.prepare.journal import Journal

    with open_host(f"emulated:{place}/host") as host:
        for address, serial in (("0000:0a:00.0", "GONE-SERIAL"), ("0000:0b:00.0", "Q7")):
            Journal(host, address).begin("sriov enable", serial, {})
    assert main(["bug-report", "-o", "report.tar.gz"]) == 0
    for text in texts(contents(place / "report.tar.gz")):
        assert "GONE-SERIAL" not in text
        assert '"Q7' not in text


def test_no_name_of_another_host_is_in_it(place: Path) -> None:
    from nvmelm.hosts import open_host

    with open_host(f"emulated:{place}/host") as host:
        moving = (Moving(cntlid=0x42, peer_cntlid=0x42, incarnation=1, vq=1, vi=1),)
        record = new_record(
            host, SESSION, Side.SOURCE, peer="ssh://admin@hal:22/nvme0", primary="0000:01:00.0",
            serial=SERIALS[0], controllers=moving,
        )  # fmt: skip
        with Sessions(host) as sessions:
            sessions.move(sessions.open(record), State.ROLLED_BACK, "admin@hal: lost contact with hal")
    assert main(["bug-report", "-o", "report.tar.gz"]) == 0
    text = contents(place / "report.tar.gz")["nvmelm-bug-report/sessions.json"]
    (session,) = json.loads(text)
    assert session["session"] == SESSION
    assert session["state"] == "rolled-back"
    assert "hal" not in text
    assert "admin" not in text


def test_nothing_of_a_state_is_in_it(place: Path) -> None:
    assert main(["state", "suspend", "nvme0", "0x42", "--yes"]) == 0
    assert main(["state", "save", "nvme0", "0x42", str(place / "host" / "vf.state")]) == 0
    assert main(["bug-report", "-o", "report.tar.gz"]) == 0
    for name, text in contents(place / "report.tar.gz").items():
        if "show-" in name:
            commands = [event for event in json.loads(text)["events"] if "admin" in event]
            assert commands
            assert all(int(event["opcode"], 16) not in (0x41, 0x42) for event in commands if "opcode" in event)


def test_only_its_owner_can_read_it_and_a_name_that_is_no_file_is_left_alone(place: Path) -> None:
    assert main(["bug-report", "-o", "report.tar.gz"]) == 0
    assert stat.S_IMODE((place / "report.tar.gz").stat().st_mode) == 0o600
    with tarfile.open(place / "report.tar.gz") as archive:
        assert {member.mode for member in archive.getmembers()} == {0o600}
    (place / "link").symlink_to("elsewhere")
    assert main(["bug-report", "-o", "link"]) == 2
    assert not (place / "elsewhere").exists()


def test_without_root_it_holds_what_can_be_had_and_says_what_is_missing(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nvmelm.emulator.host import EmulatedHost

    with EmulatedHost(place / "host") as host:
        host.set_option(privileged=False)
    capsys.readouterr()
    assert main(["bug-report", "-o", "report.tar.gz"]) == 0
    assert "missing, show-0000-01-00.0.json, the end of it: " in capsys.readouterr().out
    files = contents(place / "report.tar.gz")
    assert "nvmelm-bug-report/show-0000-01-00.0.json" in files
    assert "root" in files["nvmelm-bug-report/host-check.json"]
    assert "missing, " in files["nvmelm-bug-report/README"]


def test_without_a_name_it_is_written_here_under_one_with_the_time(place: Path) -> None:
    assert main(["bug-report"]) == 0
    (file,) = place.glob("nvmelm-bug-report-*T*Z.tar.gz")
    assert contents(file)


def test_a_secret_that_a_file_writes_otherwise_is_found_there_too() -> None:
    secrets = Secrets()
    secrets.add('A"B\\CD')
    text = json.dumps({"serial": 'A"B\\CD', "raw": b'A"B\\CD'.hex()})
    assert "CD" not in secrets.without(text)
    assert b'A"B\\CD'.hex() not in secrets.without(text)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give its rights up for a while")
def test_a_user_who_may_not_read_what_nvmelm_remembers_gets_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NVMELM_STATE_DIR", str(tmp_path / "private" / "nvmelm"))
    (tmp_path / "private" / "nvmelm").mkdir(parents=True)
    (tmp_path / "private").chmod(0o700)
    words = ["--host", "local", "bug-report", "--json", "-o"]
    assert main([*words, str(tmp_path / "root.tar.gz")]) == 0  # and everything is imported
    capsys.readouterr()
    with tempfile.TemporaryDirectory() as shared:
        Path(shared).chmod(0o777)
        os.seteuid(65534)
        try:
            assert main([*words, f"{shared}/report.tar.gz"]) == 0
        finally:
            os.seteuid(0)
    document = json.loads(capsys.readouterr().out)
    assert {gap["name"] for gap in document["missing"]} == {"runs.json", "sessions.json"}
    assert {file["name"] for file in document["files"]} >= {"versions.json", "host-check.json"}
