"""What a caller wants of a migration, and what the migration took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nvmelm.compat.policy import Policy
from nvmelm.migrate.rounds.memory import MemoryRound
from nvmelm.migrate.rounds.user_data import Written


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationRequest:
    """What the caller wants of a migration.

    Attributes:
        to: where the destination is, as it is written down and printed.
        pf: the PF there, in any of its names.
        pairs: source and, where one was named, destination controllers.
        reached_at: where this host can be reached by ``recover`` there; may be empty.
        policy: the site's rules of compatibility.
        agreed: digests of a verdict that was given before: source, destination; None: none was.
        notify: announce the suspend to the device.
        guest_loses_controller: go on although somebody holds a controller here and nothing moves its guest along.
        max_downtime_s: refuse when the dry transfer says that it would take longer; None: no such limit.
    """

    to: str
    pf: str
    pairs: Sequence[tuple[int, int | None]]
    reached_at: str = ""
    policy: Policy | None = None
    agreed: tuple[str, str] | None = None
    notify: bool = True
    guest_loses_controller: bool = False
    max_downtime_s: float | None = None


@dataclass(slots=True)
class Measured:
    """What a migration took; times in seconds, ``None`` where it did not come to it.

    Attributes:
        downtime_s: from the suspend being sent to the answer to the resume, or to the resume of a roll-back.
        send_s: all states on their way; made up of get, transfer and set.
        rounds: of tracked memory.
        logged_rounds: of user data.
    """

    downtime_s: float | None = None
    drain_s: float = 0.0
    send_s: float = 0.0
    get_s: float = 0.0
    transfer_s: float = 0.0
    set_s: float = 0.0
    resume_s: float = 0.0
    rehearsal_s: float = 0.0
    state_bytes: int = 0
    commands: int = 0
    notes: list[str] = field(default_factory=list)
    rounds: list[MemoryRound] = field(default_factory=list)
    logged_rounds: list[Written] = field(default_factory=list)
