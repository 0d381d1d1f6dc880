"""``python -m tests.lab.qemu.build``: a QEMU whose NVMe controllers can migrate, for the lab.

Debian's source package of QEMU, as the machine's own apt fetches and checks it; two files of ours and a few lines
(hooks.py); nothing but what the lab's machine is made of. The directory has afterwards::

    qemu-system-x86_64   the emulator; firmware is the one of Debian's packages
    apt/                 what apt keeps for this, apart from the system's
    qemu-VERSION/        the source and, in build/, the objects: run again, only what changed is compiled

With ``--cache`` a binary is kept under the digest of all that it is made from, and taken from there the next time; then
nothing of a compiler is needed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.lab.qemu.apt import AptError, configured_mirrors, private_apt
from tests.lab.qemu.hooks import HOOKS, BuildError, copy_files, insert

DIRECTORY = Path(".lab-qemu")
BINARY = "qemu-system-x86_64"
PACKAGE = "qemu-system-x86"  # whose source it is, and whose version is taken when it is installed

PROGRAMS = {
    "apt-get": "apt",
    "dpkg-source": "dpkg-dev",
    "cc": "gcc libc6-dev",
    "strip": "binutils",
    "pkg-config": "pkg-config",
    "meson": "meson",
    "ninja": "ninja-build",
}
LIBRARIES = {"glib-2.0": "libglib2.0-dev", "pixman-1": "libpixman-1-dev", "libcap-ng": "libcap-ng-dev"}
HEADERS = {"libfdt.h": "libfdt-dev", "attr/libattr.h": "libattr1-dev"}
INCLUDES = Path("/usr/include")

#: What the lab's machine is made of: tests/lab/guest.py and virtme-ng ask for these and no others.
DEVICES = ("Q35", "VTD", "PCIE_PORT", "NVME_PCI", "VIRTIO_PCI", "VIRTIO_SERIAL", "VIRTIO_9P", "WDT_IB6300ESB")
FIRMWARE = ("/usr/share/qemu", "/usr/share/seabios", "/usr/lib/ipxe/qemu")
OPTIONS = (
    *("--target-list=x86_64-softmmu", "--without-default-features", "--enable-system", "--enable-tcg"),
    *("--without-default-devices", "--with-devices-x86_64=lab", "--enable-fdt=system"),
    *("--enable-virtfs", "--enable-attr", "--enable-cap-ng", "--enable-pie", "--disable-debug-info"),
    # Not a place below the build: directories below the prefix are looked for beside the binary.
    *("--prefix=/nonexistent", f"--firmwarepath={':'.join(FIRMWARE)}"),
)
#: Debian's Python, which Debian's meson runs in, before one of a virtual environment.
ENVIRONMENT = {**os.environ, "PATH": f"/usr/bin:/bin:{os.environ.get('PATH', '')}", "LC_ALL": "C.UTF-8"}


def missing_packages() -> list[str]:
    """Return the Debian packages that the build needs and this machine has not got."""
    path = ENVIRONMENT["PATH"]
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None]
    if "pkg-config" not in missing:
        for module, package in LIBRARIES.items():
            if subprocess.run(["pkg-config", "--exists", module], env=ENVIRONMENT, check=False).returncode:
                missing.append(package)
    return missing + [package for header, package in HEADERS.items() if not (INCLUDES / header).exists()]


def fetch(into: Path) -> Path:
    """Fetch and unpack the source with apt, which checks it; return the source tree.

    Apt works on directories of its own below ``into``, so no root is needed, and the system's configuration need not
    name source packages.

    Raises:
        BuildError: no mirror of a distribution is configured, or none has the source.
    """
    version = _installed_version()
    tree = into / f"qemu-{version.replace(':', '_')}" if version else None
    if tree is not None and tree.exists():
        return tree
    try:
        apt = private_apt(into / "apt", "deb-src", configured_mirrors())
    except AptError as error:
        raise BuildError(str(error)) from error
    _run(["apt-get", *apt, "update", "-qq"])
    versions = _source_versions(apt)
    if not versions:
        raise BuildError("no configured mirror has the source package qemu: apt-get update, or look at apt's sources")
    version = version if version in versions else versions[0]
    tree = into / f"qemu-{version.replace(':', '_')}"
    if not tree.exists():
        print(f"build: source package qemu {version}", file=sys.stderr, flush=True)
        downloads = (into / "apt/source").absolute()
        shutil.rmtree(downloads, ignore_errors=True)
        downloads.mkdir(parents=True)
        _run(["apt-get", *apt, "source", "-qq", "--only-source", "--download-only", f"qemu={version}"], downloads)
        description = next(downloads.glob("*.dsc"))
        unpacked = into.absolute() / "unpacking"
        shutil.rmtree(unpacked, ignore_errors=True)
        _run(["dpkg-source", "--no-copy", "-x", str(description), str(unpacked)], downloads)
        unpacked.rename(tree)
    return tree


def prepare(tree: Path) -> None:
    """Put our files and lines into the source, and name the devices; done once for each state of the lines.

    Raises:
        BuildError: the source is not one that the lines fit, or other lines of ours are in it.
    """
    digest = hashlib.sha256(repr(HOOKS).encode()).hexdigest()
    stamp = tree / ".lab-hooks"
    if not stamp.exists():
        insert(tree)
        stamp.write_text(digest)
    elif stamp.read_text() != digest:
        raise BuildError(f"other lines are in {tree}: remove it, and it is unpacked anew")
    copy_files(tree)
    devices = tree / "configs/devices/x86_64-softmmu/lab.mak"
    devices.write_text("".join(f"CONFIG_{device}=y\n" for device in DEVICES))


def build(tree: Path, jobs: int) -> Path:
    """Configure, when that was not done, and compile; return the binary.

    Raises:
        BuildError: configure or the compiler failed; the message names the log.
    """
    objects = tree / "build"
    if not (objects / "build.ninja").exists():
        objects.mkdir(exist_ok=True)
        _logged(["../configure", "--meson=/usr/bin/meson", *OPTIONS], objects, "configure.log")
    _logged(["ninja", f"-j{jobs}", BINARY], objects, "compile.log")
    return objects / BINARY


def content_key() -> str:
    """Return a digest of what a binary is made from: our files and lines, options, QEMU's version, the system."""
    ours = [path.read_bytes() for path in sorted(Path(__file__).parent.iterdir()) if path.suffix in (".c", ".h")]
    system = Path("/etc/os-release")
    words = repr((HOOKS, DEVICES, OPTIONS, _installed_version(), system.read_text() if system.exists() else ""))
    return hashlib.sha256(b"\0".join([*ours, words.encode()])).hexdigest()


