"""The journal: what was there before survives a torn line, a full disk and another boot; a lost line is named."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelm.disk import store
from nvmelm.errors import HostError, MalformedError
from nvmelm.host import HostFacts
from nvmelm.prepare.actions import Action, Change, Phase
from nvmelm.prepare.cells import VFS, Cell, read_cells, written_cells
from nvmelm.prepare.journal import Journal, journals

PF = "0000:01:00.0"


class Host:
    """As much of a host as a journal asks."""

    def __init__(self, directory: Path) -> None:
        self.state_dir = directory
        self.boot = "first"

    def facts(self) -> HostFacts:
        return HostFacts("6.1", self.boot, True)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def change(name: str, before: object, after: object) -> Action:
    return Action(Phase.VFS, f"{name} becomes {after}", (), (Change(Cell.parse(name), before, after),))  # type: ignore[arg-type]


def journal(host: Host) -> Journal:
    return Journal(host, PF)  # type: ignore[arg-type]


def test_the_first_value_since_the_last_release_is_the_original(host: Host) -> None:
    for before, after in ((0, 2), (2, 4)):
        log = journal(host)
        log.begin("sriov enable", "S", read_cells({"vfs": after}))
        log.intend([change("vfs", before, after)])
        log.end("done")
    assert journal(host).original() == {VFS: 0}
    assert journal(host).unfinished() == []


def test_a_run_without_its_end_is_unfinished(host: Host) -> None:
    log = journal(host)
    log.begin("sriov enable", "S", read_cells({"vfs": 2}))
    log.intend([change("vfs", 0, 2)])
    (run,) = journal(host).unfinished()
    assert (run.verb, run.before(), run.wanted) == ("sriov enable", {VFS: 0}, {VFS: 2})


def test_what_an_earlier_boot_changed_is_not_brought_back(host: Host) -> None:
    log = journal(host)
    log.begin("sriov enable", "S", read_cells({"vfs": 2}))
    log.intend([change("vfs", 0, 2)])
    host.boot = "second"
    assert journal(host).original() == {}
    assert [run.boot for run in journal(host).unfinished()] == ["first"]


def test_a_line_torn_by_a_full_disk_does_not_hide_the_next_run(host: Host) -> None:
    log = journal(host)
    log.begin("sriov enable", "S", read_cells({"vfs": 2}))
    with log.path.open("a") as file:
        file.write('{"record":"begin","run":"')
    again = journal(host)
    again.begin("sriov disable", "S", read_cells({"vfs": 0}))
    assert [run.verb for run in journal(host).runs()] == ["sriov enable", "sriov disable"]


def test_a_journal_is_for_root_alone_and_found_by_its_pf(host: Host) -> None:
    journal(host).begin("sriov enable", "S", read_cells({}))
    assert journal(host).path.stat().st_mode & 0o777 == 0o600
    assert [log.address for log in journals(host)] == [PF]  # type: ignore[arg-type]
    journal(host).forget()
    assert journals(host) == []  # type: ignore[arg-type]


def test_a_full_disk_is_an_error() -> None:
    with pytest.raises(HostError, match="space"):
        store.append(Path("/dev/full"), "a line\n")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mark.json"
    store.write(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(HostError):
        store.write(path, "new")
    assert path.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["mark.json"]


def read(text: str) -> list[str]:
    """Return the verbs that a journal of this text names, or that it is damaged."""
    with TemporaryDirectory() as directory:
        log = journal(Host(Path(directory)))
        log.path.parent.mkdir()
        log.path.write_text(text)
        try:
            runs = log.runs()
        except MalformedError:
            return ["damaged"]
        for run in runs:
            run.before()
        return [run.verb for run in runs]


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=200))
def test_any_text_is_read_or_named_as_damaged(text: str) -> None:
    whole = text.rpartition("\n")[0].strip("\n")
    assert read(text) == (["damaged"] if whole else [])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=8), part, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["record", "run", "verb", "boot", "started_at", "serial", "target", "changes", "summary", "outcome"]
)
RECORDS = st.dictionaries(KEYS, VALUES | st.sampled_from(["run", "begin", "end"]), max_size=10)


@settings(deadline=None)
@given(st.lists(RECORDS, max_size=6))
def test_records_of_any_shape_never_crash_the_reader(records: list[dict[str, object]]) -> None:
    read("".join(json.dumps(body) + "\n" for body in records))


@pytest.mark.parametrize(
    "cells", [{"vfs": "²"}, {"vfs": True}, {"²/vq": 1}, {"0x0001/vq": "2"}, {"0x0001/other": 1}, {"0x0001/online": 1}]
)
def test_a_run_whose_cells_are_none_is_named_and_nothing_is_begun_on_it(host: Host, cells: dict[str, object]) -> None:
    log = journal(host)
    log.begin("sriov enable", "S", cells)  # type: ignore[arg-type]
    with pytest.raises(MalformedError, match="line 1:"):
        journal(host).runs()
    before = log.path.read_bytes()
    with pytest.raises(MalformedError, match="line 1:"):
        log.begin("sriov disable", "S", read_cells({"vfs": 0}))
    assert log.path.read_bytes() == before


def two_runs(host: Host) -> Path:
    for verb, before, after in (("sriov enable", 0, 2), ("source prepare", 2, 4)):
        log = journal(host)
        log.begin(verb, "S", read_cells({"vfs": after}))
        log.intend([change("vfs", before, after)])
        log.end("done")
    return journal(host).path


GARBLED = {
    "cut": lambda line: line[:-9],
    "emptied in the middle": lambda line: line[:5] + "\0" * 8 + line[13:],
    "another word": lambda line: line.replace('"record"', '"recorb"'),
    "another kind": lambda line: line.replace('"record":"', '"record":"x'),
    "another run's": lambda line: line.replace('"run":"', '"run":"x') if '"record":"run"' not in line else "[]",
    "a number": lambda line: "7",
}


@pytest.mark.parametrize("number", range(1, 7))
@pytest.mark.parametrize("how", GARBLED)
def test_a_line_that_is_lost_is_named_and_not_passed_over(how: str, number: int, host: Host) -> None:
    """Without it an undo would leave something out, or a run that did not end would seem to have."""
    path = two_runs(host)
    lines = path.read_text().splitlines()
    lines[number - 1] = GARBLED[how](lines[number - 1])
    path.write_text("\n".join(lines) + "\n")
    for ask in (journal(host).runs, journal(host).unfinished, journal(host).original, journal(host).forget):
        with pytest.raises(MalformedError, match=f"line {number}:") as met:
            ask()
        assert met.value.reason == "journal-damaged"
        assert f"sed -i {number}d" in met.value.fix


@pytest.mark.parametrize("left", range(0, 60, 7))
def test_a_torn_last_line_is_passed_over_and_cut_off_by_what_follows(left: int, host: Host) -> None:
    path = two_runs(host)
    whole = path.read_text()
    log = journal(host)
    log.begin("sriov disable", "S", read_cells({"vfs": 0}))
    torn = path.read_text()[len(whole) :][:left]
    for junk in (torn, torn + "\0" * 512, "é"):
        path.write_text(whole + junk)
        assert [run.verb for run in journal(host).runs()] == ["sriov enable", "source prepare"]
        journal(host).end("recovered", journal(host).runs()[0].run)
        assert [run.outcome for run in journal(host).runs()] == ["recovered", "done"]
        assert path.read_text().startswith(whole + '{"record":"end"')


def test_a_run_that_gives_marks_an_end_is_read_again(host: Host) -> None:
    log = journal(host)
    log.begin("source prepare", "S", read_cells({"0x0001/mark": "migratable", "0x0001/valid_s": 60}))
    log.intend([change("0x0001/valid_s", None, 60)])
    (run,) = journal(host).unfinished()
    assert written_cells(run.wanted)["0x0001/valid_s"] == 60
    assert written_cells(run.before()) == {"0x0001/valid_s": None}


def test_what_is_written_of_another_device_in_the_place_is_neither_used_nor_forgotten(host: Host) -> None:
    for serial, before in (("old", 3), ("new", 1)):
        log = Journal(host, PF, serial)  # type: ignore[arg-type]
        log.begin("sriov enable", serial, read_cells({"vfs": 4}))
        log.intend([change("vfs", before, 4)])
    ours = Journal(host, PF, "new")  # type: ignore[arg-type]
    assert ours.original() == {VFS: 1}
    ours.supersede({VFS: 4})
    assert [run.serial for run in ours.unfinished()] == ["old"]
    ours.forget()
    assert [(run.serial, run.before()) for run in journal(host).runs()] == [("old", {VFS: 3})]
