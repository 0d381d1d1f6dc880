"""What a service and systemd tell each other: sockets and stored descriptors in, readiness and descriptors out.

A descriptor that is stored outlives the service: systemd hands it to the next start, with the name it was given, and
forgets it when its other end hangs up, as a listener does when its VMM has ended. So calls of a VMM wait while nobody
answers, instead of failing for ever.

Sources: sd_listen_fds(3), sd_notify(3), sd_pid_notify_with_fds(3), systemd.service(5) FileDescriptorStoreMax=.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from nvmelm.numbers import decimal

#: The first descriptor that is passed.
_FIRST = 3
#: As many as a process may have open where nothing was raised (NR_OPEN, fs/file.c).
_MOST = 1 << 20


def passed(environ: dict[str, str]) -> list[tuple[str, int]]:
    """Return the descriptors that systemd passed to this process, by name, closed at an ``exec`` from now on."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = environ.get("LISTEN_FDS", "")
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    numbers = range(_FIRST, _FIRST + (decimal(count, most=_MOST) or 0))
    for number in numbers:
        os.set_inheritable(number, False)
    return list(zip([*names, *[""] * len(numbers)], numbers, strict=False))


class Notifier:
    """Tells systemd of this service; says nothing where systemd did not start it.

    Args:
        place: ``$NOTIFY_SOCKET``.
    """

    def __init__(self, place: str | None) -> None:
        self._address = "\0" + place[1:] if place and place.startswith("@") else place

    def ready(self) -> None:
        """Say that the service answers from now on."""
        self._tell("READY=1")

    def stopping(self) -> None:
        """Say that it ends."""
        self._tell("STOPPING=1")

    def store(self, name: str, fd: int) -> bool:
        """Let systemd keep a descriptor under a name; return whether it was told."""
        return self._tell(f"FDSTORE=1\nFDNAME={name}", [fd])

    def forget(self, name: str) -> None:
        """Let systemd close the descriptors of a name."""
        self._tell(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _tell(self, words: str, fds: Iterable[int] = ()) -> bool:
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
                connection.connect(self._address)
                socket.send_fds(connection, [words.encode()], list(fds))
        except OSError:
            return False
        return True
