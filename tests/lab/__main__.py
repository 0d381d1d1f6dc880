"""``python -m tests.lab``: boot the lab's guest and run the lab's tests, or any command, inside it.

``--boot`` boots it by systemd, with nvmelm's units and rule installed, and runs the tests of that: twice, as one host.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.lab import boot
from tests.lab.guest import Guest, LabError, run
from tests.lab.qemu import vmm


def main() -> int:
    """Parse, boot, run, and end with the exit status of what ran inside."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument("--qemu", default=os.environ.get("QEMU") or Guest.qemu, help="emulator (default: $QEMU)")
    parser.add_argument("--vmm", type=Path, default=_vmm(), help="QEMU for VMs that move (default: make lab-vmm's)")
    parser.add_argument("--kernel", type=Path, help="kernel image (default: the newest in /boot)")
    parser.add_argument(
        "--vfs", type=int, default=Guest.vfs, help="VFs each controller can have (default: %(default)s)"
    )
    parser.add_argument("--memory", type=int, default=Guest.memory_mib, help="MiB (default: %(default)s)")
    parser.add_argument("--deadline", type=float, default=Guest.deadline_s, help="seconds (default: %(default)g)")
    parser.add_argument("--scratch", type=Path, help="keep the writable share (images, kernel log) in this directory")
    parser.add_argument(
        "--exec", action="store_true", help="run the words as a command instead of giving them to pytest"
    )
    parser.add_argument("--boot", action="store_true", help="boot by systemd; without --exec: tests/lab/test_boot.py")
    parser.add_argument("words", nargs="*", help="arguments for pytest, or with --exec a command")
    arguments = parser.parse_args()
    guest = Guest(
        vfs=arguments.vfs,
        qemu=arguments.qemu,
        vmm=arguments.vmm,
        kernel=arguments.kernel,
        memory_mib=arguments.memory,
        deadline_s=arguments.deadline,
    )
    command = arguments.words if arguments.exec else pytest_command(arguments.words)
    scratch = arguments.scratch.absolute() if arguments.scratch else None
    try:
        if arguments.boot:
            return (
                boot.run(command, guest, scratch=scratch)
                if arguments.exec
                else two_boots(arguments.words, guest, scratch)
            )
        return run(command, guest, scratch=scratch)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


def _vmm() -> Path | None:
    """Return what ``make lab-vmm`` made, None when it was not."""
    path = Path.cwd() / vmm.DIRECTORY / vmm.BINARY
    return path if path.exists() else None


def two_boots(words: list[str], guest: Guest, scratch: Path | None = None) -> int:
    """Boot a host by systemd twice, with the tests of that in each; return the first exit status that is not 0."""
    if scratch is None:
        with tempfile.TemporaryDirectory(prefix="nvmelm-lab-") as name:
            return two_boots(words, guest, Path(name))
    for number in (1, 2):
        print(f"lab: boot {number} of 2 by systemd", flush=True)
        command = pytest_command([*words, "tests/lab/test_boot.py"])
        if status := boot.run(command, guest, boot=number, scratch=scratch):
            return status
    return 0


def pytest_command(words: list[str]) -> list[str]:
    """Return the command that runs the lab's tests; the repository is read-only inside, so pytest writes elsewhere."""
    places = [] if any("tests/lab" in word for word in words) else ["tests/lab"]
    marks = [] if "-m" in words else ["-m", "not slow"]
    options = ["-p", "no:cacheprovider", "--basetemp=/run/pytest", *marks]
    return [sys.executable, "-m", "pytest", *options, *words, *places]


if __name__ == "__main__":
    sys.exit(main())
