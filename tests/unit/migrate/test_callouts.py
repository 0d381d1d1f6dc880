"""Callouts: real programs, told in JSON, with deadlines, and none that somebody else could have put there."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from nvmelm.errors import CalloutError, HostError, UsageError
from nvmelm.migrate.callouts.programs import Callouts
from nvmelm.process.waiting import wait_until


def script(place: Path, name: str, text: str, mode: int = 0o700) -> Path:
    path = place / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


def of(directory: Path, deadline_s: float = 20.0) -> Callouts:
    return Callouts.found([directory], (), deadline_s=deadline_s)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path / "callouts"
    directory.mkdir(mode=0o700)
    return directory


def test_a_callout_gets_one_json_document(place: Path, tmp_path: Path) -> None:
    script(place, "hook", f"cat > {tmp_path}/got")
    of(place).call("before-suspend", {"side": "source", "controllers": [{"cntlid": 66}]})
    document = json.loads((tmp_path / "got").read_text())
    assert document["schema"] == "nvmelm.callout"
    assert document["version"] == 1
    assert document["point"] == "before-suspend"
    assert document["controllers"] == [{"cntlid": 66}]


def test_callouts_run_in_the_order_of_their_names_and_stop_at_the_first_that_fails(place: Path, tmp_path: Path) -> None:
    for name, end in (("20-b", 3), ("10-a", 0), ("30-c", 0)):
        script(place, name, f"echo {name} >> {tmp_path}/order; echo went wrong; exit {end}")
    with pytest.raises(CalloutError) as met:
        of(place).call("prepared", {})
    assert (tmp_path / "order").read_text().split() == ["10-a", "20-b"]
    assert met.value.cause == "it ended with 3"
    assert "20-b" in met.value.message
    assert "went wrong" in met.value.__notes__[0]


def test_a_command_runs_at_its_own_point_only(tmp_path: Path) -> None:
    hook = script(tmp_path, "hook", f"echo $1 >> {tmp_path}/ran")
    callouts = Callouts.found([], [f"before-suspend={hook} 'one word'"], deadline_s=20)
    callouts.call("prepared", {})
    callouts.call("before-suspend", {})
    assert (tmp_path / "ran").read_text() == "one word\n"


@pytest.mark.parametrize("text", ["", "nowhere=true", "before-suspend", "before-suspend=", "before-suspend='x"])
def test_a_command_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Callouts.found([], [text], deadline_s=20)


def test_a_callout_that_does_not_end_is_ended_with_all_it_started(place: Path, tmp_path: Path) -> None:
    script(place, "hook", f"sleep 600 & echo $! > {tmp_path}/pid; trap '' TERM; wait; wait; sleep 600")
    with pytest.raises(CalloutError, match="failed") as met:
        of(place, 0.5).call("prepared", {})
    assert "did not end within 0.5 s" in met.value.cause
    child = int((tmp_path / "pid").read_text())

    def gone() -> bool:
        try:
            stat = Path(f"/proc/{child}/stat").read_text()
        except OSError:
            return True
        return stat.rpartition(")")[2].split()[0] == "Z"

    wait_until(gone, "what the callout started to be gone", deadline_s=10)


def test_a_callout_that_a_signal_ended_failed(place: Path) -> None:
    script(place, "hook", "kill -9 $$")
    with pytest.raises(CalloutError) as met:
        of(place).call("prepared", {})
    assert met.value.cause == "signal 9 ended it"


def test_of_a_flood_of_output_the_end_is_kept(place: Path) -> None:
    script(place, "hook", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 1")
    with pytest.raises(CalloutError) as met:
        of(place).call("prepared", {})
    assert met.value.__notes__[0].endswith("the end")
    assert len(met.value.__notes__[0]) < 1000


@pytest.mark.parametrize("mode", [0o722, 0o770 | 0o020])
def test_a_callout_that_others_may_write_is_not_run(place: Path, mode: int) -> None:
    script(place, "hook", "true", mode)
    with pytest.raises(HostError) as met:
        of(place)
    assert met.value.reason == "callout-unsafe"


def test_a_directory_that_others_may_write_is_not_trusted(place: Path) -> None:
    script(place, "hook", "true")
    place.chmod(0o777)
    with pytest.raises(HostError) as met:
        of(place)
    assert met.value.reason == "callout-unsafe"


def test_what_is_no_program_is_passed_over(place: Path) -> None:
    (place / "README").write_text("not a program")
    (place / "sub").mkdir()
    script(place, ".hidden", "exit 1")
    assert of(place).call("prepared", {}) == []


def test_a_file_that_cannot_be_executed_is_a_clear_error(place: Path) -> None:
    path = place / "hook"
    path.write_bytes(b"\x00\x01\x02")
    path.chmod(0o700)
    with pytest.raises(HostError, match="cannot run"):
        of(place).call("prepared", {})


def test_a_callout_inherits_nothing_that_it_could_write_into(place: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    script(place, "hook", f"ls /proc/$$/fd > {tmp_path}/fds; env > {tmp_path}/env")
    try:
        of(place).call("prepared", {})
    finally:
        os.close(reading)
        os.close(writing)
    assert str(writing) not in (tmp_path / "fds").read_text().split()
    assert "NVMELM" not in (tmp_path / "env").read_text()


def test_a_callout_that_closes_its_output_is_waited_for(place: Path, tmp_path: Path) -> None:
    script(place, "hook", f"exec >&- 2>&-; cat > {tmp_path}/got")
    of(place).call("prepared", {})
    assert (tmp_path / "got").exists()


def test_a_callout_that_leaves_somebody_behind_with_its_output_is_not_waited_for(place: Path, tmp_path: Path) -> None:
    script(place, "hook", f"echo done; sleep 600 & echo $! > {tmp_path}/pid")
    try:
        assert of(place).call("prepared", {})[0].output == "done\n"
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_a_callout_needs_no_disk(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(place, "hook", f"cat > {tmp_path}/got; echo done")
    callouts = of(place)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert callouts.call("prepared", {})[0].output == "done\n"


@pytest.mark.parametrize("call", ["memfd_create", "pipe2", "pidfd_open"])
def test_a_host_that_has_nothing_left_is_a_clear_error_and_leaves_nothing_behind(
    place: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))

    script(place, "hook", "sleep 600")
    callouts = of(place)
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(HostError) as met:
        callouts.call("prepared", {})
    assert "Too many open files" in met.value.message
    assert os.listdir("/proc/self/fd") == before


def test_a_link_to_a_program_that_others_may_write_is_not_run(place: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o777)
    elsewhere.chmod(0o777)
    (place / "hook").symlink_to(script(elsewhere, "program", "true"))
    with pytest.raises(HostError) as met:
        of(place)
    assert met.value.reason == "callout-unsafe"
    assert str(elsewhere) in met.value.cause


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a link away")
def test_a_link_in_the_middle_of_the_way_counts_too(place: Path, tmp_path: Path) -> None:
    program = script(tmp_path, "program", "true")
    middle = tmp_path / "middle"
    middle.symlink_to(program)
    (place / "hook").symlink_to(middle)
    assert of(place).call("prepared", {})
    os.chown(middle, 65534, 65534, follow_symlinks=False)
    with pytest.raises(HostError) as met:
        of(place)
    assert met.value.reason == "callout-unsafe"
    assert str(middle) in met.value.cause


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a link away")
def test_a_directory_that_is_somebodys_link_is_not_trusted(place: Path, tmp_path: Path) -> None:
    script(place, "hook", "true")
    link = tmp_path / "link"
    link.symlink_to(place)
    assert of(link).call("prepared", {})
    os.chown(link, 65534, 65534, follow_symlinks=False)
    with pytest.raises(HostError) as met:
        of(link)
    assert met.value.reason == "callout-unsafe"


def test_links_that_go_round_in_a_circle_are_a_clear_error(place: Path) -> None:
    (place / "a").mkdir()
    (place / "hook").symlink_to(place / "hook2")
    (place / "hook2").symlink_to(place / "hook")
    with pytest.raises(HostError):
        of(place)


def test_a_directory_above_that_others_may_write_is_not_trusted(tmp_path: Path) -> None:
    above = tmp_path / "above"
    (above / "callouts").mkdir(parents=True)
    script(above / "callouts", "hook", "true")
    above.chmod(0o777)
    with pytest.raises(HostError) as met:
        of(above / "callouts")
    assert met.value.reason == "callout-unsafe"
    above.chmod(0o1777)  # as /tmp: nobody can exchange what is ours
    of(above / "callouts")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_program_that_belongs_to_somebody_else_is_not_run(place: Path) -> None:
    os.chown(script(place, "hook", "true", 0o755), 65534, 65534)
    with pytest.raises(HostError) as met:
        of(place)
    assert "belongs to user 65534" in met.value.cause


def test_a_command_is_looked_for_before_anything_is_touched() -> None:
    with pytest.raises(UsageError, match="is no executable file"):
        Callouts.found([], ["before-suspend=/nowhere/hook"], deadline_s=20)
