"""Look at a host: its controlling functions, and the marks on what is below them.

Nothing of a Secondary Controller List or of a mark has an event of the kernel's, so these are looked at; most looks are
glances that find everything as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from nvmelm.commands import listing
from nvmelm.compat.describe import of_functions
from nvmelm.errors import NvmelmError
from nvmelm.host import Host
from nvmelm.inventory.find import PrimaryRef, opened, primaries
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.picture import Picture, Secondary
from nvmelm.inventory.read import with_users
from nvmelm.inventory.vm_moves import joined
from nvmelm.watch.differences import KnownPrimary, differences
from nvmelm.watch.lines import Body
from nvmelm.watch.stamps import Stamps
from nvmelm.watch.troubles import Troubles
from nvmelm.watch.vms import VmLooks

#: Looks that can fail: the host's list of functions, a function itself, who has what is below it.
_LIST, _FUNCTION, _USERS, _VMS = "list", "function", "users", "vms"


class Looks:
    """What is known of a host, and what each further look finds different.

    Attributes:
        functions: by PCI address.
        vms: what moves with its VM.
        troubles: what cannot be looked at at present.
        at_work_on: the address of the function that is looked at now, if one is.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._stamps = Stamps()
        self.functions: dict[str, KnownPrimary] = {}
        self.vms = VmLooks(host)
        self.troubles = Troubles()
        self.at_work_on: str | None = None

    def whole(self, *, again: bool = False) -> Iterator[Body]:
        """Look at everything.

        Args:
            again: also say everything as it is, for a reader who may have lost something.
        """
        before = set(self.functions)
        yield from self.at(None, manifests=True)
        yield from self.with_vms()
        if again:
            yield from (self.functions[address].present() for address in sorted(before & set(self.functions)))

    def at(self, addresses: Collection[str] | None, *, manifests: bool = False) -> Iterator[Body]:
        """Look at some functions, and at those that came or went; all of them when that is None.

        Args:
            manifests: read every manifest again, also of controlled functions that look as they did.
        """
        refs = yield from self._refs()
        if refs is None:
            return
        for gone in sorted(set(self.functions) - refs.keys()):
            yield from self.functions.pop(gone).gone()
        for address, ref in sorted(refs.items()):
            known = self.functions.get(address)
            if known is None or known.ref != ref or addresses is None or address in addresses:
                yield from self._function(ref, manifests=manifests)

    def users(self) -> Iterator[Body]:
        """Look who has the controlled functions in use; nothing tells of that, and asking costs the most."""
        for address, known in sorted(self.functions.items()):
            rows = [replace(secondary, used_by=()) for secondary in known.picture.secondaries]
            try:
                rows = with_users(self._host, rows)
            except NvmelmError as error:
                yield from self.troubles.failed(_USERS, error, address)
                continue
            yield from self.troubles.works(_USERS, address)
            picture = replace(known.picture, secondaries=tuple(rows))
            self.functions[address] = replace(known, picture=picture)
            yield from differences(known, self.functions[address])

    def states(self) -> Iterator[Body]:
        """Look which controlled functions are suspended; nothing tells of that, and it costs one command each."""
        for address, known in sorted(self.functions.items()):
            self.at_work_on = address
            try:
                with opened(self._host, known.ref) as queue:
                    picture = OpenPrimary(self._host, known.ref, queue).with_states(known.picture)
            except NvmelmError:
                continue  # the next glance says what is wrong
            finally:
                self.at_work_on = None
            self.functions[address] = replace(known, picture=_with_known_states(picture, known))
            yield from differences(known, self.functions[address])

    def glance(self) -> Iterator[Body]:
        """Look at the functions whose Secondary Controller List is another than it was."""
        refs = yield from self._refs()
        if refs is None:
            return
        other = {address for address, ref in refs.items() if self._list_changed(address, ref)}
        other |= self.troubles.of(_FUNCTION) & refs.keys()
        if other or refs.keys() != self.functions.keys():
            yield from self.at(other)

    def remembered(self) -> Iterator[Body]:
        """Look at what nvmelm itself wrote down since: marks that were given, taken back or expired, moves with VMs."""
        changed = {address for address in self.functions if self._stamps.changed(address, self._mark_files(address))}
        now = datetime.now(UTC)
        changed |= {address for address, known in self.functions.items() if _expires(known.picture, now)}
        if changed:
            yield from self.at(changed)
        yield from self.with_vms()

    def with_vms(self) -> Iterator[Body]:
        """Look which functions move with a VM, and where they stand."""
        try:
            if not self.vms.changed():
                return
            pictures = {address: joined(self._host, known.picture) for address, known in self.functions.items()}
        except NvmelmError as error:
            yield from self.troubles.failed(_VMS, error)
            return
        yield from self.troubles.works(_VMS)
        for address, picture in sorted(pictures.items()):
            known = self.functions[address]
            self.functions[address] = replace(known, picture=picture)
            yield from differences(known, self.functions[address])

    def _refs(self) -> Generator[Body, None, dict[str, PrimaryRef] | None]:
        """Return the host's controlling functions by address, or None when that cannot be asked."""
        try:
            refs = {str(ref.address): ref for ref in primaries(self._host)}
        except NvmelmError as error:
            yield from self.troubles.failed(_LIST, error)
            return None
        yield from self.troubles.works(_LIST)
        yield from self.troubles.without(refs.keys())
        return refs

    def _function(self, ref: PrimaryRef, *, manifests: bool) -> Iterator[Body]:
        address = str(ref.address)
        before = self.functions.get(address)
        self._stamps.changed(address, self._mark_files(address))  # first: what comes later is seen by the next look
        self.at_work_on = address
        try:
            after = self._read(ref, None if manifests else before)
        except NvmelmError as error:
            yield from self.troubles.failed(_FUNCTION, error, address)
            return
        finally:
            self.at_work_on = None
        yield from self.troubles.works(_FUNCTION, address)
        self.functions[address] = after
        yield from [after.present()] if before is None else differences(before, after)

    def _read(self, ref: PrimaryRef, before: KnownPrimary | None) -> KnownPrimary:
        """Look at one function; the manifests of controlled functions that look as before are taken from there."""
        with opened(self._host, ref) as queue:
            picture = OpenPrimary(self._host, ref, queue).picture(users=before is None, states=True)
            picture = _with_known(picture, self.functions.get(str(ref.address)))
            ready = [secondary for secondary in picture.secondaries if secondary.present and secondary.online]
            kept = _kept(before, picture, ready) if before is not None else {}
            fresh = of_functions(
                self._host, queue, picture, [secondary for secondary in ready if secondary.cntlid not in kept]
            )
        return KnownPrimary(ref, picture, kept | {cntlid: manifest.digest for cntlid, manifest in fresh.items()})

    def _list_changed(self, address: str, ref: PrimaryRef) -> bool:
        known = self.functions.get(address)
        if known is None or not known.picture.primary.virtualization_management:
            return known is None
        self.at_work_on = address
        try:
            with opened(self._host, ref) as queue:
                entries = listing.all_secondaries(queue)
        except NvmelmError:
            return True  # the whole look says what is wrong
        finally:
            self.at_work_on = None
        now = [(entry.scid, entry.vfn, entry.nvq, entry.nvi, entry.scs & 1) for entry in entries]
        rows = known.picture.secondaries
        return now != [
            (secondary.cntlid, secondary.vf_number, secondary.vq, secondary.vi, int(secondary.online))
            for secondary in rows
        ]

    def _mark_files(self, address: str) -> list[str]:
        return [str(self._host.state_dir / "marks" / address)]  # a mark is renamed into its directory


