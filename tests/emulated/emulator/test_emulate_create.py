"""What kind of host and device cases need is said where a host is made, without a script."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvmelm.cli import main
from nvmelm.emulator.host import EmulatedHost

PF = "0000:01:00.0"


def made(directory: Path, *words: str) -> EmulatedHost:
    assert main(["emulate", "create", str(directory), *words]) == 0
    return EmulatedHost(directory)


@pytest.mark.parametrize(
    ("words", "option", "expected"),
    [
        (["--no-iommu"], "iommu", False),
        (["--unsafe-noiommu"], "noiommu", True),
        (["--unsafe-noiommu"], "iommu", False),
        (["--groups", "pf"], "groups", "pf"),
        (["--native-multipath"], "native_multipath", True),
        (["--kernel", "5.10.0-28-amd64"], "kernel_release", "5.10.0-28-amd64"),
        ([], "kernel_release", "6.1.0-56-amd64"),
    ],
)
def test_a_host_is_made_as_it_is_said(words: list[str], option: str, expected: object, tmp_path: Path) -> None:
    with made(tmp_path / "host", *words) as host, host.machine.view() as state:
        assert dict(state["options"])[option] == expected


def test_vfs_move_with_their_number(tmp_path: Path) -> None:
    with made(tmp_path / "host", "--vf-route", "3:8:2") as host:
        base = f"bus/pci/devices/{PF}"
        seen = []
        for count in ("2", "0", "3"):
            host.sysfs.write(f"{base}/sriov_numvfs", count)
            seen.append((host.sysfs.read(f"{base}/sriov_offset"), host.sysfs.read(f"{base}/sriov_stride")))
        assert (seen[0], seen[2]) == (("1", "1"), ("8", "2"))
        assert host.sysfs.exists("bus/pci/devices/0000:01:01.4"), "the third: 0 + 8 + 2 * 2 = 12, device 1, function 4"


@pytest.mark.parametrize(
    "words",
    [
        ["--vf-route", "3:2"],
        ["--vf-route", "3:0:1"],
        ["--vf-route", "x:1:1"],
        ["--vf-route", "3:1:1", "--vf-route", "3:2:1"],
        ["--kernel", "linux"],
        ["--kernel", "6"],
        ["--groups", "shared"],
    ],
)
def test_what_no_host_can_be_is_a_mistake_in_the_arguments(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["emulate", "create", str(tmp_path / "host"), *words]) == 2
    assert words[-1] in capsys.readouterr().err or "--vf-route" in words
    assert not (tmp_path / "host").exists()
