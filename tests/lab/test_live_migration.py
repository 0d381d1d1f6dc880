"""Moves of running controllers, where the emulated controllers have Migration Send and Receive.

The device is tests/lab/qemu/migration.c, which knows nothing of nvmelm. What a state holds is read here by the offsets
of the NVM Express Base Specification 2.1, figures 358 to 361, and asked of the device by nvme-cli, never by nvmelm.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import struct
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

from tests.lab.machine import Pf, wait_for
from tests.lab.moves import Gate, Two, passthru, prepared, runs, script, state_of
from tests.lab.nvme_driver import ENTRIES, IO_CQ, IO_SQ, IOVA, put, settle, work
from tests.lab.vfio_driver import Function, Memory

FULL = ENTRIES - 1  # what a queue holds


def test_a_guest_that_writes_throughout_gets_each_completion_once_there_and_back(
    two: Two, pf_a: Pf, pf_b: Pf, tmp_path: Path
) -> None:
    """The queues have wrapped, commands are under way, and completions wait to be taken, when the source stops."""
    [source], [target] = prepared(two.here, "source", pf_a), prepared(two.there, "destination", pf_b)
    memory, gate = Memory(), Gate(tmp_path / "suspended")
    with Function(pf_a.vfs[0], memory) as here, Function(pf_b.vfs[0], memory) as there:
        here.enable()
        pair = here.create_queues()
        there.enable()
        work(here, pair, range(ENTRIES + 8))
        number = 100

        def busy() -> None:
            nonlocal number
            if len(pair.waiting) < 12:
                put(here, pair, number)
                number += 1
            elif here.take(pair) is not None:
                here.take(pair)

        words = two.migrate(pf_a, source, to=pf_b)
        moving = two.here.start(*words, "--callout", f"source-suspended={gate.callout}")
        gate.wait(moving, busy)
        while len(pair.waiting) < 20:
            put(here, pair, number)
            number += 1
        gate.open()
        assert moving.wait(timeout=120) == 0
        settle(there, pair)
        work(there, pair, range(200, 200 + ENTRIES + 8))
    assert [one.secondaries()[0]["secondary-controller-state"] for one in (pf_a, pf_b)] == [0, 1]

    # And back. The memory is the same; the source's function is a fresh one.
    prepared(two.here, "destination", pf_a)
    prepared(two.there, "source", pf_b)
    with Function(pf_b.vfs[0], memory) as there, Function(pf_a.vfs[0], memory) as here:
        there.enable()
        pair = there.create_queues()
        here.enable()
        work(there, pair, range(12))
        for number in range(FULL):
            put(there, pair, number)
        moved = two.there(*two.migrate(pf_b, target, to=pf_a, back=True), check=True).json
        assert moved["changed"]
        settle(here, pair)
        work(here, pair, range(ENTRIES))


def test_a_saved_state_is_what_the_driver_knows_and_goes_on_at_the_other_primary(
    two: Two, pf_a: Pf, pf_b: Pf, tmp_path: Path
) -> None:
    """Also: interrupts that were enabled at the source come at the destination."""
    [source], [target] = prepared(two.here, "source", pf_a), prepared(two.there, "destination", pf_b)
    memory, image = Memory(), tmp_path / "image"
    with Function(pf_a.vfs[0], memory) as here, Function(pf_b.vfs[0], memory) as there:
        for one in (here, there):
            event = one.interrupt()
            one.enable()
        pair = here.create_queues(interrupts=True)
        work(here, pair, range(ENTRIES - 16))  # with what it reads again: eight slots are left in this pass
        two.here("state", "suspend", pf_a.address, source, "--yes", check=True)
        for number in range(5):
            put(here, pair, number)
        two.here("state", "save", pf_a.address, source, str(image), check=True)
        state = state_of(pf_a, source)
        assert state in image.read_bytes()

        at = ENTRIES - 8
        assert state[:48] == struct.pack("<HB13xQQQQ", 0, 1, 2 + 6 * 2, 0, 0, 0)
        assert state[48:56] == struct.pack("<HHHH", 0, 1, 1, 0)
        assert state[56:80] == struct.pack("<QHHHHHHI", IOVA + IO_SQ, FULL, 1, 1, 1, at, at + 5, 0)
        assert state[80:104] == struct.pack("<QHHHHII", IOVA + IO_CQ, FULL, 1, at, at, 1 | 1 << 1 | 1 << 2, 0)
        assert memory.map[IO_CQ + 14] & 1 == 1  # the phase tag of slot 0, as the state says

        assert here.nothing_more(pair)
        two.there("state", "suspend", pf_b.address, target, "--yes", check=True)
        two.there("state", "restore", pf_b.address, target, str(image), "--yes", check=True)
        two.there("state", "resume", pf_b.address, target, check=True)
        assert select.select([event], [], [], 60)[0], "no interrupt came at the destination"
        settle(there, pair)
        work(there, pair, range(ENTRIES))
    two.here("secondary", "offline", pf_a.address, source, "--yes", check=True)


def test_a_suspend_waits_for_completions_that_have_no_place(two: Two, pf_a: Pf) -> None:
    [source] = prepared(two.here, "source", pf_a)
    with Function(pf_a.vfs[0], Memory()) as here:
        here.enable()
        pair = here.create_queues()
        for number in range(FULL):
            put(here, pair, number)
        wait_for(lambda: posted(here) == FULL, "the completion queue to be full")
        for number in range(FULL, FULL + 4):
            put(here, pair, number)
        suspending = two.here.start("state", "suspend", pf_a.address, source, "--yes")
        wait_for(lambda: in_admin_command(suspending.pid), "the suspend to be with the device")
        assert suspending.poll() is None
        assert here.complete(pair, 4) == [0] * 4
        assert suspending.wait(timeout=60) == 0
        settle(here, pair)
        put(here, pair, 50)
        assert here.nothing_more(pair)
        two.here("state", "resume", pf_a.address, source, check=True)
        settle(here, pair)
        assert not two.here("state", "resume", pf_a.address, source, "--json", check=True).json["changed"]


def posted(function: Function) -> int:
    """Return how many slots of the completion queue have the first pass' phase tag."""
    return sum(function.memory.map[IO_CQ + 16 * slot + 14] & 1 for slot in range(ENTRIES))


