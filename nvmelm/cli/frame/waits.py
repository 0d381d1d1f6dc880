"""What is said of a wait that lasts, for programs: one line of JSON on stderr, while the answer is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from nvmelm.documents import Report, about


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Report):
    """A verb waits, and has for some seconds; one line of a stream on stderr."""

    schema_name: ClassVar[str] = "nvmelm.waiting"

    command: str = field(metadata=about("the verb, such as: sriov enable"))
    waits_for: str
    most_seconds: float = field(metadata=about("how long it waits in all, at most"))
