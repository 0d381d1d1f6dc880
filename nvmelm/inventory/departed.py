"""Which controllers of a picture were in a session between two hosts, and which of them left by one.

A controller is the one a session speaks of only in the same boot and incarnation; others hold nothing of it. Hosts
without any session pay for one look at a directory: the database is opened when it is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from nvmelm.disk import store
from nvmelm.errors import NvmelmError
from nvmelm.host import Host
from nvmelm.inventory.picture import MovedAway, Picture, Secondary

if TYPE_CHECKING:
    from nvmelm.ownership.record import SessionRecord

#: The names of the database of sessions, and of where it is known that there is one; to import what reads them costs
#: time.
DATABASE, WITNESS = "sessions.db", "ownership"


def any_session(host: Host) -> bool:
    """Return whether this host ever took part in a session, as far as the names of files tell."""
    return not {DATABASE, WITNESS}.isdisjoint(store.names(host.state_dir))


def latest(host: Host, picture: Picture) -> Iterator[tuple[SessionRecord, Secondary]]:
    """Return each controller that is still the one of a session, with the last session it was in."""
    if not any_session(host):
        return
    from nvmelm.ownership.sessions import Sessions

    boot = host.facts().boot_id
    present = {
        (secondary.cntlid, secondary.incarnation): secondary for secondary in picture.secondaries if secondary.present
    }
    with Sessions(host) as sessions:
        records = [
            record for record in sessions.seen() if record.primary == picture.primary.address and record.boot == boot
        ]
    last = {
        (moving.cntlid, moving.incarnation): record
        for record in records  # the oldest first
        for moving in record.controllers
    }
    for which, record in last.items():
        if which in present:
            yield record, present[which]


def moved_away(host: Host, picture: Picture) -> dict[int, SessionRecord]:
    """Return the offline, unmarked controllers that were moved to another host, each with its session.

    One that was brought online or marked again since is another one, with nothing of the session in it.
    """
    return {
        secondary.cntlid: record
        for record, secondary in latest(host, picture)
        if record.state == "done" and not record.given_up and not secondary.online and secondary.mark is None
    }


def joined(host: Host, picture: Picture) -> Picture:
    """Return a picture with which of its controllers were moved to another host, and where.

    Not while a host is recorded: a recording holds no sessions, and its replay would ask other questions. Nor where
    they cannot be read: what is there is shown all the same, and :mod:`nvmelm.inventory.glance` says why.
    """
    if host.recorded:
        return picture
    try:
        moved = moved_away(host, picture)
    except NvmelmError:
        return picture
    return replace(picture, moved=tuple(_moved(cntlid, record) for cntlid, record in sorted(moved.items())))


def _moved(cntlid: int, record: SessionRecord) -> MovedAway:
    return MovedAway(cntlid=cntlid, to=record.peer, session=record.id, at=record.changed_at)
