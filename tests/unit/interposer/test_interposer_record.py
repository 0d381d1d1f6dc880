"""What an agent writes down for the next one: in few bytes, and never less than what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nvmelm.interposer import record
from nvmelm.interposer.record import RecordFile

MAP = ("map", [5, 0], 0x1000, 0x1000, [1], 0x2000)


def as_lists(record: RecordFile) -> list[list[Any]]:
    return [list(event) for event in record.events()]


def test_events_are_read_as_they_were_added(tmp_path: Path) -> None:
    kept = RecordFile(tmp_path / "1.calls")
    kept.add(*MAP)
    kept.add("call", 7, "0a")
    kept.close()
    again = RecordFile(tmp_path / "1.calls")
    assert as_lists(again) == [list(MAP), ["call", 7, "0a"]]
    again.remove()
    assert not (tmp_path / "1.calls").exists()


def test_a_line_that_was_cut_off_and_one_that_is_no_event_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "1.calls"
    path.write_bytes(b'["answered",7]\n{"no": 1}\n[]\n\xff\xfe\n["map",[5,0],40')
    kept = RecordFile(path)
    assert as_lists(kept) == [["answered", 7]]
    kept.close()


def test_a_file_that_is_written_anew_keeps_the_calls_that_wait(tmp_path: Path) -> None:
    kept = RecordFile(tmp_path / "1.calls")
    for number in (7, 8):
        kept.add("call", number, "0a")
    kept.add("answered", 7)
    kept.rewrite([MAP])
    kept.add("answered", 9)
    assert as_lists(kept) == [list(MAP), ["call", 8, "0a"], ["answered", 9]]
    kept.close()


def test_a_file_is_roomy_once_it_is_much_longer_than_when_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "_GROWTH_BYTES", 100)
    kept = RecordFile(tmp_path / "1.calls")
    assert not kept.is_roomy
    while not kept.is_roomy:
        kept.add(*MAP)
    kept.rewrite([MAP] * 50)
    assert not kept.is_roomy
    kept.close()


def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    full = tmp_path / "1.calls"
    full.symlink_to("/dev/full")
    kept = RecordFile(full)
    kept.add(*MAP)
    kept.close()
