"""A real OpenSSH server on the loopback, with keys of its own, for one test or bench."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from nvmelm.inventory.address import Address
from nvmelm.migrate.link.frames import Link
from nvmelm.migrate.link.remote import connected
from nvmelm.process.waiting import wait_until

NVMELM = str(Path(sys.executable).with_name("nvmelm"))


class NoSshdError(Exception):
    """There is no OpenSSH server, client or key generator here."""


@dataclass
class Server:
    """A running server: its port, and the words that reach it."""

    place: Path
    port: int

    @property
    def rsh(self) -> str:
        """Return what stands for ssh: the same ssh, with this server's keys and nobody's configuration."""
        return shlex.join(
            ["ssh", "-F", str(self.place / "config"), "-p", str(self.port), "-i", str(self.place / "key"), "-T", "--"]
        )

    def program(self, host: Path) -> str:
        """Return what to run there for it to work on an emulated host."""
        return f"{shlex.quote(NVMELM)} --host emulated:{shlex.quote(str(host))}"

    def link_to(self, host: Path) -> Callable[[Path], AbstractContextManager[Link]]:
        """Return what connects to an emulated host through the server."""
        return lambda _: connected(Address("127.0.0.1"), rsh=self.rsh, program=self.program(host))


@contextmanager
def sshd(place: Path) -> Iterator[Server]:
    """Run a server for as long as the block lasts.

    Raises:
        NoSshdError: OpenSSH is not installed.
    """
    program = shutil.which("sshd") or "/usr/sbin/sshd"
    missing = [name for name in (program, "ssh", "ssh-keygen") if not shutil.which(name)]
    if missing:
        raise NoSshdError(f"{', '.join(missing)} not found; apt install openssh-server openssh-client")
    place.mkdir(mode=0o700, parents=True)
    for name in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], check=True)
    shutil.copy(place / "key.pub", place / "authorized_keys")
    (place / "authorized_keys").chmod(0o600)
    port = _free_port()
    (place / "sshd_config").write_text(_SERVER.format(place=place, port=port))
    (place / "config").write_text(_CLIENT.format(user=getpass.getuser()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists, and only root has to make it
    command = [program, "-D", "-e", "-f", str(place / "sshd_config")]
    with (place / "log").open("wb") as log, subprocess.Popen(command, stderr=log, stdout=log) as server:
        try:
            wait_until(lambda: _listens(port) or server.poll() is not None, "sshd to listen", deadline_s=20)
            if server.poll() is not None:
                raise NoSshdError(f"sshd ended: {(place / 'log').read_text()[-300:]}")
            yield Server(place, port)
        finally:
            server.terminate()


def _free_port() -> int:
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        return int(end.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as end:
        return end.connect_ex(("127.0.0.1", port)) == 0


_SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {place}/host_key
AuthorizedKeysFile {place}/authorized_keys
PidFile {place}/pid
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
"""
_CLIENT = """
User {user}
BatchMode yes
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
"""
