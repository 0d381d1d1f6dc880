"""Whether libvirt's confinement lets a VMM be answered: told by what the site has installed."""

from __future__ import annotations

from pathlib import Path

import pytest

import nvmelm
from nvmelm.host.local.confinement import gaps

SHARE = Path(nvmelm.__file__).parent / "share"
ABSTRACTION = "etc/apparmor.d/abstractions/libvirt-qemu"
LOCAL = "etc/apparmor.d/local/abstractions/libvirt-qemu"


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
