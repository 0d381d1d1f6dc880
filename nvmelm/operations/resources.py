"""Share flexible VQ and VI resources out among controlled functions, and say what would fit when a wish does not.

A secondary controller needs 2 VQ (the admin queue pair and one I/O queue pair) and 1 VI (vector 0) before it can go
online, of each type the primary reports as supported. Free are: flexible total, less what secondaries and the primary
have, and what a function has already counts for itself again.

Source: NVM Express Base Specification 2.1, Virtualization Enhancements.
"""

from __future__ import annotations

from collections.abc import Sequence

from nvmelm.errors import NotSupportedError, UsageError
from nvmelm.picture import Picture, Resources, Secondary

_MINIMUM = {"vq": 2, "vi": 1}


def share(picture: Picture, chosen: Sequence[Secondary], vq: int | None, vi: int | None) -> tuple[int, int]:
    """Return the VQ and VI count for each of the chosen functions: the wish, or an even share of what is free.

    Raises:
        UsageError: a wish does not fit; the fix names one that does.
        NotSupportedError: not even the least each function needs is there.
    """
    return _share_one(picture, chosen, "vq", vq), _share_one(picture, chosen, "vi", vi)


def check_share(picture: Picture, chosen: Sequence[Secondary], vq: int | None, vi: int | None) -> None:
    """Refuse counts that do not fit; None is not checked."""
    for kind, count in (("vq", vq), ("vi", vi)):
        if count is not None:
            _share_one(picture, chosen, kind, count)


def require_enough(picture: Picture, one: Secondary) -> None:
    """Refuse a controlled function that lacks the least resources it needs to go online.

    Raises:
        UsageError: it has fewer; the fix assigns what is missing.
        NotSupportedError: that many are not free.
    """
    missing = {kind: least for kind, least in _MINIMUM.items() if _lacks(picture, one, kind, least)}
    if not missing:
        return
    for kind in missing:
        _share_one(picture, [one], kind, None)
    has = " and ".join(f"{getattr(one, kind)} {kind.upper()}" for kind in missing)
    needs = " and ".join(f"{least} {kind.upper()}" for kind, least in missing.items())
    options = " ".join(f"--{kind} {least}" for kind, least in missing.items())
    raise UsageError(
        f"controller {one.cntlid:#06x} has too few resources to go online",
        cause=f"it has {has} resources, and needs {needs}",
        fix=f"nvmelm secondary assign {picture.primary.node} {one.cntlid:#06x} {options}",
        reason="no-resources",
    )


def _lacks(picture: Picture, one: Secondary, kind: str, least: int) -> bool:
    """Return whether a function has fewer resources than it needs, of a type its primary gives out at all."""
    resources: Resources | None = getattr(picture.primary, kind)
    return resources is not None and resources.supported and int(getattr(one, kind)) < least


def _share_one(picture: Picture, chosen: Sequence[Secondary], kind: str, wish: int | None) -> int:
    resources: Resources | None = getattr(picture.primary, kind)
    if resources is None or not resources.supported:
        if wish:
            message = f"{picture.primary.address} has no flexible {kind.upper()} resources"
            raise NotSupportedError(message, cause="its capabilities (CRT) say so", fix=f"leave --{kind} out")
        return 0
    least, most = _MINIMUM[kind], resources.secondary_maximum
    available = resources.free + sum(int(getattr(one, kind)) for one in chosen)
    fair = _rounded(min(available // max(1, len(chosen)), most), resources.granularity, least)
    if fair < least:
        cause = f"{available} {kind.upper()} resources are free, and each function needs {least} to go online"
        fix = f"free resources of others: nvmelm secondary offline {picture.primary.node} CNTLID"
        if available >= least:
            fix = f"prepare {available // least} VFs at most, or {fix}"
        message = f"{_functions(len(chosen))} cannot be given {kind.upper()} resources"
        raise NotSupportedError(message, cause=cause, fix=fix, reason="no-resources")
    if wish is None:
        return fair
    if wish < least or wish > most or wish * len(chosen) > available:
        cause = f"each needs {least} and may have {most}; {available} are free for {_functions(len(chosen))}"
        fix = f"--{kind} {fair} fits"
        if least <= wish <= most and wish <= available:
            fix += f", or --{kind} {wish} for {available // wish} VFs"
        raise UsageError(
            f"{wish} {kind.upper()} resources for {_functions(len(chosen))} do not fit", cause=cause, fix=fix
        )
    return wish


def _rounded(count: int, granularity: int, least: int) -> int:
    """Round down to the preferred granularity, as long as that leaves the least a function needs."""
    rounded = count - count % granularity
    return rounded if rounded >= least else count


def _functions(count: int) -> str:
    return "1 function" if count == 1 else f"{count} functions"