def _with_known(picture: Picture, before: KnownPrimary | None) -> Picture:
    """Return a picture that was read without users with those that are known; the same of VMs and suspensions."""
    if before is None:
        return picture
    last = {secondary.incarnation: secondary for secondary in before.picture.secondaries if secondary.present}
    rows = [
        replace(secondary, used_by=known.used_by, with_vm=known.with_vm)
        if (known := last.get(secondary.incarnation)) is not None and secondary.present
        else secondary
        for secondary in picture.secondaries
    ]
    return _with_known_states(replace(picture, secondaries=tuple(rows)), before)


def _with_known_states(picture: Picture, before: KnownPrimary) -> Picture:
    """Return a picture whose controllers could not be asked, while a transfer has the lock, with what is known."""
    if picture.suspension_unknown is None:
        return picture
    last = {secondary.incarnation: secondary for secondary in before.picture.secondaries if secondary.online}
    rows = [
        replace(secondary, suspended=last[secondary.incarnation].suspended)
        if secondary.online and secondary.incarnation in last
        else secondary
        for secondary in picture.secondaries
    ]
    return replace(picture, secondaries=tuple(rows))


def _kept(before: KnownPrimary, picture: Picture, ready: Collection[Secondary]) -> dict[int, str]:
    """Return the manifests that rest on nothing that has changed."""
    if before.picture.primary != picture.primary:
        return {}
    same = {secondary.cntlid: secondary for secondary in before.picture.secondaries}
    return {
        secondary.cntlid: before.manifests[secondary.cntlid]
        for secondary in ready
        if secondary.cntlid in before.manifests and same[secondary.cntlid] == secondary
    }


def _expires(picture: Picture, now: datetime) -> bool:
    """Return whether a mark that held at the last look has expired since."""
    marks = [
        secondary.mark
        for secondary in picture.secondaries
        if secondary.mark and secondary.mark.holds and secondary.mark.expires_at
    ]
    return any(datetime.fromisoformat(mark.expires_at) <= now for mark in marks if mark.expires_at)
