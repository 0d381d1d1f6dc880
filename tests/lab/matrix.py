"""``python -m tests.lab.matrix``: the lab's tests on several kernels, emulators and versions of nvme-cli.

Each cell of the matrix is one boot of the lab with a kernel and an emulator; its row in docs/support.md is written when
its tests are over, so what stands there was run. Kernels and emulators that are not installed are fetched from the
machine's mirrors into one directory and unpacked there, which takes some 500 MiB; nothing is installed::

    6.1          the installed kernel                         7.2     the installed QEMU
    6.12         Debian 12's own second kernel                10.0    of the backports (make lab-vmm has the same)
    newest       unstable's                                   newest  unstable's, with its own libraries

With the newest of both comes the newest nvme-cli, whose parser takes no abbreviations.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

from tests.lab.__main__ import pytest_command
from tests.lab.guest import Guest, LabError, find_kernel, has_hmlms, run
from tests.lab.qemu import apt, vmm

DIRECTORY = Path(".lab-matrix")
PAGE = Path("docs/support.md")
BEGIN, END = "<!-- where it was run: made by `make matrix` -->\n", "<!-- end -->\n"
COLUMNS = ("Linux", "QEMU", "nvme-cli", "tests of", "passed", "failed", "skipped", "when")
HEAD = f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}\n"
_ROW = re.compile(r"^\| \d.*$", re.MULTILINE)


class Cell(NamedTuple):
    """One boot of the lab.

    Attributes:
        kernel: the image; its modules are where its package has them, beside it.
        qemu: the emulator.
        nvme: a directory with another nvme-cli, None: the installed one.
    """

    kernel: Path
    qemu: str
    nvme: Path | None = None


class Outcome(NamedTuple):
    """How many tests of a cell ended in which way."""

    passed: int
    failed: int
    skipped: int


def unpacked_kernel(into: Path, suite: str, package: str) -> Path:
    """Return the image of a packaged kernel, fetched and unpacked where it is not there yet.

    Args:
        suite: of the configured mirrors; empty: those the machine has.
        package: the one whose only purpose is to depend on the newest image.

    Raises:
        AptError: no mirror has it.
    """
    images = sorted(into.glob("root/boot/vmlinuz-*"))
    if not images:
        mirrors = [apt.base_mirror()._replace(release=suite)] if suite else apt.configured_mirrors()
        options = apt.private_apt(into / "apt", "deb", mirrors)
        apt.run(["apt-get", *options, "update", "-qq"])
        downloads = (into / "packages").absolute()
        downloads.mkdir(exist_ok=True)
        apt.run(["apt-get", *options, "download", "-qq", *_image_packages(options, package)], downloads)
        _as_before(apt.unpack(list(downloads.glob("*.deb")), into / "root"))
        images = sorted(into.glob("root/boot/vmlinuz-*"))
    if not images:
        raise apt.AptError(f"{package} has no image of a kernel")
    release = images[0].name.removeprefix("vmlinuz-")
    if not (into / "root/lib/modules" / release / "modules.dep").exists():
        apt.run(["depmod", "-b", str(into / "root"), release])
    return images[0]


def _as_before(root: Path) -> None:
    """Give a kernel's files the places they had up to Debian 13 and 6.x: the image apart from the modules, in /lib."""
    if not (root / "lib").exists():
        (root / "lib").symlink_to("usr/lib")
    for image in root.glob("lib/modules/*/vmlinuz"):
        (root / "boot").mkdir(exist_ok=True)
        (root / "boot" / f"vmlinuz-{image.parent.name}").hardlink_to(image)


def _image_packages(options: Sequence[str], package: str) -> list[str]:
    """Return the packages with the image and the modules; since Linux 7 Debian has them apart."""
    names, waiting = set[str](), [package]
    while waiting:
        depends = apt.run(["apt-cache", *options, "depends", "--important", waiting.pop()])
        named = set(re.findall(r"Depends: (linux-(?:image|binary|modules)-[\w.+-]+)", depends)) - names
        names |= named
        waiting.extend(named)
    if not names:
        raise apt.AptError(f"no mirror has {package}")
    return sorted(names)


def newest_qemu(into: Path) -> str:
    """Return a script that starts the newest packaged QEMU with libraries of its own."""
    root = apt.fetch_whole(into, "unstable", "qemu-system-x86")
    share = " ".join(f"-L {root.absolute()}/usr/share/{name}" for name in ("qemu", "seabios"))
    modules = f"export QEMU_MODULE_DIR={root.absolute()}/usr/lib/x86_64-linux-gnu/qemu\n"
    return str(apt.write_starter(into / vmm.BINARY, root, f"usr/bin/{vmm.BINARY}", share, modules))


def newest_nvme(into: Path) -> Path:
    """Return the directory of a script that starts the newest packaged nvme-cli with libraries of its own."""
    root = apt.fetch_whole(into, "experimental", "nvme-cli")
    return apt.write_starter(into / "bin/nvme", root, "usr/sbin/nvme").parent


