"""What a host gets of nvmelm: a Debian package and a wheel, each with everything where it belongs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
DOCS = "usr/share/doc/nvmelm"

pytestmark = pytest.mark.timeout(600)


def _builder() -> ModuleType:
    """Load what ``make deb`` runs: it stands beside what CI runs, and is no package."""
    spec = spec_from_file_location("debian", ROOT / ".ci" / "debian.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


debian = _builder()


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the package once, without the time that compressing takes."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb builds the package")
    return debian.build(tmp_path_factory.mktemp("deb"), compression="none")


@pytest.fixture(scope="module")
def installed(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack it, as dpkg would below /."""
    root = tmp_path_factory.mktemp("root")
    subprocess.run(["dpkg-deb", "--extract", str(package), str(root)], check=True, timeout=120)
    return root


@pytest.mark.parametrize(
    "file",
    [
        "etc/libvirt/hooks/qemu.d/nvmelm",
        "usr/bin/nvmelm",
        "usr/bin/nvmelm-vmm",
        "usr/lib/systemd/system/nvmelm-apply@.service",
        "usr/lib/systemd/system/nvmelm-agent.socket",
        "usr/lib/sysusers.d/nvmelm.conf",
        "usr/lib/tmpfiles.d/nvmelm.conf",
        "usr/lib/udev/rules.d/90-nvmelm.rules",
        "usr/share/ansible/collections/ansible_collections/nvmelm/fleet/galaxy.yml",
        "usr/share/bash-completion/completions/nvmelm",
        "usr/share/fish/vendor_completions.d/nvmelm.fish",
        "usr/share/man/man1/nvmelm-explain.1",
        "usr/share/man/man8/nvmelm.8",
        "usr/share/zsh/vendor-completions/_nvmelm",
        f"{DOCS}/copyright",
        f"{DOCS}/docs/index.md",
        f"{DOCS}/docs/schemas/nvmelm.list.json",
        f"{DOCS}/examples/launcher.conf",
        f"{DOCS}/examples/sudoers.d/nvmelm",
    ],
)
def test_the_debian_package_puts_a_file_where_debian_looks_for_it(installed: Path, file: str) -> None:
    assert (installed / file).is_file()
    assert (installed / file).stat().st_mode & 0o777 == (0o755 if "/bin/" in file or "hooks" in file else 0o644)


def test_every_file_for_other_programs_is_somewhere_in_the_package(installed: Path) -> None:
    shipped = {file.name for file in (ROOT / "nvmelm/share").rglob("*") if file.is_file() and file.suffix != ".pyc"}
    outside = {file.name for part in ("etc", "usr/share") for file in (installed / part).rglob("*")}
    units = {file.name for file in (installed / "usr/lib").glob("[!n]*/**/*")}
    assert shipped <= outside | units


def test_nothing_of_the_package_is_enabled_or_allowed_before_somebody_decides_so(installed: Path) -> None:
    etc = {str(file.relative_to(installed)) for file in (installed / "etc").rglob("*") if file.is_file()}
    assert etc == {str(debian.HOOK)}
    assert not list(installed.rglob("*.wants"))


def test_the_package_needs_only_what_debian_has_and_asks_no_index(package: Path, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--control", str(package), str(tmp_path)], check=True, timeout=60)
    fields = dict(re.findall(r"^(\S+): (.*)$", (tmp_path / "control").read_text(), flags=re.MULTILINE))
    names = {need.split()[0] for need in fields["Depends"].split(", ")}
    assert names == {debian.PYTHON, "python3", "libc6", "libudev1"}
    scripts = (tmp_path / "postinst").read_text() + (tmp_path / "prerm").read_text()
    assert not re.search(r"\b(pip|curl|wget|http)\b", scripts)
    for script in ("postinst", "prerm"):
        subprocess.run(["sh", "-n", str(tmp_path / script)], check=True, timeout=60)


@pytest.mark.skipif(not Path(f"/usr/bin/{debian.PYTHON}").exists(), reason="Debian's Python runs it")
def test_what_the_package_installs_runs_with_debians_python_and_nothing_of_ours(
    installed: Path, tmp_path: Path
) -> None:
    program = [str(installed / debian.PREFIX / "bin/python3"), "-I", str(installed / "usr/bin/nvmelm")]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    for words in (["demo"], ["share", "docs"], ["--host", f"emulated:{tmp_path}/host", "list", "--json"]):
        done = subprocess.run(
            [*program, *words], capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
    where = "import nvmelm, pydantic, qemu.qmp, xxhash; print(*(m.__file__ for m in (nvmelm, pydantic, xxhash)))"
    done = subprocess.run([*program[:2], "-c", where], capture_output=True, text=True, timeout=60, check=True, cwd="/")
    assert all(name.startswith(str(installed)) for name in done.stdout.split())


def test_a_wheel_has_man_pages_completion_schemas_and_documentation(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("nvmelm-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    data = f"{wheel.name.removesuffix('-py3-none-any.whl')}.data/data/share"
    assert {
        f"{data}/man/man8/nvmelm.8",
        f"{data}/bash-completion/completions/nvmelm",
        f"{data}/zsh/site-functions/_nvmelm",
        f"{data}/fish/vendor_completions.d/nvmelm.fish",
        "nvmelm/share/docs/index.md",
        "nvmelm/share/docs/schemas/nvmelm.list.json",
        "nvmelm/share/libvirt/nvmelm",
        "nvmelm/share/man/man8/nvmelm-migrate.8",
        "nvmelm/share/systemd/nvmelm-apply@.service",
    } <= names
