"""Whether libvirt's confinement lets a VMM be answered: told by what the site has installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import nvmelm
from nvmelm.host.local.confinement import gaps

SHARE = Path(nvmelm.__file__).parent / "share"
ABSTRACTION = "etc/apparmor.d/abstractions/libvirt-qemu"
LOCAL = "etc/apparmor.d/local/abstractions/libvirt-qemu"
#: As libvirt's virt-aa-helper writes a profile for a VM, with its abstraction and, inside it, the local one.
PROFILE = """abi <abi/3.0>,
include <tunables/global>
profile libvirt-1 flags=(attach_disconnected) {{
  include <abstractions/base>
  include "{local}"
}}
"""


def put(root: Path, path: str, text: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.fixture
def apparmor(tmp_path: Path) -> Path:
    put(tmp_path, "sys/module/apparmor/parameters/enabled", "Y\n")
    put(tmp_path, ABSTRACTION, "# libvirt's own\n")
    return tmp_path


def test_a_machine_that_confines_nothing_lacks_nothing(tmp_path: Path) -> None:
    assert list(gaps(tmp_path)) == []


def test_apparmor_with_libvirt_needs_what_we_ship(apparmor: Path) -> None:
    (gap,) = gaps(apparmor)
    assert "AppArmor" in gap.message
    assert LOCAL in gap.fix
    put(apparmor, LOCAL, (SHARE / "apparmor/libvirt-qemu").read_text())
    assert list(gaps(apparmor)) == []


@pytest.mark.parametrize(("path", "text"), [("sys/module/apparmor/parameters/enabled", "N\n"), (ABSTRACTION, None)])
def test_apparmor_that_is_off_or_has_no_libvirt_needs_nothing(apparmor: Path, path: str, text: str | None) -> None:
    (apparmor / path).unlink()
    if text is not None:
        put(apparmor, path, text)
    assert list(gaps(apparmor)) == []


def test_selinux_needs_our_module_only_while_it_enforces(tmp_path: Path) -> None:
    put(tmp_path, "sys/fs/selinux/enforce", "1")
    (gap,) = gaps(tmp_path)
    assert "nvmelm.te" in gap.fix
    put(tmp_path, "var/lib/selinux/targeted/active/modules/400/nvmelm/cil")
    assert list(gaps(tmp_path)) == []
    put(tmp_path, "sys/fs/selinux/enforce", "0")
    (tmp_path / "var/lib/selinux/targeted/active/modules/400/nvmelm/cil").unlink()
    (tmp_path / "var/lib/selinux/targeted/active/modules/400/nvmelm").rmdir()
    assert list(gaps(tmp_path)) == []


def test_what_is_named_is_shipped() -> None:
    for path in ("apparmor/libvirt-qemu", "selinux/nvmelm.te", "libvirt/launcher.conf"):
        assert (SHARE / path).is_file()


def tool(name: str, package: str) -> str:
    """Return a program of the distribution's, or skip."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    return found or pytest.skip(f"there is no {name} (package {package})")


def test_apparmor_s_own_parser_takes_what_we_ship_inside_a_vm_s_profile(tmp_path: Path) -> None:
    parser = tool("apparmor_parser", "apparmor")
    profile = tmp_path / "profile"
    profile.write_text(PROFILE.format(local=SHARE / "apparmor/libvirt-qemu"))
    compiled = subprocess.run([parser, "-Q", "-K", "-S", str(profile)], capture_output=True)  # loads nothing
    assert compiled.returncode == 0, compiled.stderr.decode()
    assert len(compiled.stdout) > 1000


def test_selinux_s_own_compiler_makes_the_module_by_the_commands_in_its_first_lines(tmp_path: Path) -> None:
    for name, package in (("checkmodule", "checkpolicy"), ("semodule_package", "semodule-utils")):
        tool(name, package)
    source = SHARE / "selinux/nvmelm.te"
    shutil.copy(source, tmp_path)
    (line,) = (line for line in source.read_text().splitlines() if "checkmodule" in line)
    make, package, _load = (command.split() for command in line.removeprefix("#").split("&&"))
    for words in (make, package):
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "nvmelm.pp").stat().st_size
