"""Two emulated hosts, a guest on the source, and a link between them that a test can cut: for whole migrations.

Everything runs in this process: the source in the caller's thread, the destination in another. A process that is
killed is a ``Killed`` that nobody catches; what it held is let go as the kernel would.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nvmelm.emulator.guest.guest import Guest
from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.emulator.machine.faults import EmulatedCrash
from nvmelm.errors import NvmelmError
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.picture import Role
from nvmelm.migrate.callouts.points import Points
from nvmelm.migrate.destination import serve
from nvmelm.migrate.end import End
from nvmelm.migrate.link.frames import Link
from nvmelm.migrate.recovery.sessions import Means, give_up, recover_sessions, take
from nvmelm.migrate.request import MigrationRequest
from nvmelm.migrate.source import Source
from nvmelm.ownership.sessions import SessionRecord, Sessions
from nvmelm.prepare import sequence
from nvmelm.prepare.recover import SessionView
from tests.emulated.answers import agree

PF = "0000:01:00.0"
VF = "0000:01:00.1"
FIRST = 0x42
SILENCE_S = 5.0


#: This process was killed: nothing of it runs any more, not even what tidies up.
Killed = EmulatedCrash


@dataclass
class Cut:
    """Where a link breaks, or a process dies: at a frame that one side sends.

    Attributes:
        at: the n-th frame, from 0.
        after: the frame went out.
        kill: the sender dies, and not only the link.
    """

    side: str
    at: int
    after: bool = False
    kill: bool = False


class LossyLink(Link):
    """A link that breaks where it is told to."""

    def __init__(self, descriptor: int, peer: str, cut: Cut | None) -> None:
        super().__init__(descriptor, os.dup(descriptor), peer, silence_s=SILENCE_S)
        self.cut = cut
        self.frames = 0
        self._socket = descriptor

    def send(self, kind: int, payload: Any, stream: int = 0) -> None:
        number, self.frames = self.frames, self.frames + 1
        strikes = self.cut is not None and self.cut.at == number
        if strikes and not self.cut.after:
            self._break()
        super().send(kind, payload, stream)
        if strikes:
            self._break()

    def _break(self) -> None:
        with socket.socket(fileno=os.dup(self._socket)) as end, suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        if self.cut is not None and self.cut.kill:
            raise Killed


@dataclass
class World:
    """Two prepared hosts; ``guest`` runs on the source, and the waiting machine holds the destination's VF."""

    place: Path
    controllers: int = 1
    source: EmulatedHost = field(init=False)
    destination: EmulatedHost = field(init=False)
    guest: Guest | None = None
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self.source = EmulatedHost(self.place / "source")
        self.destination = EmulatedHost(self.place / "destination")

    def close(self) -> None:
        if self.guest is not None:
            self.guest.detach()
        self.source.close()
        self.destination.close()

    def host(self, side: str) -> EmulatedHost:
        return self.source if side == "source" else self.destination

    def start_guest(self, **values: int) -> Guest:
        self.guest = Guest.create(self.source, VF, **values)
        self.guest.attach(self.source, VF)
        self.guest.step(20)
        self.guest.hold(self.destination, VF)
        return self.guest

    def guest_lost_nothing(self) -> bool:
        """Let the guest go on where it runs now, to its end; return whether each of its commands completed once."""
        assert self.guest is not None
        if self.runs("destination"):
            self.guest.attach(self.destination, VF)
        self.guest.step(10)
        report = self.guest.finish()
        return report.clean and report.submitted == report.completed

    def request(self, **values: Any) -> MigrationRequest:
        pairs = [(FIRST + number, None) for number in range(self.controllers)]
        # The tests move the guest along by themselves, where there is one.
        given = {"to": "ssh://destination", "pf": PF, "pairs": pairs, "guest_loses_controller": True}
        return MigrationRequest(**{**given, **values})

    @contextmanager
    def link(
        self, client: str, cut: Cut | None = None, points: Callable[[str], Points] = lambda side: Points(None, side)
    ) -> Iterator[Link]:
        """Start the other side's server and yield the client's end; what the server died of is kept."""
        server = "destination" if client == "source" else "source"
        ours, theirs = socket.socketpair()
        cuts = {side: cut if cut is not None and cut.side == side else None for side in (client, server)}
        self.failure = None

        def run() -> None:
            try:
                with (
                    EmulatedHost(self.place / server) as host,
                    LossyLink(theirs.detach(), client, cuts[server]) as link,
                ):
                    serve(host, link, points=points(server), name=server)
            except (NvmelmError, Killed) as error:
                self.failure = error

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            with LossyLink(ours.detach(), server, cuts[client]) as link:
                yield link
        finally:
            thread.join(60)
            assert not thread.is_alive(), "the other side hangs"

    def migrate(
        self,
        cut: Cut | None = None,
        *,
        points: Callable[[str], Points] = lambda side: Points(None, side),
        tracks: Sequence[Any] = (),
        reconnect: bool = False,
        during: AbstractContextManager[object] | None = None,
        **request: Any,
    ) -> Source:
        """Move everything from source to destination, inside of another block."""
        with (
            self.link("source", cut, points) as link,
            open_primary(self.source, PF, change=True) as pf,
            Sessions(self.source) as sessions,
        ):
            again = (lambda: self.link("source")) if reconnect else None
            moved = Source(End(pf, sessions, link, points("source"), "source", again), self.request(**request))
            with during or nullcontext():
                moved.open()
                moved.move(tracks=tracks)
        return moved

    def recover(self, side: str, *, cut: Cut | None = None, alone: bool = False) -> list[SessionView]:
        """Run ``recover`` on one host, which may ask the other."""
        return recover_sessions(self.host(side), self.means(side, cut=cut, alone=alone))

    def word(
        self, word: str, side: str, *, cut: Cut | None = None, alone: bool = False, session: str = ""
    ) -> SessionView:
        """Say an operator's word, ``take`` or ``give-up``, of the only session, or of one that is named."""
        if not session:
            with Sessions(self.host(side)) as sessions:
                (session,) = (record.id for record in sessions.all())
        decide = take if word == "take" else give_up
        return decide(self.host(side), session, self.means(side, cut=cut, alone=alone))

    def means(self, side: str, *, cut: Cut | None = None, alone: bool = False) -> Means:
        @contextmanager
        def connect(record: SessionRecord) -> Iterator[Link]:
            with self.link(side, cut) as link:
                yield link

        return Means(
            connect=None if alone else connect, name=side, points=lambda which: Points(None, which), confirm=agree
        )

    def states(self, side: str) -> list[str]:
        with Sessions(self.host(side)) as sessions:
            return [record.state.value for record in sessions.all()]

    def controller(self, side: str, cntlid: int = FIRST) -> dict[str, Any]:
        host = self.host(side)
        with host.machine.view() as state:
            return dict(state["primaries"][PF]["secondaries"][str(cntlid)])

    def runs(self, side: str, cntlid: int = FIRST) -> bool:
        """Return whether a copy of the controller runs there: online, with I/O queues, and not suspended."""
        # At one moment: the other side's thread may take it down between two looks.
        controller = self.controller(side, cntlid)
        return _present(controller) and not controller["suspended"]

    def holds(self, side: str, cntlid: int = FIRST) -> bool:
        """Return whether a copy of the controller's state is there, running or not."""
        return _present(self.controller(side, cntlid))


def _present(controller: dict[str, Any]) -> bool:
    return bool(controller["online"] and controller["io"] is not None and controller["io"]["sqs"])


def build(place: Path, *generations: Any, controllers: int = 1, **options: Any) -> Path:
    """Prepare two hosts that share their media, below a directory that :func:`copy` can copy."""
    for name, role in (("source", Role.MIGRATABLE), ("destination", Role.RESUMABLE)):
        host = create(
            place / name, generations or ("nvme-2.1",), serials=[f"SN-{name.upper()}"], storage=place / "media"
        )
        with host, open_primary(host, PF, change=True) as pf:
            sequence.prepare(pf, role, controllers, vq=3, vi=2, confirm=agree)
            if options:
                host.set_option(**options)
    return place


def copy(template: Path, place: Path) -> World:
    """Copy prepared hosts, so that each example begins with fresh ones."""
    shutil.copytree(template, place)
    world = World(place)
    for host in (world.source, world.destination):
        with host.machine.change() as state:
            state["storage"] = str(place / "media")
    return world
