"""What the source and the destination agree upon before anything is touched: who goes where, and that it fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nvmelm.compat.manifest import Manifest
from nvmelm.compat.verdict import Verdict
from nvmelm.errors import BusyError, IncompatibleError, MalformedError
from nvmelm.inventory.picture import Picture, Secondary
from nvmelm.migrate.callouts.points import Point
from nvmelm.migrate.end import End
from nvmelm.migrate.gate import manifest_of, require_compatible
from nvmelm.migrate.link import messages
from nvmelm.migrate.link.messages import expect, greet, send
from nvmelm.migrate.request import MigrationRequest


@dataclass(frozen=True, slots=True)
class Agreement:
    """What was agreed upon.

    Attributes:
        opened: the destination's answer: its targets.
        verdicts: one for each pair; all are compatible.
        digest: of a state, as both hosts can make it.
    """

    opened: messages.Opened
    verdicts: tuple[Verdict, ...]
    digest: str

    @property
    def targets(self) -> list[int]:
        """Return the controllers at the destination, in the order of the pairs."""
        return [pair.destination or 0 for pair in self.opened.pairs]

    @property
    def destination_digests(self) -> list[str]:
        """Return the digests of the destination's manifests."""
        return [verdict.destination_digest for verdict in self.verdicts]

    def require_unchanged(self, end: End, picture: Picture, chosen: Sequence[Secondary]) -> None:
        """Compare the source once more with what was judged.

        Raises:
            IncompatibleError: it is something else by now.
        """
        for secondary, verdict in zip(chosen, self.verdicts, strict=True):
            digest = manifest_of(end.pf, picture, secondary).digest
            if digest != verdict.source_digest:
                cause = f"{secondary.cntlid:#06x} was {verdict.source_digest}, and is {digest} now"
                raise IncompatibleError("the source changed after it was judged", cause=cause, fix="migrate again")

    def require_guests_moved(self, end: End, request: MigrationRequest, chosen: Sequence[Secondary]) -> None:
        """Refuse to take a controller away from under whoever holds it, unless somebody moves the guest along.

        The device cannot tell whether a guest runs. Its queues would go on at the destination with addresses of memory
        that is here, so this takes callouts on both sides that move it, or the operator's word that it is meant.

        Raises:
            BusyError: who holds it is named.
        """
        holders = [f"{secondary.cntlid:#06x}: {user}" for secondary in chosen for user in secondary.used_by]
        lacking = [] if end.points.runs_at(Point.BEFORE_SUSPEND) else ["none at before-suspend here, to stop it"]
        if not self.opened.continues:
            lacking.append(f"none at before-resume on {end.link.peer}, to have it go on")
        if not holders or not lacking or request.guest_loses_controller:
            return
        raise BusyError(
            f"the guest would lose its controller: {'; '.join(holders)}",
            cause=f"nothing moves the guest along with it; of the callouts there is {' and '.join(lacking)}",
            fix="callouts that do (docs/callouts.md); or --guest-loses-controller, when just that is meant",
            reason="guest-loses-controller",
        )

    def described(self, end: End, chosen: Sequence[Secondary]) -> list[Mapping[str, Any]]:
        """Return the controllers as callouts are told of them."""
        return [
            described(end, secondary, peer_cntlid=pair.destination)
            for secondary, pair in zip(chosen, self.opened.pairs, strict=True)
        ]


def described(end: End, secondary: Secondary, *, peer_cntlid: int | None) -> Mapping[str, Any]:
    """Return a controller of this host as a callout is told of it."""
    return {
        "primary": end.pf.address,
        "cntlid": secondary.cntlid,
        "address": secondary.address,
        "vfio_node": secondary.vfio_node,
        "peer_cntlid": peer_cntlid,
    }


def agree(
    end: End, request: MigrationRequest, session: str, picture: Picture, chosen: Sequence[Secondary]
) -> Agreement:
    """Ask the destination for targets, and judge each pair.

    Raises:
        IncompatibleError: they do not fit, with every reason.
        RemoteError: the destination cannot take them.
        MalformedError: it answers something else than was asked.
    """
    digest = greet(end.link, end.name)
    pairs = [messages.Pair(source=source, destination=destination) for source, destination in request.pairs]
    send(end.link, messages.Open(session=session, pf=request.pf, pairs=pairs, peer=request.reached_at))
    opened = expect(end.link, messages.Opened)
    _check_answer(opened, request, end.link.peer)
    verdicts = []
    for secondary, theirs in zip(chosen, [Manifest.parse(text) for text in opened.manifests], strict=True):
        ours = manifest_of(end.pf, picture, secondary)
        _check_agreed(request.agreed, ours, theirs)
        verdicts.append(require_compatible(ours, theirs, request.policy, f"{secondary.cntlid:#06x}"))
    return Agreement(opened, tuple(verdicts), digest)


def _check_answer(opened: messages.Opened, request: MigrationRequest, peer: str) -> None:
    """Do not believe an answer to something else than what was asked."""
    asked = list(request.pairs)
    fits = len(opened.pairs) == len(asked) == len(opened.manifests) == len(opened.addresses) == len(opened.held)
    for pair, (source, wanted) in zip(opened.pairs, asked, strict=False):
        fits = fits and pair.source == source and pair.destination is not None and wanted in (None, pair.destination)
    if not fits or len({pair.destination for pair in opened.pairs}) != len(asked):
        raise MalformedError(f"{peer} offers other controllers than were asked for", reason="protocol")


def _check_agreed(agreed: tuple[str, str] | None, ours: Manifest, theirs: Manifest) -> None:
    """Refuse what a verdict given before did not speak of."""
    if agreed is None or agreed == (ours.digest, theirs.digest):
        return
    changed = "the source" if agreed[0] != ours.digest else "the destination"
    raise IncompatibleError(
        f"{changed} is not what the verdict was given for",
        cause=f"the verdict speaks of {agreed[0]} and {agreed[1]}; now they are {ours.digest} and {theirs.digest}",
        fix="nvmelm compat check again",
        reason="verdict-outdated",
    )
