"""The lab's guest under systemd, as far as it can be looked at without booting it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import nvmelm
from tests.lab import boot
from tests.lab.guest import Guest

SHARE = Path(nvmelm.__file__).parent / "share"
SCRATCH = Path("/var/tmp/a lab")
SETTINGS = Guest(cached=(Path("/usr"),))


def test_nothing_is_put_where_it_would_reach_the_machine_outside() -> None:
    for path in boot.files(SCRATCH):
        assert any(Path("/", path).is_relative_to(place) for place in boot.OVER), path


def test_the_guest_gets_the_units_and_the_rule_that_are_shipped() -> None:
    files = boot.files(SCRATCH)
    for kind, place in (("systemd", boot.UNITS), ("udev", boot.RULES)):
        for shipped in (SHARE / kind).iterdir():
            assert files[f"{place}/{shipped.name}"] == shipped.read_text()


def test_each_directory_is_mounted_after_the_one_it_is_in() -> None:
    places = [line.split()[1] for line in boot.mounts(SETTINGS, SCRATCH)]
    assert len(places) == len(set(places))
    assert [place for place in places if place.startswith("/usr")][:1] == ["/usr"]
    for number, place in enumerate(places):
        assert not [later for later in places[number + 1 :] if Path(place).is_relative_to(later)]


def test_only_the_scratch_directory_is_writable_outside() -> None:
    for line in boot.mounts(SETTINGS, SCRATCH):
        source, place, kind, options, *_ = line.split()
        if kind == "9p" and "ro" not in options.split(","):
            assert (source, place) == ("virtme.initmount0", "/var/tmp/a\\040lab")


@pytest.mark.skipif(not shutil.which("sh"), reason="there is no shell")
def test_the_first_process_is_a_script_that_becomes_systemd() -> None:
    lines = list(boot.first_process(SCRATCH))
    assert lines[0] == "#!/bin/sh"
    assert f"exec {boot.SYSTEMD} --unit=lab.target" in lines[-1]
    assert "mount -a -T '/var/tmp/a lab'/fstab" in lines
    subprocess.run(["sh", "-n"], input="\n".join(lines), text=True, check=True)
