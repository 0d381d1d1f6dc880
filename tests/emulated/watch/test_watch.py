"""The stream of changes: every change once and in order, and what was lost is said and made good."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

import jsonschema
import pytest

import nvmelm
from nvmelm.commands import execute, namespace, virtualization
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.machine.pipes import EmulatedUevents
from nvmelm.errors import HostError
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.ownership.record import to_json
from nvmelm.ownership.sessions import Moving, Sessions, Side, State, new_record, sessions_path
from nvmelm.prepare import release as undo_all
from nvmelm.prepare import sequence
from nvmelm.process.waiting import wait_until
from nvmelm.watch.lines import Body, ManifestPart, MarkPart, PrimaryPart, SessionPart, Trouble
from nvmelm.watch.sessions import SessionLooks
from nvmelm.watch.stream import WatchStream
from nvmelm.watch.survey import Looks
from nvmelm.wire.opcodes import ResourceType
from tests.emulated.answers import agree
from tests.emulated.conftest import MakeHost
from tests.watching import Line, Watch, followed

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "schemas" / "nvmelm.watch.json").read_text())
NVMELM = str(Path(sys.executable).with_name("nvmelm"))
PF, VF = "0000:01:00.0", "0000:01:00.1"
FIRST = 0x42


@pytest.fixture
def host(make_host: MakeHost) -> EmulatedHost:
    return make_host()


@pytest.fixture
def watch(host: EmulatedHost) -> Iterator[Watch]:
    with Watch(host.name, "--every", "0.2") as running:
        running.wait("primary")
        yield running


def prepare(host: EmulatedHost, vfs: int = 2, **options: Any) -> None:
    with open_primary(host, PF, change=True) as pf:
        sequence.prepare(pf, Role.MIGRATABLE, vfs, vq=2, vi=1, confirm=agree, **options)


def seen(watch: Watch, *, cntlid: int, driver: str | None) -> None:
    """Wait until a look has found a controller with this driver."""
    watch.wait(
        "controller", lambda part: part["cntlid"] == cntlid and part["after"].get("driver", "unchanged") == driver
    )


def release(host: EmulatedHost) -> None:
    with open_primary(host, PF, change=True) as pf:
        undo_all.release(pf, confirm=agree)


def test_a_preparation_and_its_undoing_are_seen_once_and_in_order(host: EmulatedHost, watch: Watch) -> None:
    prepare(host)
    for cntlid in (FIRST, FIRST + 1):
        watch.wait("mark", lambda part, cntlid=cntlid: part["cntlid"] == cntlid)  # type: ignore[misc]
    # Only uevents keep what has passed: a driver that comes and goes between two looks is no change of a controller.
    seen(watch, cntlid=FIRST, driver="vfio-pci")
    release(host)
    watch.wait("primary", lambda part: part["after"].get("vfs_enabled") == 0)
    seen(watch, cntlid=FIRST, driver=None)
    wait_until(lambda: followed(watch.of("controller"), FIRST, "state")[-1] == "offline", "offline", deadline_s=20)
    wait_until(lambda: len(watch.of("mark")) == 4, "both marks to be given and taken back", deadline_s=20)
    code, _ = watch.end(signal.SIGTERM)
    assert code == 0
    for line in watch.lines:
        jsonschema.validate(line, SCHEMA)
    assert [line["number"] for line in watch.lines] == list(range(1, len(watch.lines) + 1))
    numbers = [part["seqnum"] for part in watch.of("uevent")]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    said = [(part["subsystem"], part["action"]) for part in watch.of("uevent") if part["address"] == VF]
    assert said == [
        ("pci", "add"),
        ("pci", "change"),
        ("vfio-dev", "add"),
        ("pci", "bind"),
        ("vfio-dev", "remove"),
        ("pci", "unbind"),
        ("pci", "remove"),
    ]
    assert [(part["what"], part["cntlid"]) for part in watch.of("mark")] == [
        ("given", FIRST),
        ("given", FIRST + 1),
        ("revoked", FIRST),
        ("revoked", FIRST + 1),
    ]
    assert followed(watch.of("controller"), FIRST, "state") == ["offline", "online", "offline"]
    assert followed(watch.of("controller"), FIRST, "driver") == [None, "vfio-pci", None]
    assert watch.lines[-1]["ended"] == {"why": "terminated"}


def test_what_another_program_does_to_the_list_is_seen_without_a_uevent(host: EmulatedHost, watch: Watch) -> None:
    with open_primary(host, PF) as pf:
        execute(pf.queue, virtualization.assign(FIRST, ResourceType.VQ, 2))
    change = watch.wait("controller")
    assert (change["cntlid"], change["before"], change["after"]) == (FIRST, {"vq": 0}, {"vq": 2})


def test_a_function_that_goes_and_comes_back_is_said(host: EmulatedHost, watch: Watch) -> None:
    host.remove(PF)
    watch.wait("primary", lambda part: part["what"] == "gone")
    host.sysfs.write("bus/pci/rescan", "1")
    wait_until(lambda: len(watch.of("primary")) == 3, "the function to be seen again", deadline_s=20)
    assert [part["what"] for part in watch.of("primary")] == ["there", "gone", "there"]


def test_a_second_signal_ends_a_watch_that_nobody_reads(host: EmulatedHost) -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen([NVMELM, "--host", host.name, "watch"], stdout=writing, stderr=subprocess.DEVNULL)
    os.close(writing)
    try:
        assert os.read(reading, 1)
        for _ in range(400):
            host.reset_primary(PF)  # more than the pipe holds
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
        os.close(reading)


def test_ctrl_c_ends_it_between_two_lines(watch: Watch) -> None:
    code, errors = watch.end(signal.SIGINT)
    assert (code, errors) == (130, "")
    assert watch.lines[-1]["ended"] == {"why": "interrupted"}


def test_a_reader_that_leaves_ends_it(host: EmulatedHost) -> None:
    words = f"{NVMELM} --host {host.name} watch | head -n 1"
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, timeout=30)
    assert json.loads(done.stdout)["kind"] == "started"
    assert done.stderr == ""


@pytest.mark.parametrize("kind", ["pipe", "socket", "terminal"])
def test_a_reader_that_leaves_a_quiet_host_ends_it(host: EmulatedHost, kind: str) -> None:
    pairs: dict[str, Callable[[], tuple[int, int]]] = {"pipe": os.pipe, "socket": _sockets, "terminal": os.openpty}
    reading, writing = pairs[kind]()
    words = [NVMELM, "--host", host.name, "watch", "--every", "3600"]
    process = subprocess.Popen(words, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb", buffering=0) as lines:
            for _ in range(2):  # that it began, and the one function; then nothing more happens here
                assert lines.readline()
        assert process.communicate(timeout=20)[1] == ""
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def _sockets() -> tuple[int, int]:
    ours, its = socket.socketpair()
    return ours.detach(), its.detach()


def test_it_can_end_by_itself(host: EmulatedHost) -> None:
    words = [NVMELM, "--host", host.name, "watch"]
    done = subprocess.run([*words, "--count", "2"], capture_output=True, text=True, timeout=30)
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == ["started", "primary"]
    done = subprocess.run([*words, "--seconds", "0.5"], capture_output=True, text=True, timeout=30)
    assert json.loads(done.stdout.splitlines()[-1])["ended"] == {"why": "time"}


def test_a_program_runs_for_each_line_in_their_order(host: EmulatedHost, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat >> {tmp_path}/got\ngrep -q started {tmp_path}/got && exit 3\n")
    hook.chmod(0o700)
    words = [NVMELM, "--host", host.name, "watch", "--exec", str(hook), "--count", "2"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert (tmp_path / "got").read_text() == done.stdout
    assert "line 1: the program ended with 3" in done.stderr
    assert done.returncode == 0


def test_metrics_are_numbers_that_an_exporter_reads(host: EmulatedHost, tmp_path: Path) -> None:
    prepare(host)
    file = tmp_path / "nvmelm.prom"
    words = [NVMELM, "--host", host.name, "watch", "--metrics", str(file), "--count", "2"]
    subprocess.run(words, capture_output=True, check=True, timeout=30)
    text = file.read_text()
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \w+ .+|\w+(\{(\w+=\"[^\"]*\",?)+\})? -?[0-9.]+", line), line
    assert f'nvmelm_vfs_enabled{{primary="{PF}"}} 2' in text
    assert f'nvmelm_controlled_functions{{primary="{PF}",state="online",driver="vfio-pci"}} 2' in text
    assert f'nvmelm_marks{{primary="{PF}",role="migratable",holds="true"}} 2' in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--exec", "/nowhere/hook"], 2, "is no executable file"),
        (["--exec", "'"], 2, "is no command"),
        (["--metrics", "/nowhere/x.prom", "--seconds", "0"], 1, "cannot write"),
        (["--every", "0"], 2, "every"),
    ],
)
def test_what_cannot_be_meant_is_refused(host: EmulatedHost, options: list[str], code: int, said: str) -> None:
    words = [NVMELM, "--host", host.name, "watch", *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == code
    assert said in done.stderr


def test_it_needs_root_and_a_host_that_is_there(host: EmulatedHost, tmp_path: Path) -> None:
    words = [NVMELM, "--host", host.name]
    recorded = subprocess.run([*words, "--record", str(tmp_path / "r"), "list"], capture_output=True, timeout=30)
    assert recorded.returncode == 0
    for refusing in (["--host", f"replay:{tmp_path}/r"], ["--host", host.name, "--record", str(tmp_path / "new")]):
        done = subprocess.run([NVMELM, *refusing, "watch"], capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stdout) == (3, "")
        assert "a recording has no uevents" in done.stderr
    assert not (tmp_path / "new").exists()
    host.set_option(privileged=False)
    refused = subprocess.run([*words, "watch"], capture_output=True, text=True, timeout=30)
    assert "needs root" in refused.stderr


# Looks, one by one.


def first_look(host: EmulatedHost) -> Looks:
    looks = Looks(host)
    list(looks.whole())
    return looks


def marks(bodies: list[Body]) -> list[tuple[str, int]]:
    return [(body.what, body.cntlid) for body in bodies if isinstance(body, MarkPart)]


def test_a_mark_that_expires_breaks_or_is_given_anew_is_said(host: EmulatedHost) -> None:
    prepare(host, valid_s=3600)
    looks = first_look(host)
    assert list(looks.remembered()) == []
    path = host.state_dir / "marks" / PF / f"{FIRST:#06x}.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"expires_at": "2020-01-01T00:00:00+00:00"}))
    assert marks(list(looks.at(None))) == [("given", FIRST)]
    path.write_text(json.dumps(stored))
    assert marks(list(looks.at(None))) == [("given", FIRST)]
    host.reset_primary(PF)
    assert marks(list(looks.glance())) == [("broken", FIRST), ("broken", FIRST + 1)]


def test_a_mark_expires_without_anything_being_written(host: EmulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime, timedelta

    prepare(host, valid_s=60)
    looks = first_look(host)
    assert list(looks.remembered()) == []

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(UTC) + timedelta(seconds=61)

    monkeypatch.setattr("nvmelm.watch.survey.datetime", Later)
    monkeypatch.setattr("nvmelm.inventory.marks.datetime", Later)
    assert marks(list(looks.remembered())) == [("expired", FIRST), ("expired", FIRST + 1)]
    assert list(looks.remembered()) == []


def test_each_state_of_a_session_is_said_once(host: EmulatedHost) -> None:
    moving = Moving(cntlid=FIRST, peer_cntlid=FIRST, incarnation=7, vq=2, vi=1)

    def begin(session: str) -> Any:
        return new_record(host, session, Side.SOURCE, peer="ssh://b", primary=PF, serial="SN", controllers=(moving,))

    def said(looks: SessionLooks) -> list[tuple[str | None, str, bool]]:
        return [(body.before, body.state, body.over) for body in looks.look() if isinstance(body, SessionPart)]

    looks = SessionLooks(host)
    assert said(looks) == []
    with Sessions(host) as sessions:
        record = sessions.open(begin("a" * 32))
        assert said(looks) == [(None, "open", False)]
        record = sessions.move(record, State.SUSPENDING)
        record = sessions.move(record, State.GIVEN_AWAY)
        assert said(looks) == [("open", "suspending", False), ("suspending", "given-away", False)]
        assert said(SessionLooks(host)) == [(None, "given-away", False)]
        assert [body.state for body in looks.look(again=True) if isinstance(body, SessionPart)] == ["given-away"]
        sessions.move(record, State.DONE)
        assert said(looks) == [("given-away", "done", True)]
        assert said(SessionLooks(host)) == []
    assert said(looks) == []


def test_sessions_are_seen_on_a_host_that_is_named_by_a_relative_path(
    host: EmulatedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    moving = Moving(cntlid=FIRST, peer_cntlid=FIRST, incarnation=7, vq=2, vi=1)
    with Sessions(host) as sessions:
        sessions.open(
            new_record(host, "a" * 32, Side.SOURCE, peer="ssh://b", primary=PF, serial="SN", controllers=(moving,))
        )
    place = Path(host.name.removeprefix("emulated:"))
    monkeypatch.chdir(place.parent)
    with EmulatedHost(Path(place.name)) as relative:
        assert [body.state for body in SessionLooks(relative).look() if isinstance(body, SessionPart)] == ["open"]


@pytest.mark.parametrize("damage", ['"peer": null', '"history": []', '"controllers": [{"cntlid": "x"}]'])
def test_a_session_that_cannot_be_read_is_trouble_until_it_can(host: EmulatedHost, damage: str) -> None:
    moving = Moving(cntlid=FIRST, peer_cntlid=FIRST, incarnation=7, vq=2, vi=1)
    record = new_record(host, "a" * 32, Side.SOURCE, peer="ssh://b", primary=PF, serial="SN", controllers=(moving,))
    with Sessions(host) as sessions:
        sessions.open(record)
    good = to_json(record)
    set_record(host, json.dumps(json.loads(good) | json.loads(f"{{{damage}}}")))
    looks = SessionLooks(host)
    assert [body.over for body in looks.look() if isinstance(body, Trouble)] == [False]
    assert list(looks.look()) == []  # said once
    set_record(host, good)
    bodies = list(looks.look())
    assert [body.over for body in bodies if isinstance(body, Trouble)] == [True]
    assert [body.state for body in bodies if isinstance(body, SessionPart)] == ["open"]


def set_record(host: EmulatedHost, text: str) -> None:
    with contextlib.closing(sqlite3.connect(sessions_path(host))) as database:
        database.execute("UPDATE sessions SET record = ?", (text,))
        database.commit()


def test_a_namespace_that_is_detached_makes_the_manifest_another(host: EmulatedHost) -> None:
    prepare(host)
    looks = first_look(host)
    old = looks.functions[PF].manifests[FIRST]
    with open_primary(host, PF) as pf:
        execute(pf.queue, namespace.detach(1, [FIRST]))
    assert list(looks.glance()) == []  # nothing says so
    (changed,) = [body for body in looks.at(None, manifests=True) if isinstance(body, ManifestPart)]
    assert (changed.cntlid, changed.old) == (FIRST, old)
    assert changed.new not in (None, old)


def test_a_look_that_fails_is_said_once_and_again_when_it_works(host: EmulatedHost) -> None:
    looks = first_look(host)
    host.arm("admin/0x06=status:0x4006", "admin/0x06=status:0x4006", "admin/0x06=status:0x4006")
    said = [body for _ in range(3) for body in looks.at(None) if isinstance(body, Trouble)]
    assert [(trouble.primary, trouble.over) for trouble in said] == [(PF, False)]
    assert "Internal Error" in said[0].message
    assert len(looks.troubles) == 1
    said = [body for body in looks.glance() if isinstance(body, Trouble)]
    assert [(trouble.primary, trouble.over) for trouble in said] == [(PF, True)]
    assert len(looks.troubles) == 0


def test_the_trouble_of_a_function_that_goes_away_is_over(host: EmulatedHost) -> None:
    host.arm("admin/0x06=status:0x4006")
    looks = Looks(host)
    assert [body.over for body in looks.whole() if isinstance(body, Trouble)] == [False]
    host.remove(PF)
    assert [(body.primary, body.over) for body in looks.glance() if isinstance(body, Trouble)] == [(PF, True)]
    assert len(looks.troubles) == 0


def test_users_that_cannot_be_asked_are_trouble_once(host: EmulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(host)
    looks = first_look(host)

    def refused(*_: Any) -> Any:
        raise HostError("the processes cannot be read")

    monkeypatch.setattr("nvmelm.watch.survey.with_users", refused)
    said = [
        trouble.over
        for _ in range(3)
        for look in (looks.users, looks.glance)
        for trouble in look()
        if is_trouble(trouble)
    ]
    assert said == [False]
    monkeypatch.undo()
    assert [body.over for body in looks.users() if isinstance(body, Trouble)] == [True]


def is_trouble(body: Body) -> TypeGuard[Trouble]:
    return isinstance(body, Trouble)


def test_a_look_that_hangs_is_said_and_sessions_are_seen_all_the_same(
    host: EmulatedHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    read = Looks._read

    def hangs(self: Looks, ref: Any, before: Any) -> Any:
        go_on.wait(20)
        return read(self, ref, before)

    monkeypatch.setattr(Looks, "_read", hangs)
    monkeypatch.setattr("nvmelm.watch.stream._SLOW_S", 0.1)
    monkeypatch.setattr("nvmelm.watch.stream._TICK_S", 0.05)
    moving = Moving(cntlid=FIRST, peer_cntlid=FIRST, incarnation=7, vq=2, vi=1)
    with Sessions(host) as sessions:
        sessions.open(
            new_record(host, "a" * 32, Side.SOURCE, peer="ssh://b", primary=PF, serial="SN", controllers=(moving,))
        )
    written: list[Line] = []

    def write(lines: list[str]) -> bool:
        written.extend(json.loads(line) for line in lines)
        if any(line["kind"] == "trouble" for line in written):
            go_on.set()
        return not any(line["kind"] == "trouble" and line["trouble"]["over"] for line in written)

    assert WatchStream(host, write, every_s=60).run(seconds=20) == "nobody"
    troubles = [line["trouble"] for line in written if line["kind"] == "trouble"]
    assert [(trouble["primary"], trouble["over"], trouble["reason"]) for trouble in troubles] == [
        (PF, False, "look-slow"),
        (PF, True, ""),
    ]
    kinds = [line["kind"] for line in written]
    assert kinds.index("session") < kinds.index("primary")


def test_a_shell_that_keeps_ctrl_c_for_itself_keeps_it(host: EmulatedHost) -> None:
    words = f"trap '' INT; exec {NVMELM} --host {host.name} watch --seconds 2"
    with subprocess.Popen(["sh", "-c", words], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 0
    assert json.loads(rest.splitlines()[-1])["ended"] == {"why": "time"}


def test_a_program_gets_exactly_the_lines_that_were_written(host: EmulatedHost, tmp_path: Path) -> None:
    prepare(host)
    hook = tmp_path / "hook"
    hook.write_text(f"#!/bin/sh\ncat >> {tmp_path}/got\n")
    hook.chmod(0o700)
    words = [NVMELM, "--host", host.name, "watch", "--exec", str(hook), "--count", "1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert (tmp_path / "got").read_text() == done.stdout
    assert len(done.stdout.splitlines()) == 1


class Overrun(EmulatedHost):
    """A host whose uevents have room for a few only."""

    def uevents(self) -> EmulatedUevents:
        return EmulatedUevents(self.machine.listeners, size=4096)


def test_lost_uevents_are_said_and_everything_is_looked_at_again(make_host: MakeHost) -> None:
    make_host()
    written: list[Line] = []

    with Overrun(Path(make_host().name.removeprefix("emulated:"))) as host:

        def write(lines: list[str]) -> bool:
            written.extend(json.loads(line) for line in lines)
            if len(written) == 2:  # a reader that takes its time, while much happens
                prepare(host)
                for _ in range(40):
                    host.reset_primary(PF)
            return not any(line["kind"] == "primary" and line["number"] > 4 for line in written[3:]) or not done()

        def done() -> bool:
            kinds = [line["kind"] for line in written]
            return "overrun" in kinds and any(
                line["kind"] == "primary" and line["primary"]["what"] == "there"
                for line in written[kinds.index("overrun") :]
            )

        assert WatchStream(host, write, every_s=60).run(seconds=20) == "nobody"
    kinds = [line["kind"] for line in written]
    after = written[kinds.index("overrun") :]
    assert after[0]["overrun"] == {"of": "uevents", "lost": None}
    changed = [line["primary"] for line in after if line["kind"] == "primary"]
    assert isinstance(changed[-1], dict)
    assert [part["what"] for part in changed] == ["changed", "there"]
    assert changed[0]["after"]["vfs_enabled"] == 2
    assert [line["number"] for line in written] == list(range(1, len(written) + 1))


def test_the_kernel_is_listened_to_before_the_first_look(host: EmulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def uevents(self: EmulatedHost) -> EmulatedUevents:
        order.append("listen")
        return EmulatedUevents(self.machine.listeners)

    def whole(self: Looks, *, again: bool = False) -> Iterator[Body]:
        order.append("look")
        return iter(())

    monkeypatch.setattr(EmulatedHost, "uevents", uevents)
    monkeypatch.setattr(Looks, "whole", whole)
    WatchStream(host, lambda _: True, every_s=60).run(seconds=0.2)
    assert order == ["listen", "look"]


def test_an_error_that_nobody_expected_ends_the_stream(host: EmulatedHost, monkeypatch: pytest.MonkeyPatch) -> None:
    def whole(self: Looks, *, again: bool = False) -> Iterator[Body]:
        raise HostError("the look itself is broken")

    monkeypatch.setattr(Looks, "whole", whole)
    with pytest.raises(HostError, match="broken"):
        WatchStream(host, lambda _: True, every_s=60).run(seconds=20)


def test_a_function_of_two_is_looked_at_alone(make_host: MakeHost) -> None:
    host = make_host("nvme-2.1", "nvme-2.1")
    looks = first_look(host)
    prepare(host)
    bodies = list(looks.at({"0000:02:00.0"}))
    assert bodies == []
    assert [body.address for body in looks.at({PF}) if isinstance(body, PrimaryPart)] == [PF]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_the_unit_is_one_that_systemd_understands() -> None:
    unit = Path(nvmelm.__file__).parent / "share" / "systemd" / "nvmelm-watch.service"
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert done.stderr.replace(str(unit), "").count("nvmelm-watch") == 0, done.stderr
