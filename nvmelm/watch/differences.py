"""What is known of one controlling function, and what is different from what was known before.

The order of what a difference says: the function itself, then its controlled functions by id, of each its own facts,
its mark, its manifest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nvmelm.inventory.find import PrimaryRef
from nvmelm.inventory.picture import Mark, Picture, Secondary
from nvmelm.watch.lines import (
    Body,
    ControllerPart,
    ControllerState,
    ManifestPart,
    MarkPart,
    MarkState,
    PrimaryPart,
    Value,
)

_OF_A_PRIMARY = ("node", "serial", "model", "firmware", "live_migration", "vfs_total", "vfs_enabled")
_OF_A_RESOURCE = ("flexible_total", "assigned_to_secondaries", "allocated_to_primary")
_OF_A_CONTROLLER = (
    "vf_number",
    "address",
    "present",
    "incarnation",
    "state",
    "vq",
    "vi",
    "driver",
    "driver_override",
    "iommu_group",
    "vfio_node",
    "controller_node",
    "suspended",
    "with_vm",
)


@dataclass(frozen=True, slots=True)
class KnownPrimary:
    """A controlling function as it was at the last look.

    Attributes:
        manifests: digest by controller id, of the controlled functions that are enabled and online.
    """

    ref: PrimaryRef
    picture: Picture
    manifests: dict[int, str]

    @property
    def addresses(self) -> frozenset[str]:
        """Return the PCI addresses of the function and of all it can have."""
        below = (secondary.address for secondary in self.picture.secondaries)
        return frozenset({self.picture.primary.address, *filter(None, below)})

    def present(self) -> PrimaryPart:
        """Return all that is known."""
        rows = tuple(_state(secondary, self.manifests.get(secondary.cntlid)) for secondary in self.picture.secondaries)
        return self._part("there", controllers=rows)

    def gone(self) -> Iterator[Body]:
        """Say that the function is not there any more, and nothing below it."""
        for secondary in self.picture.secondaries:
            if secondary.cntlid in self.manifests:
                yield _manifest(self, secondary, self.manifests[secondary.cntlid], None)
        yield self._part("gone")

    def _part(self, what: Any, **more: Any) -> PrimaryPart:
        primary = self.picture.primary
        return PrimaryPart(what=what, address=primary.address, node=primary.node, serial=primary.serial, **more)


def differences(before: KnownPrimary, after: KnownPrimary) -> Iterator[Body]:
    """Say what is different."""
    was, now = _primary(before), _primary(after)
    if was != now:
        yield after._part("changed", **_pair(was, now))
    old = {secondary.cntlid: secondary for secondary in before.picture.secondaries}
    new = {secondary.cntlid: secondary for secondary in after.picture.secondaries}
    for cntlid in sorted(old.keys() | new.keys()):
        first, then = old.get(cntlid), new.get(cntlid)
        either = then or first
        if either is None:
            continue
        yield from _controller(after, first, then, either)
        yield from _mark(after, first.mark if first else None, then.mark if then else None, either)
        digests = before.manifests.get(cntlid), after.manifests.get(cntlid)
        if digests[0] != digests[1]:
            yield _manifest(after, either, *digests)


def _primary(known: KnownPrimary) -> dict[str, Value]:
    primary = known.picture.primary
    facts: dict[str, Value] = {name: getattr(primary, name) for name in _OF_A_PRIMARY}
    for kind in ("vq", "vi"):
        pool = getattr(primary, kind)
        facts |= {f"{kind}_{name}": getattr(pool, name) if pool else None for name in _OF_A_RESOURCE}
    formats = primary.state_formats
    facts["state_versions"] = list(formats.versions) if formats else None
    facts["vendor_formats"] = list(formats.vendor_uuids) if formats else None
    return facts


def _controller(
    after: KnownPrimary, first: Secondary | None, then: Secondary | None, secondary: Secondary
) -> Iterator[Body]:
    was, now = _facts(first), _facts(then)
    if was != now:
        address = after.picture.primary.address
        yield ControllerPart(primary=address, cntlid=secondary.cntlid, address=secondary.address, **_pair(was, now))


def _facts(secondary: Secondary | None) -> dict[str, Value]:
    if secondary is None:
        return {}
    return {name: getattr(secondary, name) for name in _OF_A_CONTROLLER} | {"used_by": list(secondary.used_by)}


def _pair(was: dict[str, Value], now: dict[str, Value]) -> dict[str, Any]:
    """Return what differs, as it was and as it is."""
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    return {
        "before": {name: was[name] for name in names if name in was},
        "after": {name: now[name] for name in names if name in now},
    }


def _mark(after: KnownPrimary, was: Mark | None, now: Mark | None, secondary: Secondary) -> Iterator[Body]:
    what = _what(was, now)
    mark = now or was
    if what and mark is not None:
        yield MarkPart(
            what=what,
            primary=after.picture.primary.address,
            cntlid=secondary.cntlid,
            address=secondary.address,
            role=mark.role.value,
            broken_by=mark.broken_by,
            given_by=mark.given_by,
            expires_at=mark.expires_at,
        )


def _what(was: Mark | None, now: Mark | None) -> Any:
    """Return what became of a mark, or None when nothing did."""
    if now is None:
        return "revoked" if was is not None else None
    if was is None or _given(was) != _given(now):
        return "given"
    if was.holds == now.holds:
        return None
    if now.holds:
        return "mended"
    expired = len(now.broken_by) == 1 and now.broken_by[0].startswith("it expired")
    return "expired" if expired else "broken"


def _given(mark: Mark) -> tuple[Any, ...]:
    return mark.role, mark.given_at, mark.given_by, mark.expires_at, mark.facts_digest


def _manifest(known: KnownPrimary, secondary: Secondary, old: str | None, new: str | None) -> ManifestPart:
    primary = known.picture.primary.address
    return ManifestPart(primary=primary, cntlid=secondary.cntlid, address=secondary.address, old=old, new=new)


def _state(secondary: Secondary, manifest: str | None) -> ControllerState:
    mark = secondary.mark
    return ControllerState(
        cntlid=secondary.cntlid,
        vf_number=secondary.vf_number,
        address=secondary.address,
        present=secondary.present,
        state=secondary.state,
        vq=secondary.vq,
        vi=secondary.vi,
        driver=secondary.driver,
        iommu_group=secondary.iommu_group,
        vfio_node=secondary.vfio_node,
        used_by=secondary.used_by,
        mark=MarkState(role=mark.role.value, holds=mark.holds, broken_by=mark.broken_by, expires_at=mark.expires_at)
        if mark
        else None,
        manifest=manifest,
        suspended=secondary.suspended,
        with_vm=secondary.with_vm,
    )
