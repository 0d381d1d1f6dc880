"""libvirt's daemon in the lab's guest, with a configuration of its own, and the domains that the tests give it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from tests.lab.machine import wait_for

URI = "qemu:///system"
HOOK = Path("/etc/libvirt/hooks/qemu.d/nvmelm")
#: What a distribution does besides: another user, labels, cgroups and a /dev of its own, none of which the guest has.
CONFIGURATION = """
user = "root"
group = "root"
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
remember_owner = 0
"""
_NATIVE = "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off"


@contextmanager
def daemon() -> Iterator[subprocess.Popen[bytes]]:
    """Run libvirtd until the block ends, with nvmelm's hook: hooks that come later are not seen by a running one."""
    HOOK.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(str(files("nvmelm") / "share/libvirt/nvmelm"), HOOK)
    Path("/etc/libvirt/qemu.conf").write_text(CONFIGURATION)
    Path("/etc/libvirt/libvirtd.conf").write_text('auth_unix_rw = "none"\nlog_outputs = "3:stderr"\n')
    make_user()
    shutil.rmtree("/etc/libvirt/qemu/networks", ignore_errors=True)  # no domain here has a network
    places = [os.fspath(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": ":".join(places)}  # where a hook finds nvmelm
    with (
        Path("/run/libvirtd.log").open("wb") as log,
        subprocess.Popen(["libvirtd"], env=environment, stdin=subprocess.DEVNULL, stderr=log) as one,
    ):
        try:
            wait_for(lambda: Path("/run/libvirt/libvirt-sock").exists(), "libvirtd", deadline_s=120)
            yield one
        finally:
            one.terminate()


def make_user() -> None:
    """Make the user without which the daemon does not begin; its package makes it, a container's image may lack it."""
    if not any(line.startswith("libvirt-qemu:") for line in Path("/etc/passwd").read_text().splitlines()):
        with Path("/etc/passwd").open("a") as users, Path("/etc/group").open("a") as groups:
            users.write("libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin\n")
            groups.write("libvirt-qemu:x:64055:\n")


def xml(
    name: str,
    *,
    vfs: Sequence[str] = (),
    managed: str = "no",
    wanted: Sequence[str] = (),
    ports: int = 2,
    native: bool = True,
) -> str:
    """Return a small domain without disk and network.

    Args:
        vfs: host functions it has from the start.
        wanted: VFs its metadata names for nvmelm, marked or not: the lab's controllers cannot be marked.
        native: hot-plug is native, so that a port no guest has powered lets go at once; else by the guest's ACPI.
    """
    marks = "".join(f'<nvmelm:vf address="{one}" unmarked="yes"/>' for one in wanted)
    native_words = f"<qemu:commandline><qemu:arg value='-global'/><qemu:arg value='{_NATIVE}'/></qemu:commandline>"
    metadata = f'<metadata><nvmelm:vfs xmlns:nvmelm="urn:nvmelm:domain:1">{marks}</nvmelm:vfs></metadata>'
    root_ports = "<controller type='pci' model='pcie-root-port'/>" * ports
    return f"""
    <domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
      <name>{name}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>{metadata if wanted else ""}
      <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
      <devices>
        <emulator>/usr/bin/qemu-system-x86_64</emulator>
        <controller type='usb' model='none'/><controller type='pci' model='pcie-root'/>{root_ports}
        {"".join(hostdev(vf, managed) for vf in vfs)}<memballoon model='none'/>
      </devices>
      {native_words if native else ""}
    </domain>"""


def hostdev(address: str, managed: str = "no") -> str:
    """Return the element of a host function, as an operator would type it."""
    source = f"<source>{address_element(address)}</source>"
    return f"<hostdev mode='subsystem' type='pci' managed='{managed}'>{source}</hostdev>"


def address_element(address: str) -> str:
    """Return the element of a PCI address."""
    domain, bus, rest = address.split(":")
    slot, function = rest.split(".")
    return f"<address domain='0x{domain}' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/>"


class Domains:
    """libvirt as any other client has it; the domains end with the block."""

    def __init__(self) -> None:
        self._libvirt: Any = import_module("libvirt")
        self.error: type[Exception] = self._libvirt.libvirtError
        self._libvirt.registerErrorHandler(lambda *_about: None, None)
        self._connection = self._libvirt.open(URI)

    def define(self, name: str, **about: Any) -> Any:
        """Return a domain that does not run."""
        return self._connection.defineXML(xml(name, **about))

    def start(self, name: str, **about: Any) -> Any:
        """Return a domain that waits before its first instruction."""
        domain = self.define(name, **about)
        domain.createWithFlags(self._libvirt.VIR_DOMAIN_START_PAUSED)
        return domain

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_about: object) -> None:
        with suppress(self.error):
            self._connection.close()
        last = self._libvirt.open(URI)  # the daemon hangs up on clients that were silent throughout a slow test
        for domain in last.listAllDomains():
            with suppress(self.error):
                if domain.isActive():
                    domain.destroy()
            domain.undefine()
        last.close()
