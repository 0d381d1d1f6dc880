"""Look at a host: its controlling functions, the marks on what is below them, and its sessions.

Nothing of a Secondary Controller List, of a mark or of a session has an event of the kernel's, so these are looked at;
most looks are glances that find everything as it was.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Generator, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from nvmelm.commands import listing
from nvmelm.compat.read import of_functions
from nvmelm.discovery import with_users
from nvmelm.errors import NvmelmError
from nvmelm.inventory import PrimaryRef, opened, primaries
from nvmelm.operations.ownership import Record, Sessions, sessions_path
from nvmelm.operations.session import Session
from nvmelm.picture import Picture, Secondary
from nvmelm.transport import Host
from nvmelm.watch.known import Known, differences
from nvmelm.watch.lines import Body, SessionPart, Trouble

#: What can be in trouble beside a function.
_LIST, _SESSIONS = "list", "sessions"

Stamp = tuple[tuple[int, int, int], ...]


class Looks:
    """What is known of a host, and what each further look finds different.

    Attributes:
        functions: by PCI address.
        records: the sessions in the order in which they began.
        troubles: what could not be looked at, and why: functions by address, the list of them, the sessions.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._stamps: dict[str, Stamp] = {}
        self.functions: dict[str, Known] = {}
        self.records: dict[tuple[str, str], Record] = {}
        self.troubles: dict[str, str] = {}
        self._begun = False

    def whole(self, *, again: bool = False) -> Iterator[Body]:
        """Look at everything.

        Args:
            again: also say everything as it is, for a reader who may have lost something.
        """
        before = set(self.functions)
        yield from self.at(None, manifests=True)
        if again:
            yield from (self.functions[address].there() for address in sorted(before & set(self.functions)))
        yield from self.sessions(unfinished=again or not self._begun)

    def at(self, addresses: Collection[str] | None, *, manifests: bool = False) -> Iterator[Body]:
        """Look at some functions, and at those that came or went; all of them when that is None.

        Args:
            manifests: read every manifest again, also of controlled functions that look as they did.
        """
        refs = yield from self._refs()
        if refs is None:
            return
        for gone in sorted(set(self.functions) - refs.keys()):
            self.troubles.pop(gone, None)
            yield from self.functions.pop(gone).gone()
        for address, ref in sorted(refs.items()):
            known = self.functions.get(address)
            if known is None or known.ref != ref or addresses is None or address in addresses:
                yield from self._function(ref, manifests=manifests)

    def users(self) -> Iterator[Body]:
        """Look who has the controlled functions in use; nothing tells of that, and asking costs the most."""
        for address, known in sorted(self.functions.items()):
            rows = [replace(one, used_by=()) for one in known.picture.secondaries]
            try:
                rows = with_users(self._host, rows)
            except NvmelmError as error:
                yield from self._failed(address, error)
                continue
            picture = replace(known.picture, secondaries=tuple(rows))
            self.functions[address] = replace(known, picture=picture)
            yield from differences(known, self.functions[address])

    def glance(self) -> Iterator[Body]:
        """Look at the functions whose Secondary Controller List is another than it was."""
        refs = yield from self._refs()
        if refs is None:
            return
        other = {address for address, ref in refs.items() if self._list_changed(address, ref)}
        other |= self.troubles.keys() & refs.keys()
        if other or refs.keys() != self.functions.keys():
            yield from self.at(other)

    def remembered(self) -> Iterator[Body]:
        """Look at what nvmelm itself wrote down since: marks that were given, taken back or expired, and sessions."""
        changed = {address for address in self.functions if self._stamp_changed(address, self._mark_files(address))}
        now = datetime.now(UTC)
        changed |= {address for address, known in self.functions.items() if _expires(known.picture, now)}
        if changed:
            yield from self.at(changed)
        if self._stamp_changed("", self._session_files()):
            yield from self.sessions()

    def sessions(self, *, unfinished: bool = False) -> Iterator[Body]:
        """Say each state that a session went through since the last look.

        Args:
            unfinished: say the sessions that are not over as they are, whether they changed or not.
        """
        self._stamp_changed("", self._session_files())
        try:
            with Sessions(self._host) as database:
                records = database.seen()
        except NvmelmError as error:
            del self._stamps[""]  # look again
            yield from self._failed(_SESSIONS, error)
            return
        yield from self._works(_SESSIONS)
        first, self._begun = not self._begun, True
        for record in records:
            key = (record.id, record.side.value)
            known = self.records.get(key)
            self.records[key] = record
            said = len(known.history) if known is not None else (len(record.history) if first else 0)
            if unfinished and not record.over and said == len(record.history):
                said -= 1
                yield _session(record, said, begin=True)
                continue
            yield from (_session(record, at) for at in range(said, len(record.history)))

    def _refs(self) -> Generator[Body, None, dict[str, PrimaryRef] | None]:
        """Return the host's controlling functions by address, or None when that cannot be asked."""
        try:
            found = {str(ref.address): ref for ref in primaries(self._host)}
        except NvmelmError as error:
            yield from self._failed(_LIST, error)
            return None
        yield from self._works(_LIST)
        return found

    def _function(self, ref: PrimaryRef, *, manifests: bool) -> Iterator[Body]:
        address = str(ref.address)
        before = self.functions.get(address)
        self._stamp_changed(address, self._mark_files(address))  # before the look: what comes later is seen by the next
        try:
            after = self._read(ref, None if manifests else before)
        except NvmelmError as error:
            yield from self._failed(address, error)
            return
        yield from self._works(address)
        self.functions[address] = after
        yield from [after.there()] if before is None else differences(before, after)

    def _read(self, ref: PrimaryRef, before: Known | None) -> Known:
        """Look at one function; the manifests of controlled functions that look as before are taken from there."""
        with opened(self._host, ref) as queue:
            picture = Session(self._host, ref, queue).picture(users=before is None)
            picture = _with_known_users(picture, self.functions.get(str(ref.address)))
            ready = [one for one in picture.secondaries if one.present and one.online]
            kept = _kept(before, picture, ready) if before is not None else {}
            fresh = of_functions(self._host, queue, picture, [one for one in ready if one.cntlid not in kept])
        return Known(ref, picture, kept | {cntlid: manifest.digest for cntlid, manifest in fresh.items()})

    def _list_changed(self, address: str, ref: PrimaryRef) -> bool:
        known = self.functions.get(address)
        if known is None or not known.picture.primary.virtualization_management:
            return known is None
        try:
            with opened(self._host, ref) as queue:
                entries = listing.all_secondaries(queue)
        except NvmelmError:
            return True  # the whole look says what is wrong
        now = [(one.scid, one.vfn, one.nvq, one.nvi, one.scs & 1) for one in entries]
        rows = known.picture.secondaries
        return now != [(one.cntlid, one.vf_number, one.vq, one.vi, int(one.online)) for one in rows]

    def _failed(self, what: str, error: NvmelmError) -> Iterator[Body]:
        """Say a failure, but not the same one again and again."""
        if self.troubles.get(what) != error.message:
            self.troubles[what] = error.message
            yield trouble(_address(what), error)

    def _works(self, what: str) -> Iterator[Body]:
        if self.troubles.pop(what, None) is not None:
            yield Trouble(primary=_address(what), over=True)

    def _mark_files(self, address: str) -> list[str]:
        return [str(self._host.state_dir / "marks" / address)]  # a mark is renamed into its directory

    def _session_files(self) -> list[str]:
        path = str(sessions_path(self._host))
        return [path, f"{path}-wal"]

    def _stamp_changed(self, what: str, paths: list[str]) -> bool:
        """Return whether files are others than when this was asked last."""
        now = tuple(map(_stamp, paths))
        before, self._stamps[what] = self._stamps.get(what), now
        return before != now


