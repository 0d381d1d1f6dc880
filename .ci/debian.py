"""A Debian package, made of this clone and of the packages that stand in this virtual environment.

``python .ci/debian.py DIR`` writes ``nvmelm_VERSION_ARCH.deb`` into DIR; it needs ``dpkg-deb`` and no network.

Debian 12 has pydantic 1.10 and typer 0.7, where nvmelm needs 2.7 and 0.15. So the package brings a virtual environment
of its own, ``/usr/lib/nvmelm``, with the versions that the tests ran with, and depends on Debian's Python alone. What
other packages bring for Python (``python3-libvirt``) is seen in it, too.

=================================== ====================================================
``/usr/bin``                        ``nvmelm``, ``nvmelm-vmm``
``/usr/lib/nvmelm``                 the virtual environment
``/usr/lib/systemd/system``         the units; none is enabled
``/usr/lib/{udev,tmpfiles,…}``      the udev rule, the state directory, the account for migrations
``/etc/libvirt/hooks/qemu.d``       the hook; a domain that does not name nvmelm starts without it
``/usr/share``                      man pages, completion, Ansible's collection, documentation, examples
=================================== ====================================================
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
SHARE = ROOT / "nvmelm" / "share"
#: Where the virtual environment is once the package is installed.
PREFIX = Path("usr/lib/nvmelm")
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
SITE = PREFIX / "lib" / PYTHON / "site-packages"
#: The extras that the package brings: QEMU's monitor, and the quicker digest.
EXTRAS = ("qmp", "fast")

#: What is copied as it stands: below nvmelm/share, and where to.
PLACES = {
    "systemd": "usr/lib/systemd/system",
    "udev": "usr/lib/udev/rules.d",
    "tmpfiles.d": "usr/lib/tmpfiles.d",
    "sysusers.d": "usr/lib/sysusers.d",
    "man/man1": "usr/share/man/man1",
    "man/man8": "usr/share/man/man8",
    "completions/bash": "usr/share/bash-completion/completions",
    "completions/zsh": "usr/share/zsh/vendor-completions",
    "completions/fish": "usr/share/fish/vendor_completions.d",
    "ansible/ansible_collections": "usr/share/ansible/collections/ansible_collections",
    # A site decides on these: who may run what as root, and what confines its VMMs.
    "sudoers.d": "usr/share/doc/nvmelm/examples/sudoers.d",
    "apparmor": "usr/share/doc/nvmelm/examples/apparmor",
    "selinux": "usr/share/doc/nvmelm/examples/selinux",
    "callouts": "usr/share/doc/nvmelm/examples/callouts",
}
HOOK = Path("etc/libvirt/hooks/qemu.d/nvmelm")
PROGRAMS = {"nvmelm": "nvmelm.cli", "nvmelm-vmm": "nvmelm.interposer.launcher"}

_POSTINST = f"""#!/bin/sh
set -e
if [ "$1" = configure ]; then
    /{PREFIX}/bin/python3 -m compileall -q /{SITE} || true
    if command -v systemd-sysusers >/dev/null; then systemd-sysusers nvmelm.conf || true; fi
    if command -v systemd-tmpfiles >/dev/null; then systemd-tmpfiles --create nvmelm.conf || true; fi
    if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
    if [ -d /run/udev ] && command -v udevadm >/dev/null; then udevadm control --reload || true; fi
fi
"""
_PRERM = f"""#!/bin/sh
set -e
find /{PREFIX} -name __pycache__ -type d -prune -exec rm -rf {{}} +
"""


def build(directory: Path, compression: str = "xz") -> Path:
    """Write the package into a directory, and return its path.

    Args:
        directory: made when it is not there.
        compression: a word for ``dpkg-deb -Z``.

    Raises:
        subprocess.CalledProcessError: dpkg-deb refused.
    """
    directory.mkdir(parents=True, exist_ok=True)
    version = metadata.version("nvmelm")
    file = directory / f"nvmelm_{version}_{architecture()}.deb"
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        stage(tree)
        _control(tree, version)
        _ordinary_modes(tree)
        words = ["dpkg-deb", "--root-owner-group", f"-Z{compression}", "--build", str(tree), str(file)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return file


def architecture() -> str:
    """Return Debian's name of this architecture: pydantic is compiled for it."""
    words = ["dpkg", "--print-architecture"]
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def stage(tree: Path) -> None:
    """Put every file of the package where it belongs below a directory."""
    shutil.copytree(ROOT / "nvmelm", tree / SITE / "nvmelm", ignore=shutil.ignore_patterns("__pycache__", "docs"))
    for distribution in needed():
        _copy_distribution(distribution, tree / SITE)
    _environment(tree)
    for name, place in PLACES.items():
        shutil.copytree(SHARE / name, tree / place, dirs_exist_ok=True)
    (tree / HOOK).parent.mkdir(parents=True)
    shutil.copy(SHARE / "libvirt" / "nvmelm", tree / HOOK)
    documents = tree / "usr/share/doc/nvmelm"
    shutil.copy(SHARE / "libvirt" / "launcher.conf", documents / "examples")
    shutil.copytree(ROOT / "docs", documents / "docs", ignore=shutil.ignore_patterns("site"))
    shutil.copy(ROOT / "README.md", documents)
    # `nvmelm share docs` finds them beside the others.
    beside = tree / SITE / "nvmelm/share"
    (beside / "docs").symlink_to(os.path.relpath(documents / "docs", beside))
    (documents / "copyright").write_text(_copyright(), encoding="utf-8")