def in_admin_command(pid: int) -> bool:
    """Return whether a process stays in the ioctl of an admin command, longer than any but a held one takes."""
    until = time.monotonic() + 1
    while time.monotonic() < until:
        words = Path(f"/proc/{pid}/syscall").read_text().split()
        if words[0] != "16" or len(words) < 4 or int(words[2], 16) & 0xFFFF not in (0x4E41, 0x4E47):
            return False
    return True


def test_an_interrupted_move_resumes_the_source_and_its_writes_complete_there(
    two: Two, pf_a: Pf, pf_b: Pf, tmp_path: Path
) -> None:
    """Twice: a callout refuses, and the destination is killed when it has the state and nothing is given away."""
    [source] = prepared(two.here, "source", pf_a)
    prepared(two.there, "destination", pf_b)
    memory, pid = Memory(), tmp_path / "pid"
    suspended, loaded = Gate(tmp_path / "source-suspended"), Gate(tmp_path / "before-give-away")
    points = script(tmp_path / "points" / "pid", f"echo $PPID >{pid}.new; mv {pid}.new {pid}").parent
    with Function(pf_a.vfs[0], memory) as here, Function(pf_b.vfs[0], memory) as there:
        here.enable()
        pair = here.create_queues()
        there.enable()
        work(here, pair, range(8))
        refusing = script(tmp_path / "refusing", f": >{tmp_path}/refused", "exit 1")
        moving = two.here.start(*two.migrate(pf_a, source, to=pf_b), "--callout", f"source-suspended={refusing}")
        for number in range(8):
            put(here, pair, number)
        assert moving.wait(timeout=120) != 0
        assert (tmp_path / "refused").exists()
        settle(here, pair)
        work(here, pair, range(8))

        words = two.migrate(pf_a, source, to=pf_b, NVMELM_CALLOUTS=str(points))
        gates = [word for gate in (suspended, loaded) for word in ("--callout", f"{gate.path.name}={gate.callout}")]
        moving = two.here.start(*words, *gates)
        suspended.wait(moving)
        for number in range(8):  # before the state is read: what a doorbell is told later is not in it
            put(here, pair, number)
        suspended.open()
        loaded.wait(moving)
        os.kill(int(pid.read_text()), signal.SIGKILL)
        loaded.open()
        assert moving.wait(timeout=120) in (8, 9)
        two.there("recover", "--yes", "--peer", "ssh://here", *two.link(two.here), check=True)
        assert [host("recover", "--json", check=True).json["sessions"] for host in (two.here, two.there)] == [[], []]
        running = [runs(pf) for pf in (pf_a, pf_b)]
        assert running.count(True) == 1
        survivor = here if running[0] else there
        settle(survivor, pair)
        work(survivor, pair, range(ENTRIES))


def test_several_controllers_move_in_one_call_and_a_watcher_sees_every_state(
    two: Two, pf_a: Pf, pf_b: Pf, tmp_path: Path
) -> None:
    prepared(two.here, "source", pf_a, 2)
    prepared(two.there, "destination", pf_b, 2)
    seen = tmp_path / "seen"
    with seen.open("wb") as output, two.here.start("watch", stdout=output) as watching, ExitStack() as open_:
        open_.callback(watching.kill)
        wait_for(lambda: b'"started"' in seen.read_bytes(), "the watcher to look")
        moving = []
        for index in range(2):
            memory = Memory()
            here = open_.enter_context(Function(pf_a.vfs[index], memory))
            there = open_.enter_context(Function(pf_b.vfs[index], memory))
            here.enable()
            moving.append((there, here.create_queues()))
            there.enable()
            work(here, moving[-1][1], range(40 * index, 40 * index + 8))
            for number in range(4 + index):
                put(here, moving[-1][1], number)
        moved = two.here(*two.migrate(pf_a, "--all-migratable", to=pf_b), check=True).json
        assert len(moved["controllers"]) == 2
        assert moved["downtime"]["total_us"] > 0
        for there, pair in moving:
            settle(there, pair)
            work(there, pair, range(8))
        wait_for(lambda: b'"done"' in seen.read_bytes(), "the watcher to see the end")
        watching.terminate()
        assert watching.wait(timeout=60) == 0
    sessions = [line["session"] for line in map(json.loads, seen.read_text().splitlines()) if line["kind"] == "session"]
    assert [session["state"] for session in sessions] == ["open", "suspending", "given-away", "done"]
    assert {session["id"] for session in sessions} == {moved["session"]}


