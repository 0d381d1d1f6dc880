"""Share flexible VQ and VI resources out among controlled functions, and say what would fit when a wish does not.

By the specification a secondary controller needs 2 VQ (the admin queue pair and one I/O queue pair) and 1 VI (vector
0) before it can go online, of each type the primary reports as supported. That is what an even share gives at least.
There are devices that go online with less, and devices that refuse to assign one of the types, so a number that is
asked for is tried, and 0 leaves its type as it is: the device decides when the controller goes online.

Free are: flexible total, less what secondaries and the primary have, and what a function has already counts for itself
again.

Source: NVM Express Base Specification 2.1, Virtualization Enhancements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nvmelm.errors import NotReadyError, NotSupportedError, UsageError
from nvmelm.inventory.picture import Picture, Resources, Secondary
from nvmelm.prepare import sanity

_MINIMUM = {"vq": 2, "vi": 1}


def share(
    picture: Picture, chosen: Sequence[Secondary], vq: int | None, vi: int | None
) -> tuple[int | None, int | None]:
    """Return the VQ and VI count for each of the chosen functions: the wish, or an even share of what is free.

    Args:
        vq, vi: the wish; 0 leaves the type as it is, which is a count of None.

    Raises:
        UsageError: a wish does not fit; the fix names one that does.
        NotSupportedError: not even the least each function needs is there.
        MalformedError: the device's counts contradict each other.
    """
    counts = [
        None if wish == 0 and _given_out(picture, kind) else _share_one(picture, chosen, kind, wish)
        for kind, wish in (("vq", vq), ("vi", vi))
    ]
    return counts[0], counts[1]


def check_share(picture: Picture, chosen: Sequence[Secondary], vq: int | None, vi: int | None) -> None:
    """Refuse counts that do not fit; None is not checked."""
    for kind, count in (("vq", vq), ("vi", vi)):
        if count is not None:
            _share_one(picture, chosen, kind, count)


def missing_types(picture: Picture, secondary: Secondary) -> tuple[str, ...]:
    """Return the types, ``vq`` and ``vi``, of which a function has none though its primary gives them out."""
    return tuple(kind for kind in _MINIMUM if _lacks(picture, secondary, kind))


def too_few(picture: Picture, secondary: Secondary) -> NotReadyError:
    """Return the error of a function that has no resources of some type to go online with.

    Raises:
        NotSupportedError: that many are not free.
    """
    missing = {kind: _MINIMUM[kind] for kind in missing_types(picture, secondary)}
    for kind in missing:
        _share_one(picture, [secondary], kind, None)
    has = " and ".join(f"{getattr(secondary, kind)} {kind.upper()}" for kind in missing)
    needs = " and ".join(f"{least} {kind.upper()}" for kind, least in missing.items())
    options = " ".join(f"--{kind} {least}" for kind, least in missing.items())
    return NotReadyError(
        f"controller {secondary.cntlid:#06x} has too few resources to go online",
        cause=f"it has {has} resources, and needs {needs}",
        fix=f"nvmelm secondary assign {picture.primary.node} {secondary.cntlid:#06x} {options}",
        reason="no-resources",
    )


def _lacks(picture: Picture, secondary: Secondary, kind: str) -> bool:
    """Return whether a function has no resources of a type its primary gives out."""
    return _given_out(picture, kind) and int(getattr(secondary, kind)) == 0


def _given_out(picture: Picture, kind: str) -> bool:
    resources: Resources | None = getattr(picture.primary, kind)
    return resources is not None and resources.supported


def _share_one(picture: Picture, chosen: Sequence[Secondary], kind: str, wish: int | None) -> int:
    resources: Resources | None = getattr(picture.primary, kind)
    if resources is None or not resources.supported:
        if wish:
            message = f"{picture.primary.address} has no flexible {kind.upper()} resources"
            raise NotSupportedError(message, cause="its capabilities (CRT) say so", fix=f"leave --{kind} out")
        return 0
    sanity.require_counts(picture, kind)
    available = resources.free + sum(int(getattr(secondary, kind)) for secondary in chosen)
    pool = _Pool(picture, kind, resources.secondary_maximum, available, len(chosen))
    fair = _rounded(min(available // max(1, len(chosen)), pool.most), resources.granularity, pool.least)
    if wish is None:
        if fair < pool.least:
            raise pool.too_few()
        return fair
    if not 1 <= wish <= pool.most or wish * len(chosen) > available:
        raise pool.no_fit(wish, fair)
    return wish


@dataclass(frozen=True, slots=True)
class _Pool:
    """Resources of one type that some functions are to share.

    Attributes:
        most: what one of them may have (VQFRSM, VIFRSM).
        available: what all of them can have together.
    """

    picture: Picture
    kind: str
    most: int
    available: int
    functions: int

    @property
    def least(self) -> int:
        """Return what the specification has each need."""
        return _MINIMUM[self.kind]

    @property
    def maximum(self) -> str:
        """Return the limit of one secondary, by its name in the capabilities."""
        return f"a secondary may have {self.most} {self.name} resources at most ({self.name}FRSM)"

    @property
    def name(self) -> str:
        return self.kind.upper()

    def too_few(self) -> NotSupportedError:
        """Return the error of a share that is less than the specification asks for, with the limit that decides."""
        needs = f"each function needs {self.least} to go online"
        if self.most < self.least:
            cause = f"{self.maximum}, and by the specification {needs}"
            fix = f"--{self.kind} {self.most} is tried all the same, and the device decides"
        else:
            cause = f"{self.available} {self.name} resources are free, and {needs}"
            fix = f"free resources of others: nvmelm secondary offline {self.picture.primary.node} CNTLID"
            if self.available >= self.least:
                fix = f"prepare {self.available // self.least} VFs at most, or {fix}"
        message = f"{_functions(self.functions)} cannot be given {self.name} resources"
        return NotSupportedError(message, cause=cause, fix=fix, reason="no-resources")

    def no_fit(self, wish: int, fair: int) -> UsageError:
        """Return the error of a wish that cannot be, with the limit that decides and what would fit."""
        free = f"{self.available} are free for {_functions(self.functions)}"
        cause = f"each needs {self.least} and may have {self.most}; {free}"
        if wish > self.most:
            cause = f"{cause}: {self.maximum}"
        fix = f"--{self.kind} {fair} fits" if fair else f"leave --{self.kind} out"
        if 1 <= wish <= self.most and wish <= self.available:
            fix += f", or --{self.kind} {wish} for {self.available // wish} VFs"
        message = f"{wish} {self.name} resources for {_functions(self.functions)} do not fit"
        return UsageError(message, cause=cause, fix=fix)


def _rounded(count: int, granularity: int, least: int) -> int:
    """Round down to the preferred granularity, as long as that leaves the least a function needs."""
    rounded = count - count % granularity
    return rounded if rounded >= least else count


def _functions(count: int) -> str:
    return "1 function" if count == 1 else f"{count} functions"