def needed() -> list[metadata.Distribution]:
    """Return the distributions that nvmelm imports, without itself, by name.

    Raises:
        importlib.metadata.PackageNotFoundError: one is not in this virtual environment.
    """
    known: dict[str, metadata.Distribution] = {}
    waiting = list(_requirements(metadata.distribution("nvmelm"), EXTRAS))
    while waiting:
        name = waiting.pop()
        if name not in known:
            known[name] = metadata.distribution(name)
            waiting.extend(_requirements(known[name], ()))
    return [known[name] for name in sorted(known)]


def _requirements(distribution: metadata.Distribution, extras: tuple[str, ...]) -> Iterator[str]:
    """Return the names of what a distribution needs on this Python, each as the index spells it."""
    from packaging.requirements import Requirement  # with pip's kin; only who builds needs it

    for line in distribution.requires or []:
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield re.sub(r"[-_.]+", "-", requirement.name).lower()


def _copy_distribution(distribution: metadata.Distribution, site: Path) -> None:
    """Copy what a distribution put into site-packages; its programs are not ours to install."""
    for file in distribution.files or []:
        if ".." in file.parts or "__pycache__" in file.parts or file.suffix == ".pth":
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(str(file.locate()), target)


def _environment(tree: Path) -> None:
    """Write the virtual environment's own files, and the programs that start in it."""
    (tree / PREFIX / "bin").mkdir(parents=True)
    (tree / PREFIX / "bin" / "python3").symlink_to(f"/usr/bin/{PYTHON}")
    (tree / PREFIX / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")
    metadata_directory = tree / SITE / f"nvmelm-{metadata.version('nvmelm')}.dist-info"
    metadata_directory.mkdir()
    own = metadata.distribution("nvmelm").read_text("METADATA") or ""
    (metadata_directory / "METADATA").write_text(own, encoding="utf-8")
    (tree / "usr/bin").mkdir(parents=True)
    for name, module in PROGRAMS.items():
        program = tree / "usr/bin" / name
        # -I: neither root's environment nor root's own packages have a say.
        program.write_text(f"#!/{PREFIX}/bin/python3 -I\nimport sys\n\nfrom {module} import main\n\nsys.exit(main())\n")
        program.chmod(0o755)


def _control(tree: Path, version: str) -> None:
    """Write what dpkg is told of the package."""
    size = sum(file.lstat().st_size for file in tree.rglob("*") if not file.is_dir()) // 1024
    after = f"{sys.version_info.major}.{sys.version_info.minor + 1}~"
    about = metadata.metadata("nvmelm")["Summary"]
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(
        f"Package: nvmelm\nVersion: {version}\nArchitecture: {architecture()}\n"
        f"Maintainer: the authors of nvmelm <root@localhost>\nInstalled-Size: {size}\n"
        f"Section: admin\nPriority: optional\n"
        f"Depends: {PYTHON}, python3 (<< {after}), libc6, libudev1\n"
        f"Recommends: kmod, openssh-client\nSuggests: ansible-core, libvirt-daemon-system, python3-libvirt\n"
        f"Description: {about[:1].upper()}{about[1:]}\n",
        encoding="utf-8",
    )
    (tree / "DEBIAN" / "conffiles").write_text(f"/{HOOK}\n")
    for name, script in (("postinst", _POSTINST), ("prerm", _PRERM)):
        (tree / "DEBIAN" / name).write_text(script)
        (tree / "DEBIAN" / name).chmod(0o755)


def _ordinary_modes(tree: Path) -> None:
    """Give every file the mode that the packager's umask might have taken from it."""
    for path in tree.rglob("*"):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & 0o100 or path == tree / HOOK
            path.chmod(0o755 if executable else 0o644)


def _copyright() -> str:
    """Return whose work is in the package, and under which licence."""
    rows = [f"  {one.name} {one.version}: {_licence(one)}" for one in needed()]
    heading = f"nvmelm is under the MIT licence. /{SITE} holds, each with its licence in its .dist-info:"
    return "\n".join([heading, "", *rows, ""])


def _licence(distribution: metadata.Distribution) -> str:
    about = distribution.metadata
    stated = [line for field in ("License-Expression", "License") for line in about.get_all(field, [])]
    classified = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier", []) if "License ::" in line]
    short = [line for line in stated if "\n" not in line]
    return ", ".join(short or classified) or "see its .dist-info"


if __name__ == "__main__":
    sys.stdout.write(f"{build(Path(sys.argv[1]))}\n")
