"""The sessions that `make fixtures` records in the lab and that the replay tests run again, verb by verb.

They follow one another on one machine: what one leaves, the next one finds. PF stands for the address of the source.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Session:
    """One verb: the recording's name, the words after ``nvmelm``, and the exit code it ends with."""

    name: str
    words: tuple[str, ...]
    code: int = 0


_PREPARE = ("source", "prepare", "PF", "--vfs", "2", "--vq", "2", "--vi", "1", "--unmarked")

SESSIONS = (
    Session("host-check", ("host", "check", "PF"), 3),
    Session("list", ("list",)),
    Session("show-without-vfs", ("show", "PF")),
    Session("too-many-vfs", ("sriov", "enable", "PF", "--vfs", "99"), 2),
    Session("prepare-without-live-migration", ("source", "prepare", "PF", "--vfs", "2"), 3),
    Session("prepare", _PREPARE),
    Session("prepare-again", _PREPARE),
    Session("show-prepared", ("show", "PF")),
    Session("save-refused", ("state", "save", "PF", "1", "never"), 3),
    Session("release", ("release", "PF", "--yes")),
    Session("release-again", ("release", "PF", "--yes")),
)
