"""Apt with directories of its own: packages are fetched from the machine's mirrors without a change to the machine.

The mirrors are those that apt is set up with, so nothing here names one; apt checks what it fetches, as ever.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

DISTRIBUTIONS = ("Debian", "Ubuntu")
KEYRINGS = tuple(f"/usr/share/keyrings/{name}-archive-keyring.gpg" for name in ("debian", "ubuntu"))


class AptError(Exception):
    """Apt has no mirror, or one of its programs failed; the message says which."""


class Mirror(NamedTuple):
    """One component of a release at a mirror, as a line of sources.list has them."""

    uri: str
    release: str
    component: str


def configured_mirrors() -> list[Mirror]:
    """Return the mirrors of a distribution that the system's apt is set up with.

    Raises:
        AptError: there is none.
    """
    form = ("--format", "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)", "Created-By: Packages")
    listed = subprocess.run(["apt-get", "indextargets", *form], capture_output=True, text=True, check=False).stdout
    fields = [line.split() for line in listed.splitlines()]
    mirrors = sorted({Mirror(*parts[:3]) for parts in fields if parts[3:] and parts[3] in DISTRIBUTIONS})
    if not mirrors:
        raise AptError("apt knows no mirror of Debian: apt-get update")
    return mirrors


def private_apt(directory: Path, kind: str, mirrors: Sequence[Mirror]) -> list[str]:
    """Write ``mirrors`` as the only places of packages, and return apt's options to use them alone.

    Args:
        directory: where apt keeps lists and archives; made when it is not there.
        kind: ``deb`` for packages, ``deb-src`` for their sources.
    """
    for part in ("lists/partial", "cache/archives/partial"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    keyrings = ",".join(name for name in KEYRINGS if Path(name).exists())
    signed = f"[signed-by={keyrings}] " if keyrings else ""
    sources = directory / "sources.list"
    sources.write_text("".join(f"{kind} {signed}{' '.join(mirror)}\n" for mirror in mirrors))
    settings = {
        "Dir::Etc::SourceList": sources.absolute(),
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": (directory / "lists").absolute(),
        "Dir::Cache": (directory / "cache").absolute(),
        "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def base_mirror() -> Mirror:
    """Return the configured mirror that has releases themselves, with whatever other suites stand beside them.

    Raises:
        AptError: there is none.
    """
    plain = [mirror for mirror in configured_mirrors() if "-" not in mirror.release]
    if not plain:
        raise AptError("apt knows no mirror with a whole release, updates only")
    return plain[0]


def run(words: Sequence[str], directory: Path | None = None) -> str:
    """Run one of apt's or dpkg's programs, and return what it printed.

    Raises:
        AptError: it failed; the message has what it said.
    """
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AptError(f"{words[0]} ended with {done.returncode}:\n{done.stderr.strip()}")
    return done.stdout


def unpack(packages: Sequence[Path], root: Path) -> Path:
    """Unpack packages into a directory, which is there whole or not at all; nothing of theirs is run."""
    parts = root.with_name(f"{root.name}.parts")
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    for package in sorted(packages):
        run(["dpkg-deb", "-x", str(package), str(parts)])
    parts.rename(root)
    return root


def fetch_whole(into: Path, suite: str, package: str) -> Path:
    """Fetch a package of another suite with all that it depends on, its C library too, and unpack it.

    Apt is told that nothing is installed, so what it fetches runs by itself, whatever this machine has.

    Args:
        into: what is kept for it; ``root`` below has the files.
        suite: such as ``unstable``, at the configured mirror.

    Raises:
        AptError: it cannot be fetched or unpacked.
    """
    root = into / "root"
    if root.exists():
        return root
    into.mkdir(parents=True, exist_ok=True)
    nothing = into / "status"
    nothing.write_text("")
    # Experimental has only part of a distribution; what it lacks is in unstable.
    suites = dict.fromkeys((suite, "unstable" if suite == "experimental" else suite))
    apt = private_apt(into / "apt", "deb", [base_mirror()._replace(release=name) for name in suites])
    apt += ["-o", f"Dir::State::status={nothing.absolute()}"]
    run(["apt-get", *apt, "update", "-qq"])
    run(["apt-get", *apt, "install", "-qq", "-y", "--download-only", "--no-install-recommends", f"{package}/{suite}"])
    return unpack(list((into / "apt/cache/archives").glob("*.deb")), root)


def write_starter(starter: Path, root: Path, program: str, words: str = "", environment: str = "") -> Path:
    """Write a script that starts a program of :func:`fetch_whole` with the loader and the libraries beside it."""
    whole = root.absolute()
    loader = next(iter(sorted(whole.glob("usr/lib*/**/ld-linux-x86-64.so.2"))), None)
    if loader is None:
        raise AptError(f"{root} has no loader of programs")
    libraries = ":".join(
        str(whole / place) for place in ("usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/systemd")
    )
    start = f"{shlex.quote(str(loader))} --library-path {shlex.quote(libraries)} {shlex.quote(str(whole / program))}"
    starter.parent.mkdir(parents=True, exist_ok=True)
    starter.write_text(f'#!/bin/sh\n{environment}exec {start} {words} "$@"\n')
    starter.chmod(0o755)
    return starter
