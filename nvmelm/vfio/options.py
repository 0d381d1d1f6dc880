"""What an operator decides of functions that move with their VMs."""

from __future__ import annotations

from dataclasses import dataclass

from nvmelm.compat.manifest import Manifest
from nvmelm.compat.policy import Policy
from nvmelm.compat.verdict import judge
from nvmelm.errors import IncompatibleError


@dataclass(frozen=True, slots=True)
class Options:
    """The choices.

    Attributes:
        all_dirty: a controller that does not track memory reports every page as written. Without it VMMs with
            ``enable-migration=auto`` do not migrate such a function at all.
        arrive_disabled: a controller whose admin queue's position cannot be worked out leaves all the same, and arrives
            disabled: its guest's driver sees it fail and resets it.
        policy: the site's rules of compatibility.
    """

    all_dirty: bool = True
    arrive_disabled: bool = False
    policy: Policy | None = None

    def judge(self, source: Manifest, destination: Manifest, name: str) -> None:
        """Refuse a source that does not fit this destination.

        Raises:
            IncompatibleError: with every reason that blocks.
        """
        blocking = judge(source, destination, self.policy).blocking()
        if blocking:
            raise IncompatibleError(
                f"a state does not fit {name}",
                cause="; ".join(reason.message for reason in blocking[:8]),
                fix=blocking[0].fix,
                reason=blocking[0].code,
            )
