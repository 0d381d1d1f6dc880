"""Which VMMs are supervised on this host, for everybody who asks: a small file for each, as long as it runs.

::

    STATE_DIR/vms/PID.json    who it is, and who answers its calls

A file whose process has ended is nobody's: the process is known by its number *and* the moment it began, so that a
number the kernel gave again is not taken for it. Nothing has to survive a crash of the machine, so nothing is flushed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from nvmelm.errors import host_error

_PROC = Path("/proc")
#: One of ours has some hundred bytes.
_MOST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Supervised:
    """A supervised VMM.

    Attributes:
        life: what tells its process from another of the same number.
        vm: what its VM was called when it was started; a stranger's text.
        by: who answers, ``run`` or ``agent``.
        since: seconds since 1970.
    """

    pid: int
    life: str
    vm: str
    by: str
    since: float


def life_of(pid: int, proc: Path = _PROC) -> str | None:
    """Return what tells a process from others that had or will have its number; None when it has ended.

    Source: proc(5): the 22nd field of ``stat``, counted behind the program's name, which may hold anything.
    """
    try:
        state, *fields = (proc / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = (proc / "sys/kernel/random/boot_id").read_text().strip()
    except (OSError, ValueError):
        return None
    return None if state in ("Z", "X") or len(fields) < 19 else f"{boot}/{fields[18]}"


def directory(state_dir: Path) -> Path:
    """Return where the files are."""
    return state_dir / "vms"


def supervised(state_dir: Path, pid: int, proc: Path = _PROC) -> Supervised | None:
    """Return who answers a process's calls, or None when nobody does."""
    with suppress(OSError, ValueError, TypeError):
        path = directory(state_dir) / f"{pid}.json"
        if path.stat().st_size <= _MOST_BYTES:
            known = Supervised(**json.loads(path.read_text()))
            return known if known.life == life_of(pid, proc) else None
    return None


def announce(state_dir: Path, pid: int, name: Callable[[int], str], by: str) -> None:
    """Write down that a process is answered.

    Args:
        name: what its VM is called, by its process.
        by: who answers.

    Raises:
        HostError: it cannot be written.
    """
    path = directory(state_dir) / f"{pid}.json"
    document = asdict(Supervised(pid, life_of(pid) or "", name(pid), by, time.time()))
    beside = path.with_suffix(".new")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside.write_text(json.dumps(document))
        beside.replace(path)
    except OSError as error:
        raise host_error("cannot write", str(path), error) from error


def forget(state_dir: Path, pid: int) -> None:
    """Remove what was written: the VMM has ended, or nobody answers it any more."""
    with suppress(OSError):
        (directory(state_dir) / f"{pid}.json").unlink()
