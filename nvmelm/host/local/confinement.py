"""What keeps a confined VMM from being answered: security modules that nobody has told of nvmelm.

libvirt confines its VMMs by AppArmor (Debian, Ubuntu) or SELinux (Fedora, RHEL and their kin). What they have to allow
is shipped in ``nvmelm/share``; this looks whether a site has taken it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_ABSTRACTION = "etc/apparmor.d/abstractions/libvirt-qemu"
_LOCAL = "etc/apparmor.d/local/abstractions/libvirt-qemu"
#: Where SELinux keeps the modules of a policy, by priority and name.
_MODULES = "var/lib/selinux/*/active/modules/*/nvmelm"


class Gap(NamedTuple):
    """Something a site has not allowed yet."""

    message: str
    fix: str


def gaps(root: Path = Path("/")) -> Iterator[Gap]:
    """Return what libvirt's confinement lacks on this machine; nothing where it confines nothing."""
    share = "share/{} of the Python package nvmelm"
    confines = _text(root / "sys/module/apparmor/parameters/enabled") == "Y" and (root / _ABSTRACTION).exists()
    if confines and "nvmelm" not in _text(root / _LOCAL):
        yield Gap(
            "AppArmor confines libvirt's VMMs, and does not let nvmelm-vmm and the agent help them",
            f"add {share.format('apparmor/libvirt-qemu')} to /{_LOCAL}, then systemctl reload apparmor",
        )
    if _text(root / "sys/fs/selinux/enforce") == "1" and not list(root.glob(_MODULES)):
        yield Gap(
            "SELinux confines libvirt's VMMs, and does not let nvmelm-vmm and the agent help them",
            f"load {share.format('selinux/nvmelm.te')}; its first lines say how",
        )


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace").strip()
    return ""
