"""Apt with directories of its own: packages are fetched from the machine's mirrors without a change to the machine.

The mirrors are those that apt is set up with, so nothing here names one; apt checks what it fetches, as ever.
"""

from __future__ import annotations

import os
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