SEND, RECEIVE, TRACK = 0x41, 0x42, 0x3D
SUSPEND, RESUME, ONLY, FIRST, MIDDLE, LAST = 0, 1, 0x3_0002, 0x1_0002, 0x2, 0x2_0002
EMPTY = struct.pack("<HB13xQQQQ", 0, 1, 2, 0, 0, 0) + bytes(8)  # a state without queues

#: What is sent to a controller that runs, with the status that the reference names; cdw11's low half is the controller.
ANSWERS = [
    ("suspend the manager itself", 0x11F, SEND, SUSPEND, 1 << 16 | 0, 0, b""),
    ("suspend what is not there", 0x11F, SEND, SUSPEND, 1 << 16 | 99, 0, b""),
    ("suspend what is offline", 0x11F, SEND, SUSPEND, 1 << 16 | 2, 0, b""),
    ("suspend of a reserved type", 0x002, SEND, SUSPEND, 2 << 16 | 1, 0, b""),
    ("a reserved select", 0x002, SEND, 3, 1, 0, b""),
    ("announce a suspend", 0, SEND, SUSPEND, 1, 0, b""),
    ("resume what was only told of it", 0x13A, SEND, RESUME, 1, 0, b""),
    ("get, at the end", 0, RECEIVE, 1 << 16, 1, 56, b""),
    ("get, beyond the end", 0x002, RECEIVE, 1 << 16, 1, 60, b""),
    ("get, not at a dword", 0x002, RECEIVE, 1 << 16, 1, 2, b""),
    ("get, a version there is not", 0x002, RECEIVE, 2 << 16, 1, 0, b""),
    ("get, of the manager itself", 0x11F, RECEIVE, 1 << 16, 0, 0, b""),
    ("track", 0x001, TRACK, 0, 1, 0, b""),
    ("suspend", 0, SEND, SUSPEND, 1 << 16 | 1, 0, b""),
    ("suspend again", 0, SEND, SUSPEND, 1 << 16 | 1, 0, b""),
    ("set, the middle of nothing", 0x00C, SEND, MIDDLE, 1 << 16 | 1, 48, EMPTY[48:]),
    ("set, the end of nothing", 0x00C, SEND, LAST, 1 << 16 | 1, 48, EMPTY[48:]),
    ("set, without an index", 0x002, SEND, ONLY, 1, 0, EMPTY),
    ("set, a version there is not", 0x002, SEND, ONLY, 2 << 16 | 1, 0, EMPTY),
    ("set, a vendor there is not", 0x002, SEND, ONLY, 1 << 24 | 1 << 16 | 1, 0, EMPTY),
    ("set, cut short", 0x002, SEND, ONLY, 1 << 16 | 1, 0, EMPTY[:48]),
    ("set, the first part", 0, SEND, FIRST, 1 << 16 | 1, 0, EMPTY[:48]),
    ("resume, with a part missing", 0x00C, SEND, RESUME, 1, 0, b""),
    ("set, the last part", 0, SEND, LAST, 1 << 16 | 1, 48, EMPTY[48:]),
    ("set, the whole", 0, SEND, ONLY, 1 << 16 | 1, 0, EMPTY),
    ("resume", 0, SEND, RESUME, 1, 0, b""),
    ("resume again", 0x13A, SEND, RESUME, 1, 0, b""),
]


def test_the_device_answers_as_the_specification_says(two: Two, pf_a: Pf) -> None:
    """The device itself, without nvmelm in between: what is proven with it is worth as much as it is."""
    [source] = prepared(two.here, "source", pf_a)
    assert source == "1"
    given = {}
    for name, _, opcode, dw10, dw11, offset, data in ANSWERS:
        words = {"opcode": opcode, "cdw10": dw10, "cdw11": dw11, "cdw12": offset}
        if opcode == RECEIVE:
            done = passthru(pf_a, words | {"cdw15": 11}, "--read", "--raw-binary", "--data-len=48")
        elif data:
            words["cdw15"] = len(data) // 4
            done = passthru(pf_a, words, "--write", f"--data-len={len(data)}", data=data)
        else:
            done = passthru(pf_a, words)
        given[name] = answered(done)
    assert given == {name: status for name, status, *_ in ANSWERS}


def answered(done: subprocess.CompletedProcess[bytes]) -> int:
    """Return the status code and type that nvme-cli shows."""
    shown = re.search(rb"NVMe status:.*\((0x[0-9a-f]+)\)", done.stdout + done.stderr)
    assert shown or done.returncode == 0, done.stderr
    return int(shown[1], 16) & 0x7FF if shown else 0
