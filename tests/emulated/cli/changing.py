"""Every changing verb with what is done before it: what README and the docs say of all of them is walked from here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from nvmelm import cli
from nvmelm.cli.reference import tree
from nvmelm.emulator.guest.vmm import EmulatedVmm
from nvmelm.emulator.host import EmulatedHost
from nvmelm.emulator.machine.faults import EmulatedCrash

PF, VF = "0000:01:00.0", "0000:01:00.1"


class Case(NamedTuple):
    """A changing verb, and what is done on an empty host before it."""

    before: tuple[str, ...]
    words: str


Run = Callable[..., tuple[int, str]]
"""Runs a command line on the emulated host in a directory, and returns its exit code and its standard output."""


PREPARED = "source prepare nvme0 --vfs 2 --vq 2 --vi 2"
SUSPENDED = (PREPARED, "state suspend nvme0 0x42 --yes")
RESTORABLE = (
    *SUSPENDED,
    "state save nvme0 0x42 {host}/image",
    "secondary allow-resume nvme0 0x43",
    "state suspend nvme0 0x43 --yes",
)

#: Every changing verb but ``migrate``, which needs two hosts.
VERBS = {
    "source prepare": Case((), PREPARED),
    "destination prepare": Case((), "destination prepare nvme0 --vfs 2"),
    "sriov enable": Case((), "sriov enable nvme0 --vfs 1"),
    "sriov disable": Case((PREPARED,), "sriov disable nvme0"),
    "secondary assign": Case((), "secondary assign nvme0 0x42 --vq 2 --vi 2"),
    "secondary online": Case(
        ("sriov enable nvme0 --vfs 1", "secondary assign nvme0 0x42 --vq 2 --vi 2"), "secondary online nvme0 0x42"
    ),
    "secondary offline": Case((PREPARED,), "secondary offline nvme0 0x42"),
    "secondary allow-migration": Case(
        (PREPARED, "secondary revoke nvme0 0x42"), "secondary allow-migration nvme0 0x42"
    ),
    "secondary allow-resume": Case((PREPARED,), "secondary allow-resume nvme0 0x42"),
    "secondary revoke": Case((PREPARED,), "secondary revoke nvme0 0x42"),
    "vfio bind": Case((PREPARED, f"vfio unbind {VF} --yes"), f"vfio bind {VF} --unmarked"),
    "vfio unbind": Case((PREPARED,), f"vfio unbind {VF}"),
    "release": Case((PREPARED,), "release nvme0"),
    "recover": Case(("emulate fault add {host} sysfs/*drivers_probe=raise-before", PREPARED), "recover"),
    "state suspend": Case((PREPARED,), "state suspend nvme0 0x42"),
    "state resume": Case(SUSPENDED, "state resume nvme0 0x42"),
    "state save": Case(SUSPENDED, "state save nvme0 0x42 {host}/saved"),
    "state restore": Case(RESTORABLE, "state restore nvme0 0x43 {host}/image"),
    "apply": Case((), "apply --config {host}"),
    "compat parameters apply": Case((PREPARED,), "compat parameters apply {host}/parameters nvme0 0x42"),
    "libvirt-hook": Case((PREPARED, f"vfio unbind {VF} --yes"), "libvirt-hook vm1 prepare begin -"),
    "vm attach": Case((PREPARED,), f"vm attach {VF} --qmp {{host}}/qmp"),
    "vm detach": Case((PREPARED,), f"vm detach {VF} --qmp {{host}}/qmp"),
}
CONFIG = f"[[pf]]\naddress = '{PF}'\nvfs = 1\nrole = 'source'\n"
DOMAIN = (
    f"<domain><name>vm1</name><metadata><nvmelm:vfs xmlns:nvmelm='urn:nvmelm:domain:1'><nvmelm:vf address='{VF}'/>"
    "</nvmelm:vfs></metadata><devices><hostdev mode='subsystem' type='pci' managed='no'><source>"
    "<address domain='0x0000' bus='0x01' slot='0x00' function='0x1'/></source></hostdev></devices></domain>"
)


@contextmanager
def vmm(place: Path, *, holds: bool) -> Iterator[None]:
    """Have a VM that waits for its guest, or a running one with the VF in it as far as the faults let it have one."""
    with EmulatedHost(place) as host, EmulatedVmm(host, socket=place / "qmp", running=holds) as machine:
        if holds:
            with suppress(Exception):
                machine.device_add({"driver": "vfio-pci", "host": VF, "id": "vf", "bus": "rp1"})
        yield


def build(place: Path, name: str, run: Run) -> Path:
    """Make an emulated host on which a verb finds what it needs."""
    before, words = VERBS[name]
    assert cli.main(["emulate", "create", str(place), "--max-vfs", "2"]) == 0
    for line in before:
        with suppress(EmulatedCrash):
            assert run(place, line)[0] == 0
    (place / "nvmelm.toml").write_text(CONFIG)
    if "{host}/parameters" in words:
        listed = json.loads(run(place, f"compat parameters list {PF}/0x42 --json")[1])
        (place / "parameters").write_text(json.dumps(listed | {"params": {"namespaces.ids": ""}}))
    return place


def copy(template: Path, place: Path, *faults: str) -> Path:
    """Copy an emulated host, and arm faults on it."""
    shutil.copytree(template, place)
    with EmulatedHost(place) as host:
        with host.machine.change() as state:
            state["storage"] = str(place)
        for fault in faults:
            host.arm(fault)
    return place


def all_changing() -> set[str]:
    """Return the verbs that can be run dry, from the tree of verbs."""
    return {verb.name for topic in tree.topics() for verb in topic.verbs if verb.changes}