def provide(into: Path, jobs: int, cache: Path | None) -> Path:
    """Return the binary in a directory: the one that the cache has, or a new one, which the cache then has.

    Raises:
        BuildError: it cannot be built; the message names what is missing, or the log.
    """
    into.mkdir(parents=True, exist_ok=True)
    binary, kept = into / BINARY, cache / content_key() / BINARY if cache else None
    if kept is not None and kept.exists():
        shutil.copy2(kept, binary)
        return binary
    missing = missing_packages()
    if missing:
        raise BuildError(f"something is missing: apt-get install --no-install-recommends {' '.join(missing)}")
    tree = fetch(into)
    prepare(tree)
    _run(["strip", "-o", str(binary), str(build(tree, jobs))])
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(binary, kept.with_suffix(".new"))
        kept.with_suffix(".new").rename(kept)
    return binary


def _installed_version() -> str | None:
    done = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${source:Version}", PACKAGE], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def _source_versions(apt: list[str]) -> list[str]:
    """Return the versions of the source package that there are; apt's order, newest first."""
    done = subprocess.run(
        ["apt-cache", *apt, "showsrc", "--only-source", "qemu"], capture_output=True, text=True, check=False
    )
    return [line.removeprefix("Version: ") for line in done.stdout.splitlines() if line.startswith("Version: ")]


def _run(words: list[str], directory: Path | None = None) -> None:
    done = subprocess.run(words, cwd=directory, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{words[0]} ended with {done.returncode}:\n{done.stderr.strip()}")


def _logged(words: list[str], directory: Path, name: str) -> None:
    begin, log = time.monotonic(), directory / name
    with log.open("w") as output:
        done = subprocess.run(words, cwd=directory, env=ENVIRONMENT, stdout=output, stderr=output, check=False)
    if done.returncode:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise BuildError(f"{words[0]} ended with {done.returncode}; {log} has all of it, which ends\n{last}")
    print(f"build: {Path(words[0]).name} took {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)


def main() -> int:
    """Parse, fetch, extend, build, and print the path of the binary on stdout."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.qemu.build", description=__doc__)
    parser.add_argument("--into", type=Path, default=DIRECTORY, help="where (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at once (default: %(default)s)")
    parser.add_argument("--cache", type=Path, help="where binaries are kept, each under the digest of its making")
    arguments = parser.parse_args()
    try:
        binary = provide(arguments.into, arguments.jobs, arguments.cache)
    except BuildError as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    print(binary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
