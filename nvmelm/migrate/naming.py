"""What a source calls the destination's functions: a PF by any of its names, or one VF by its address."""

from __future__ import annotations

from nvmelm.errors import UsageError
from nvmelm.host import Host
from nvmelm.inventory.opened import OpenPrimary
from nvmelm.inventory.pci import Bdf, physical_function
from nvmelm.inventory.read import resolve
from nvmelm.migrate.link import messages


def primary_of(host: Host, named: str) -> str:
    """Return the name of the controlling function; the source may know a controlled one by its VF's address only."""
    parent = physical_function(host.sysfs, Bdf.parse(named)) if Bdf.looks_like(named) else None
    return str(parent) if parent is not None else named


def by_cntlid(pf: OpenPrimary, opening: messages.Open) -> messages.Open:
    """Return what is asked for with the controller's id where its VF's address was named.

    Raises:
        UsageError: one function was named, for several.
    """
    if primary_of(pf.host, opening.pf) == opening.pf:
        return opening
    if len(opening.pairs) != 1:
        raise UsageError(
            f"{len(opening.pairs)} controllers cannot move to one",
            cause=f"{opening.pf} is one VF",
            fix="name its PF, which takes the first that are resumable, or as many CNTLIDs: ssh://HOST/PF/CNTLID,...",
            reason="arguments",
        )
    cntlid = resolve(pf.picture(users=False), Bdf.parse(opening.pf)).cntlid
    pairs = [messages.Pair(source=opening.pairs[0].source, destination=cntlid)]
    return opening.model_copy(update={"pf": pf.address, "pairs": pairs})
