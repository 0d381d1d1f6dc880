"""What a guest has seen of its function."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class GuestFindings:
    """What a guest has seen.

    Attributes:
        submitted, completed: commands.
        verified: reads whose data was the newest written.
        outstanding: commands whose completion has not been seen yet.
        lost: commands whose completion never came; known after :meth:`Guest.finish`.
        doubled: completions of commands that were complete already, or never sent.
        misdirected: completions that came through the wrong queue.
        errors: what went wrong otherwise: error statuses, wrong data, a controller that failed.
    """

    submitted: int = 0
    completed: int = 0
    verified: int = 0
    outstanding: int = 0
    lost: int = 0
    doubled: int = 0
    misdirected: int = 0
    errors: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Return whether nothing was lost, doubled, misdirected or wrong."""
        return not (self.lost or self.doubled or self.misdirected or self.errors)