KERNELS: dict[str, Callable[[Path], Path]] = {
    "6.1": lambda _: find_kernel(),
    "6.12": lambda place: unpacked_kernel(place / "linux-6.12", "", "linux-image-6.12-amd64"),
    "newest": lambda place: unpacked_kernel(place / "linux-newest", "unstable", "linux-image-amd64"),
}
QEMUS: dict[str, Callable[[Path], str]] = {
    "7.2": lambda _: Guest.qemu,
    "10.0": lambda _: str(vmm.provide().absolute()),
    "newest": lambda place: newest_qemu(place / "qemu-newest"),
}


def cell(kernel: str, qemu: str, place: Path = DIRECTORY) -> Cell:
    """Return one cell of the matrix with its parts where they run from.

    Args:
        kernel: a name of :data:`KERNELS`.
        qemu: a name of :data:`QEMUS`, or the path of another emulator.
    """
    emulator = QEMUS[qemu](place) if qemu in QEMUS else qemu
    return Cell(KERNELS[kernel](place), emulator, newest_nvme(place / "nvme-cli") if kernel == "newest" else None)


def try_out(chosen: Cell, tests: Sequence[str], deadline_s: float) -> Outcome:
    """Run the lab's tests in a cell, with their output as they say it.

    Raises:
        LabError: the guest did not start, or ended before the tests did.
    """
    with tempfile.TemporaryDirectory(prefix="nvmelm-matrix-") as name:
        report = Path(name) / "report.xml"
        path = ":".join(filter(None, (str(chosen.nvme or ""), "/usr/sbin:/usr/bin:/sbin:/bin")))
        guest = Guest(qemu=chosen.qemu, kernel=chosen.kernel, deadline_s=deadline_s, environment={"PATH": path})
        run(pytest_command([*tests, f"--junit-xml={report}"]), guest, scratch=Path(name))
        if not report.exists():
            raise LabError("the tests ended without a report")
        return outcome(report.read_text())


def outcome(report: str) -> Outcome:
    """Return what a report of pytest counts."""
    suites = [suite.attrib for suite in ElementTree.fromstring(report).iter("testsuite")]
    total, failed, errors, skipped = (
        sum(int(suite[name]) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    return Outcome(total - failed - errors - skipped, failed + errors, skipped)


def row(chosen: Cell, tests: Sequence[str], ended: Outcome, today: date) -> str:
    """Return a cell's row of the page."""
    release = chosen.kernel.name.removeprefix("vmlinuz-")
    subjects = ", ".join(Path(test).stem.removeprefix("test_") for test in tests) or "all of the lab"
    qemu = ".".join(map(str, vmm.version_of(chosen.qemu))) + (" with live migration" if has_hmlms(chosen.qemu) else "")
    fields = (release, qemu, nvme_version(chosen.nvme), subjects, *ended, today.isoformat())
    return f"| {' | '.join(map(str, fields))} |\n"


def nvme_version(directory: Path | None) -> str:
    """Return what the nvme-cli of a directory, or the installed one, calls its version."""
    program = str(directory / "nvme") if directory else "nvme"
    says = subprocess.run([program, "version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"nvme version (\d+\.\d+)", says)
    return found[1] if found else "unknown"


def written(page: str, new: str) -> str:
    """Return a page with a row put among those of its table, over the one with the same first four fields.

    Raises:
        ValueError: the page has no place for the table.
    """
    before, begin, rest = page.partition(BEGIN)
    table, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN.strip()} and {END.strip()}")
    rows = {_names(line): f"{line}\n" for line in _ROW.findall(table)} | {_names(new): new}
    return f"{before}{BEGIN}{HEAD}{''.join(rows[names] for names in sorted(rows, key=_order))}{END}{after}"


def _names(line: str) -> tuple[str, ...]:
    return tuple(field.strip() for field in line.split("|")[1:5])


def _order(names: tuple[str, ...]) -> tuple[list[int], ...]:
    return tuple([int(number) for number in re.findall(r"\d+", name)] for name in names[:2])


def main() -> int:
    """Run every cell that was asked for; end with 1 when one has a failed test or did not run to its end."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.matrix", description=__doc__)
    parser.add_argument("--kernel", action="append", choices=KERNELS, help="repeatable (default: each)")
    parser.add_argument(
        "--qemu", action="append", metavar="NAME|PATH", help=f"{', '.join(QEMUS)}, or a path; repeatable"
    )
    parser.add_argument("--deadline", type=float, default=3600, help="seconds for each cell (default: %(default)g)")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the table is (default: %(default)s)")
    parser.add_argument("tests", nargs="*", help="files of tests/lab (default: all)")
    arguments = parser.parse_args()
    failed = False
    for kernel in arguments.kernel or KERNELS:
        for qemu in arguments.qemu or QEMUS:
            print(f"matrix: Linux {kernel}, QEMU {qemu}", flush=True)
            try:
                chosen = cell(kernel, qemu)
                ended = try_out(chosen, arguments.tests, arguments.deadline)
            except (LabError, apt.AptError) as error:
                print(f"matrix: {error}", file=sys.stderr)
                failed = True
                continue
            new = row(chosen, arguments.tests, ended, date.today())
            arguments.page.write_text(written(arguments.page.read_text(), new))
            print(new, end="", flush=True)
            failed |= ended.failed > 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
