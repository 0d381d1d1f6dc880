"""What libvirt's hook does: bind the VFs a domain names before it starts, and give them back afterwards.

Only what the hook bound itself is given back: a VF that was found bound, by ``source prepare`` or ``apply`` say,
is somebody's wish and stays. So each VF that is bound here is written down first, with the domain it is for::

    libvirt/0000:01:00.1.json      {"domain": "vm1", "boot": "…", "incarnation": 4711, "bound": true}

The boot and the VF's inode in sysfs tell the VF from another one that has its address later. ``bound`` is false until
it was bound: a VF that is found bound then was bound by somebody else, and stays.

Libvirt waits for the hook and must not be asked anything meanwhile; all that is needed stands in the domain's XML.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nvmelm.disk import store
from nvmelm.errors import BusyError, NvmelmError
from nvmelm.host import Host
from nvmelm.inventory.find import PrimaryRef, find_function
from nvmelm.inventory.opened import open_primary
from nvmelm.inventory.pci import VFIO_DRIVER, Bdf
from nvmelm.inventory.picture import ChangeReport
from nvmelm.inventory.read import resolve
from nvmelm.prepare import binding, guards
from nvmelm.prepare.apply import Confirm
from nvmelm.vm.handover import require_ready, require_unused
from nvmelm.vm.libvirt.domain_xml import DomainWanted, DomainXml


class Served(NamedTuple):
    """What was done for a domain, or would be.

    Attributes:
        vfs: addresses of the VFs that were bound, or given back; others were as they should be.
        operations: of a dry run, the exact writes in order.
    """

    vfs: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()

    @classmethod
    def of(cls, done: Sequence[tuple[Bdf, ChangeReport]]) -> Served:
        """Put together what was done for each VF."""
        actions = (action for _, report in done for action in report.actions)
        operations = tuple(operation for action in actions for operation in action.operations)
        return cls(tuple(str(address) for address, _ in done), operations)


def prepare(host: Host, domain: str, xml: DomainXml, *, confirm: Confirm, dry_run: bool = False) -> Served:
    """Bind the VFs a domain's metadata names, and check that it can have them; return those that were bound.

    Raises:
        BusyError: libvirt would bind one itself, somebody has it, the kernel's NVMe driver uses it, or a session that
            is not over holds it.
        NotReadyError: one is not enabled, offline, or bears no mark.
        NotSupportedError: one is in no IOMMU group, or another driver migrates it.
    """
    for entry in xml.wanted:
        function = xml.function(entry.address)
        if function is not None and (function.managed or function.kind != "hostdev"):
            raise BusyError(
                f"libvirt would bind {entry.address} itself",
                cause=f"the domain has it as <{function.kind}>" + (" with managed='yes'" if function.managed else ""),
                fix=f"virsh edit {domain}: make it a <hostdev managed='no'>",
                reason="libvirt-managed",
            )
    bound: list[tuple[Bdf, ChangeReport]] = []
    for ref, wanted in _by_primary(host, xml.wanted):
        bound += _prepared(host, ref, domain, wanted, confirm=confirm, dry_run=dry_run)
    return Served.of(bound)


def release(host: Host, domain: str, xml: DomainXml, *, confirm: Confirm, dry_run: bool = False) -> Served:
    """Give the VFs back that were bound for a domain; return them. All are tried before an error is raised.

    Raises:
        BusyError: one is still in use.
        NvmelmError: whatever unbinding a VF meets.
    """
    unbound: list[tuple[Bdf, ChangeReport]] = []
    met: NvmelmError | None = None
    for entry in xml.wanted:
        path = _path(host, entry.address)
        note = _note(path)
        if note.get("domain") != domain:
            continue
        try:
            if note.get("bound") and {**note, **_identity(host, entry.address)} == note:
                unbound.append((entry.address, _unbind(host, entry.address, confirm=confirm, dry_run=dry_run)))
        except NvmelmError as error:
            met = met or error
            continue
        if not dry_run:
            store.remove(path)
    if met is not None:
        raise met
    return Served.of(unbound)


def _by_primary(host: Host, wanted: Sequence[DomainWanted]) -> list[tuple[PrimaryRef, list[DomainWanted]]]:
    groups: dict[PrimaryRef, list[DomainWanted]] = {}
    for entry in wanted:
        ref, _ = find_function(host, str(entry.address))
        groups.setdefault(ref, []).append(entry)
    return list(groups.items())


def _prepared(
    host: Host, ref: PrimaryRef, domain: str, wanted: Sequence[DomainWanted], *, confirm: Confirm, dry_run: bool
) -> list[tuple[Bdf, ChangeReport]]:
    """Bind the VFs of one controlling function that are not bound."""
    bound = []
    with open_primary(host, ref, change=not dry_run) as pf:
        picture = pf.picture()
        for entry in wanted:
            secondary = resolve(picture, entry.address)
            guards.require_decided(host, picture, [secondary.cntlid])  # the domain would open the VF, which resets it
            require_unused(secondary)
            path = _path(host, entry.address)
            if secondary.driver == VFIO_DRIVER:
                if not dry_run and _note(path).get("bound") is False:
                    store.remove(path)
                continue
            note = {"domain": domain, **_identity(host, entry.address)}
            if not dry_run:
                store.write(path, json.dumps(note | {"bound": False}) + "\n")
            report = binding.bind(pf, [entry.address], unmarked=entry.unmarked, confirm=confirm, dry_run=dry_run)
            if not dry_run:
                store.write(path, json.dumps(note | {"bound": True}) + "\n")
            bound.append((entry.address, report))
        if dry_run:
            return bound
        picture = pf.picture(users=False)
        for entry in wanted:
            secondary = resolve(picture, entry.address)
            require_ready(host, picture, secondary, unmarked=entry.unmarked)
    return bound


def _identity(host: Host, address: Bdf) -> dict[str, object]:
    """Return what tells a VF from a later one with its address; a VF that is not there has no inode."""
    inode = host.sysfs.inode(address.path) if host.sysfs.exists(address.path) else None
    return {"boot": host.facts().boot_id, "incarnation": inode}


def _unbind(host: Host, address: Bdf, *, confirm: Confirm, dry_run: bool) -> ChangeReport:
    ref, which = find_function(host, str(address))
    with open_primary(host, ref, change=not dry_run) as pf:
        return binding.unbind(pf, [which], confirm=confirm, dry_run=dry_run)


def _path(host: Host, address: Bdf) -> Path:
    return host.state_dir / "libvirt" / f"{address}.json"


def _note(path: Path) -> dict[str, object]:
    """Return what was written down for a VF; nothing when it was torn by a crash: then it was not bound either."""
    try:
        known = json.loads(store.read(path) or "{}")
    except (ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