def trouble(primary: str | None, error: NvmelmError) -> Trouble:
    """Return what failed, of a function or of the host."""
    return Trouble(
        primary=primary, over=False, message=error.message, cause=error.cause, fix=error.fix, reason=error.reason
    )


def _address(what: str) -> str | None:
    return None if what in (_LIST, _SESSIONS) else what


def _with_known_users(picture: Picture, before: Known | None) -> Picture:
    """Return a picture that was read without users with those that are known."""
    if before is None:
        return picture
    users = {one.incarnation: one.used_by for one in before.picture.secondaries if one.used_by}
    rows = [replace(one, used_by=users.get(one.incarnation, ())) for one in picture.secondaries]
    return replace(picture, secondaries=tuple(rows))


def _kept(before: Known, picture: Picture, ready: Collection[Secondary]) -> dict[int, str]:
    """Return the manifests that rest on nothing that has changed."""
    if before.picture.primary != picture.primary:
        return {}
    same = {one.cntlid: one for one in before.picture.secondaries}
    return {
        one.cntlid: before.manifests[one.cntlid]
        for one in ready
        if one.cntlid in before.manifests and same[one.cntlid] == one
    }


def _expires(picture: Picture, now: datetime) -> bool:
    """Return whether a mark that held at the last look has expired since."""
    marks = [one.mark for one in picture.secondaries if one.mark and one.mark.holds and one.mark.expires_at]
    return any(datetime.fromisoformat(mark.expires_at) <= now for mark in marks if mark.expires_at)


def _stamp(path: str) -> tuple[int, int, int]:
    try:
        about = os.stat(path)  # noqa: PTH116 - asked every second
    except OSError:
        return (0, 0, 0)
    return (about.st_ino, about.st_mtime_ns, about.st_size)


def _session(record: Record, at: int, *, begin: bool = False) -> SessionPart:
    state, since = record.history[at]
    last = at == len(record.history) - 1
    return SessionPart(
        id=record.id,
        side=record.side.value,
        before=None if begin or at == 0 else record.history[at - 1][0],
        state=state,
        since=since,
        over=record.over and last,
        peer=record.peer,
        primary=record.primary,
        cntlids=tuple(one.cntlid for one in record.controllers),
    )
