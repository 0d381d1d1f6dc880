"""A program that plays a VMM under the real filter, and a host whose VFIO is files in memory.

The program makes the real system calls; only what they would reach, a VFIO group and its devices, are memfds: the
filter hands a call over before the kernel looks at the descriptor, whatever that is.
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from nvmelm.interposer import launch
from nvmelm.interposer.supervisor import Supervisor
from nvmelm.vfio.seam import DeviceState, Incoming, LogRange, Opening, Outgoing, Refusal

DEADLINE_S = 20.0
DEVICE_BYTES = 1 << 16

#: What the program does: a line of JSON is a command, a line of JSON is its answer.
PROGRAM = r"""
import ctypes, fcntl, json, mmap, os, signal, sys, threading
commands, answers = os.fdopen(int(sys.argv[1]), "r"), os.fdopen(int(sys.argv[2]), "w")
libc = ctypes.CDLL(None, use_errno=True)
libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
buffers = {}

def address(where):
    return where if isinstance(where, int) or where is None else ctypes.addressof(buffers[where[0]]) + where[1]

class Play:
    def memfd(self, name): return os.memfd_create(name)
    def buffer(self, name, data):
        raw = bytes.fromhex(data)
        buffers[name] = ctypes.create_string_buffer(raw, len(raw))
        return ctypes.addressof(buffers[name])
    def look(self, name): return buffers[name].raw.hex()
    def ioctl(self, fd, request, where):
        result = libc.ioctl(fd, request, address(where))
        return result if result >= 0 else -ctypes.get_errno()
    def in_threads(self, calls):
        results = [None] * len(calls)
        def work(number): results[number] = self.ioctl(*calls[number])
        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(calls))]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        return results
    def repeat(self, count, fd, request, where):
        import time
        took = []
        for _ in range(count):
            begin = time.perf_counter_ns()
            self.ioctl(fd, request, where)
            took.append(time.perf_counter_ns() - begin)
        return took
    def in_child(self, fd, request, where):
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(theirs, str(self.ioctl(fd, request, where)).encode())
            os._exit(0)
        os.close(theirs)
        os.waitpid(pid, 0)
        return int(os.read(ours, 64))
    def read(self, fd, most): return os.read(fd, most).hex()
    def read_all(self, fd):
        data = b""
        while piece := os.read(fd, 1 << 20):
            data += piece
        return data.hex()
    def write(self, fd, data):
        raw = bytes.fromhex(data)
        try:
            while raw: raw = raw[os.write(fd, raw):]
        except OSError as error:
            return -error.errno
        return 0
    def close(self, fd): os.close(fd)
    def dup(self, fd): return os.dup(fd)
    def dup2(self, fd, number): return os.dup2(fd, number)
    def blocks(self, fd): return os.get_blocking(fd)
    def cloexec(self, fd): return not os.get_inheritable(fd)
    def read_only_page(self, data):
        page = mmap.mmap(-1, 4096)
        page[:len(data) // 2] = bytes.fromhex(data)
        where = ctypes.addressof(ctypes.c_char.from_buffer(page))
        libc.mprotect(ctypes.c_void_p(where), 4096, 1)
        buffers["page", where] = page
        return where
    def at_page_end(self, data):
        raw = bytes.fromhex(data)
        page = mmap.mmap(-1, 8192)
        where = ctypes.addressof(ctypes.c_char.from_buffer(page))
        page[4096 - len(raw):4096] = raw
        libc.mprotect(ctypes.c_void_p(where + 4096), 4096, 0)
        buffers["page", where] = page
        return where + 4096 - len(raw)
    def restart(self): os.execv(sys.executable, [sys.executable, "-IS", "-c", sys.argv[3], *sys.argv[1:]])
    def status(self): return open("/proc/self/status").read()
    def exit(self, code): os._exit(code)

play = Play()
print("ready", file=answers, flush=True)
for line in commands:
    name, words = json.loads(line)
    print(json.dumps(getattr(play, name)(*words)), file=answers, flush=True)
"""


class VmmDiedError(Exception):
    """The program that plays the VMM has ended."""


class Program:
    """The program, whoever starts it.

    Args:
        start: takes the command line, and returns the process.
    """

    def __init__(self, start: Callable[[list[str]], int]) -> None:
        their_commands, commands = os.pipe()
        answers, their_answers = os.pipe()
        for fd in (their_commands, their_answers):
            os.set_inheritable(fd, True)
        words = [sys.executable, "-IS", "-c", PROGRAM, str(their_commands), str(their_answers), PROGRAM]
        self.pid = start(words)
        os.close(their_commands)
        os.close(their_answers)
        self._commands, self._answers = os.fdopen(commands, "w"), os.fdopen(answers, "r")

    def begin(self) -> None:
        if self._answers.readline() != "ready\n":
            raise VmmDiedError

    def do(self, name: str, *words: Any) -> Any:
        self.send(name, *words)
        return self.answer()

    def send(self, name: str, *words: Any) -> None:
        print(json.dumps([name, words]), file=self._commands, flush=True)

    def answered(self, seconds: float) -> bool:
        """Return whether an answer is there, after some seconds at most."""
        return bool(select.select([self._answers], [], [], seconds)[0])

    def answer(self) -> Any:
        line = self._answers.readline()
        if not line:
            raise VmmDiedError
        return json.loads(line)

    # -- what a VMM does with VFIO

    def open(self, address: str = "0000:01:00.1", group: int | None = None) -> int:
        """Open a device by its group; return the number, or -errno."""
        if group is None:
            group = self.do("memfd", "group")
        self.do("buffer", "name", address.encode().hex() + "00")
        result: int = self.do("ioctl", group, 0x3B6A, ["name", 0])
        return result

    def feature(self, fd: int, flags: int, data: bytes = b"", *, argsz: int | None = None) -> tuple[int, bytes]:
        """Make a call of VFIO_DEVICE_FEATURE; return its result and the data afterwards."""
        header = struct.pack("=2I", 8 + len(data) if argsz is None else argsz, flags)
        self.do("buffer", "feature", (header + data).hex())
        result = self.do("ioctl", fd, 0x3B75, ["feature", 0])
        return result, bytes.fromhex(self.do("look", "feature"))[8:]

    def set_state(self, fd: int, state: int) -> tuple[int, int]:
        """Ask for a state; return the result and data_fd."""
        result, data = self.feature(fd, 2 | 1 << 17, struct.pack("=Ii", state, 77))
        return result, struct.unpack("=Ii", data)[1]

    def get_state(self, fd: int) -> int:
        result, data = self.feature(fd, 2 | 1 << 16, struct.pack("=Ii", 77, 77))
        assert result == 0
        state: int = struct.unpack("=Ii", data)[0]
        return state

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        for file in (self._commands, self._answers):
            with suppress(OSError):
                file.close()


class PlayedVmm(Program):
    """The program, started under the filter and supervised."""

    def __init__(self, host: PlayedHost, *, memory: bool = True) -> None:
        def start(words: list[str]) -> int:
            started = launch.start(words, launch.program(memory=memory))
            self.listener = started.listener
            return started.pid

        super().__init__(start)
        self.host = host
        self.supervisor = Supervisor(self.listener, host, host, host.say, lambda pid: f"vm {pid}")
        self.thread = threading.Thread(target=self.supervisor.run, daemon=True)
        self.thread.start()
        self.begin()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.thread.join(DEADLINE_S)
        assert not self.thread.is_alive()


class PlayedFunction:
    """A function that does as it is told, and remembers it."""

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self.state = DeviceState.RUNNING
        self.marked = True
        self.logs = True
        self.calls: list[Any] = []
        self.refuse: dict[DeviceState, Refusal] = {}
        self.size = 4096
        self.image: Sequence[bytes | Refusal] = (b"state",)
        self.taken = b""
        self.header_bytes = 0
        self.unfit: Refusal | None = None
        self.closed = threading.Event()
        self.in_write: Callable[[], None] = lambda: None
        self.in_arc: Callable[[], None] = lambda: None
        self._busy = threading.Lock()

    def _alone(self) -> Any:
        assert self._busy.acquire(blocking=False), "two calls of one function at once"
        return self._busy

    def flags(self) -> int:
        if not self.marked:
            raise Refusal(25)
        return 3

    def can_log(self) -> bool:
        return self.logs

    def set_state(self, state: DeviceState) -> Outgoing | Incoming | None:
        busy = self._alone()
        try:
            self.calls.append(state)
            self.in_arc()
            if state in self.refuse:
                raise self.refuse[state]
            before, self.state = self.state, state
            if before is state:
                return None
            if state is DeviceState.STOP_COPY:
                return PlayedOutgoing(self)
            return PlayedIncoming(self) if state is DeviceState.RESUMING else None
        finally:
            busy.release()

    def data_size(self) -> int:
        return self.size

    def logging_start(self, ranges: Sequence[LogRange], page_size: int) -> int:
        self.calls.append((tuple(ranges), page_size))
        return page_size

    def logging_report(self, iova: int, length: int, page_size: int) -> bytes:
        self.calls.append((iova, length, page_size))
        return b"\xff" * (-(-length // page_size) // 8)

    def logging_stop(self) -> None:
        self.calls.append("logging stop")

    def was_reset(self) -> None:
        self.calls.append("reset")
        self.state = DeviceState.RUNNING

    def close(self) -> None:
        self.closed.set()


class PlayedOutgoing:
    def __init__(self, function: PlayedFunction) -> None:
        self._function = function
        self._pieces = iter(function.image)

    def read(self, size: int) -> bytes:
        busy = self._function._alone()
        try:
            piece = next(self._pieces, b"")
            if isinstance(piece, Refusal):
                raise piece
            return piece
        finally:
            busy.release()

    def close(self) -> None:
        self._function.calls.append("out closed")


class PlayedIncoming:
    def __init__(self, function: PlayedFunction) -> None:
        self._function = function

    @property
    def judged(self) -> bool:
        return len(self._function.taken) >= self._function.header_bytes

    def write(self, data: bytes) -> None:
        busy = self._function._alone()
        try:
            self._function.taken += data
            self._function.in_write()
            if self._function.unfit is not None:
                raise self._function.unfit
        finally:
            busy.release()

    def close(self) -> None:
        self._function.calls.append("in closed")


class PlayedHost:
    """Everything around a supervisor: VFIO, the functions, and who is told. A memfd called *group* is a group."""

    def __init__(self) -> None:
        self.functions: list[PlayedFunction] = []
        self.sentences: list[str] = []
        self.opened_names: list[bytes] = []
        self.resets = 0
        self.triggers = 0
        self.strangers: set[str] = set()
        self.refuse_open: OSError | None = None
        self.refuse_reset: OSError | None = None
        self.bug: Exception | None = None

    # -- Kernel

    def is_group(self, fd: int) -> bool:
        return _name(fd) == "group"

    def open_device(self, group: int, name: bytes) -> int:
        if self.refuse_open is not None:
            raise self.refuse_open
        self.opened_names.append(name)
        fd = os.memfd_create("device")
        os.ftruncate(fd, DEVICE_BYTES)
        return fd

    def address(self, fd: int) -> str | None:
        kind, _, address = _name(fd).partition("-")
        return address if kind == "cdev" else None

    def reset(self, device: int) -> None:
        if self.refuse_reset is not None:
            raise self.refuse_reset
        self.resets += 1

    def region(self, device: int, index: int) -> int:
        return index * 4096

    def trigger(self, device: int) -> None:
        self.triggers += 1

    # -- Functions

    def open(self, opening: Opening) -> PlayedFunction | None:
        if self.bug is not None:
            raise self.bug
        if opening.address in self.strangers:
            return None
        self.functions.append(PlayedFunction(opening))
        return self.functions[-1]

    @property
    def function(self) -> PlayedFunction:
        return self.functions[-1]

    def say(self, sentence: str, *, address: str = "") -> None:
        self.sentences.append(sentence)


def _name(fd: int) -> str:
    return Path(f"/proc/self/fd/{fd}").readlink().name.removeprefix("memfd:").removesuffix(" (deleted)")
