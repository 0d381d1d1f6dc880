"""Two hosts that are one machine: each primary has a state directory of its own, and a shell stands for ssh."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.lab.machine import Cli, Pf

NVMELM = str(Path(sys.executable).with_name("nvmelm"))


def prepared(nvmelm: Cli, role: str, pf: Pf, vfs: int = 1, vectors: int = 1, *words: str, queues: int = 2) -> list[str]:
    """Prepare VFs, and return the controller ids of their secondaries."""
    resources = ["--vfs", str(vfs), "--vq", str(queues), "--vi", str(vectors)]
    nvmelm(role, "prepare", pf.address, *resources, *words, check=True)
    return [str(secondary["secondary-controller-identifier"]) for secondary in pf.secondaries()[:vfs]]


def script(path: Path, *lines: str) -> Path:
    """Write a shell script, as a callout is one: it reads what it is told first."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text("\n".join(("#!/bin/sh", "cat >/dev/null", *lines, "")))
    path.chmod(0o700)
    return path


def state_of(pf: Pf, cntlid: str, *, version: int = 1, offset: int = 0, length: int = 104) -> bytes:
    """Return part of a controller's state, by nvme-cli."""
    words = {"opcode": 0x42, "cdw10": version << 16, "cdw11": int(cntlid), "cdw12": offset, "cdw15": length // 4 - 1}
    done = passthru(pf, words, "--read", "--raw-binary", f"--data-len={length}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def runs(pf: Pf) -> bool:
    """Return whether the first secondary is online and not suspended."""
    one = pf.secondaries()[0]
    return bool(one["secondary-controller-state"]) and not state_of(pf, str(one["secondary-controller-identifier"]))[2]


def passthru(pf: Pf, words: dict[str, int], *more: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Send one admin command by nvme-cli."""
    named = [f"--{name}={value:#x}" for name, value in words.items()]
    command = ["nvme", "admin-passthru", f"/dev/{pf.node}", *named, *more]
    return subprocess.run(command, input=data, capture_output=True, check=False)


def order_failure(pf: Pf, command: tuple[int, int], *, status: int, passing: int = 0, done: bool = False) -> None:
    """Have the lab's device fail one command that is to come, as migration.c says.

    Args:
        command: its opcode and SEL.
        status: SCT and SC; 0: it never completes.
        passing: how many such commands pass before.
        done: it is done first, and fails then.
    """
    opcode, select = command
    words = {"opcode": 0xC1, "cdw10": opcode | select << 8 | done << 16, "cdw11": passing, "cdw12": status}
    ordered = passthru(pf, words)
    assert ordered.returncode == 0, ordered.stderr


@dataclass
class Gate:
    """A callout at which a migration stops until it is opened."""

    path: Path

    @property
    def callout(self) -> str:
        """Return the command."""
        reached, opened = self.path.with_suffix(".reached"), self.path.with_suffix(".opened")
        return str(script(self.path, f": >{reached}", f"while [ ! -e {opened} ]; do sleep 0.02; done"))

    def wait(self, process: subprocess.Popen[bytes], meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until the migration is there; what is given is done again and again until then."""
        deadline = time.monotonic() + 120
        while not self.path.with_suffix(".reached").exists():
            assert process.poll() is None, f"it ended with {process.returncode} before {self.path.name}"
            assert time.monotonic() < deadline, f"it did not come to {self.path.name}"
            meanwhile()
            time.sleep(0.001)

    def open(self) -> None:
        """Let it go on."""
        self.path.with_suffix(".opened").touch()


class Two:
    """The source's host and the destination's.

    Attributes:
        here, there: the command line of each.
        places: where files of a test go.
    """

    def __init__(self, here: Cli, there: Cli, places: Path) -> None:
        self.here = here
        self.there = there
        self.places = places

    def link(self, other: Cli, **environment: str) -> list[str]:
        """Return the options that reach the other host."""
        rsh = self.places / "rsh"
        rsh.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
        rsh.chmod(0o700)
        settings = {"NVMELM_STATE_DIR": str(other.state_dir), **environment}
        words = " ".join(f"{name}={value}" for name, value in settings.items())
        return ["--rsh", str(rsh), "--program", f"env {words} {NVMELM}"]

    def migrate(self, pf: Pf, *words: str, to: Pf, back: bool = False, **environment: str) -> list[str]:
        """Return the words that move controllers from one physical function to the other."""
        other = self.here if back else self.there
        # Both ends are one machine's memory: the driver that holds the VF goes on with the other one by itself.
        return ["migrate", pf.address, *words, "--to", f"ssh://other/{to.address}", "--yes", "--json",
                "--guest-loses-controller", *self.link(other, **environment)]  # fmt: skip
