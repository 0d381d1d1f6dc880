"""``python -m tests.lab.qemu.vmm``: a stock QEMU that speaks VFIO's migration interface, beside the installed one.

QEMU migrates devices that answer version 2 of the interface since 8.1; Debian 12 installs 7.2, and its backports have
10.0, which would replace it. So the packages are unpacked and not installed; the directory has afterwards::

    qemu-system-x86_64   a script that starts the binary with its own firmware and modules
    root/                the packages' files
    apt/                 what apt keeps for this, apart from the system's

Where the installed one is new enough, the script starts that. Nothing is built, and no line of QEMU is changed.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.lab.qemu.apt import AptError, configured_mirrors, private_apt, run, unpack

DIRECTORY = Path(".lab-vmm")
BINARY = "qemu-system-x86_64"
#: The first that takes ``enable-migration`` and has no blocker for devices that answer version 2.
LEAST = (8, 1)
#: The emulator with all that its package depends on in exactly its own version; libraries are the system's.
PACKAGES = ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios")
BACKPORTS = "-backports"


def version_of(qemu: str | Path) -> tuple[int, int]:
    """Return the version that an emulator says it is, (0, 0) when it says none."""
    try:
        done = subprocess.run([qemu, "--version"], capture_output=True, text=True, check=False, timeout=60)
    except OSError:
        return (0, 0)
    match = re.search(r"version (\d+)\.(\d+)", done.stdout)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def fetch(into: Path) -> Path:
    """Fetch the packages and unpack them; return the root of their files.

    Raises:
        AptError: no mirror has them, or they cannot be fetched or unpacked.
    """
    root = into / "root"
    if root.exists():
        return root
    releases = [mirror for mirror in configured_mirrors() if "-" not in mirror.release]
    backports = [mirror._replace(release=mirror.release + BACKPORTS) for mirror in releases]
    apt = private_apt(into / "apt", "deb", backports)
    run(["apt-get", *apt, "update", "-qq"])
    downloads = (into / "apt/packages").absolute()
    shutil.rmtree(downloads, ignore_errors=True)
    downloads.mkdir(parents=True)
    run(["apt-get", *apt, "download", "-qq", *_available(apt)], downloads)
    return unpack(list(downloads.glob("*.deb")), root)


def write_starter(into: Path, root: Path) -> Path:
    """Write the script that starts the unpacked emulator, and return its path.

    A newer QEMU beside an installed older one finds the older one's modules and aborts while libvirt probes it; its
    own are what QEMU_MODULE_DIR and the firmware's directories name.
    """
    share = [root.absolute() / "usr/share" / name for name in ("qemu", "seabios")]
    modules = next(iter(root.absolute().glob("usr/lib/*/qemu")), root)
    words = " ".join(f"-L {shlex.quote(str(place))}" for place in share)
    binary = shlex.quote(str(root.absolute() / "usr/bin" / BINARY))
    starter = into / BINARY
    starter.write_text(
        f'#!/bin/sh\nQEMU_MODULE_DIR={shlex.quote(str(modules))} exec {binary} {words} -L /usr/lib/ipxe/qemu "$@"\n'
    )
    starter.chmod(0o755)
    return starter


def provide(into: Path = DIRECTORY) -> Path:
    """Return a QEMU that is new enough, fetched when the installed one is not.

    Raises:
        AptError: it cannot be fetched, or what was fetched does not start.
    """
    into.mkdir(parents=True, exist_ok=True)
    installed, starter = shutil.which(BINARY), into / BINARY
    if installed and version_of(installed) >= LEAST:
        starter.unlink(missing_ok=True)
        starter.symlink_to(installed)
        return starter
    starter = write_starter(into, fetch(into))
    if version_of(starter) < LEAST:
        raise AptError(f"{starter} does not start, or is older than {'.'.join(map(str, LEAST))}: try it by hand")
    return starter


def _available(apt: list[str]) -> list[str]:
    """Return the newest packages that backports have, as apt names them; the others are the installed release's."""
    done = subprocess.run(["apt-cache", *apt, "madison", *PACKAGES], capture_output=True, text=True, check=False)
    rows = [[field.strip() for field in line.split("|")] for line in done.stdout.splitlines()]
    newest = {row[0]: f"{row[0]}={row[1]}" for row in reversed(rows) if len(row) == 3 and BACKPORTS in row[2]}
    if PACKAGES[0] not in newest:
        raise AptError(f"no configured mirror has backports with {PACKAGES[0]}")
    return sorted(newest.values())


def main() -> int:
    """Parse, fetch, unpack, and print the path of the emulator on stdout."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.qemu.vmm", description=__doc__)
    parser.add_argument("--into", type=Path, default=DIRECTORY, help="where (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        print(provide(arguments.into))
    except AptError as error:
        print(f"vmm: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
