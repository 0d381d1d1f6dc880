"""Where a guest's admin queue stands, worked out of its two rings alone, and how a fresh controller gets there.

No state of NVMe carries the admin queue. What the guest's driver believes has left its traces in the guest's memory::

    completion ring                                submission ring
    tag  1 1 1 1 0 0 0 0                           .... entries fetched so far ....|
                 ^ the tag flips: the next                                         ^ SQHD of the newest
                 completion comes here, with tag 1                                   completion

Completions are known modulo twice the ring's slots: the slot where the tag flips, and the tag in front of it. The
controller has fetched up to SQHD of the newest completion; since a suspend finishes whatever was fetched but requests
for asynchronous events, the difference between what was fetched and what was completed are these requests, and nothing
else. What lies behind SQHD was submitted after that completion or in an earlier pass; it is the guest's next doorbell
that has it fetched, so an event request there is not lost.

A controller that is enabled anew begins at slot 0 of both rings with tag 1. As many harmless commands as
:func:`commands_needed` says, and the outstanding event requests behind them, bring it to the same place.

All is pure: bytes and numbers in, numbers out.

Source: NVM Express Base Specification 2.1, "Common Completion Queue Entry Layout", Phase Tag and SQ Head Pointer;
"Migration Send command", Suspend; "Asynchronous Event Request command".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd
from typing import NamedTuple

from nvmelm.errors import NotSupportedError
from nvmelm.wire.opcodes import Opcode
from nvmelm.wire.queue_entry import CompletionQueueEntry, SubmissionQueueEntry

SQE_BYTES, CQE_BYTES = SubmissionQueueEntry.size, CompletionQueueEntry.size
#: AERL is 8 bits, 0's based: no controller keeps more requests for events.
MOST_EVENT_REQUESTS = 256
#: Rings whose sizes have no common factor need up to twice the product of the sizes; a second's worth is enough.
MOST_COMMANDS = 1 << 16
#: A substitute identifier. Linux takes every identifier of the admin queue whose low 12 bits are no tag of its 31
#: commands for an event (nvme_is_aen_req), so an event that comes under this one is handled all the same.
_SUBSTITUTE = 0x0FFF


@dataclass(frozen=True, slots=True)
class Shape:
    """The slots of the two rings, 2 to 4096 each."""

    sq_slots: int
    cq_slots: int

    @classmethod
    def of(cls, aqa: int) -> Shape:
        """Read an AQA register; its two sizes are 0's based."""
        return cls((aqa & 0xFFF) + 1, (aqa >> 16 & 0xFFF) + 1)

    @property
    def sq_bytes(self) -> int:
        """Return the length of the submission ring, bytes."""
        return self.sq_slots * SQE_BYTES

    @property
    def cq_bytes(self) -> int:
        """Return the length of the completion ring, bytes."""
        return self.cq_slots * CQE_BYTES


@dataclass(frozen=True, slots=True)
class Position:
    """Where an admin queue stands.

    Attributes:
        completions: posted so far, modulo twice the slots of the completion ring.
        sq_head: slot of the submission ring that is fetched next.
        event_requests: identifiers of the outstanding requests that the ring shows, by their slots before SQHD. That is
            oldest first, but for those in the slots right behind it, which count as the ones furthest before it: such
            an entry is of the pass before, or was fetched after the newest completion. A request has no completion that
            would tell, and entries of two passes look alike. Nothing depends on it: a controller may answer any of the
            outstanding requests with an event, and the driver knows each by its identifier.
        unidentified: outstanding requests whose entries were overwritten since.
    """

    completions: int
    sq_head: int
    event_requests: tuple[int, ...] = ()
    unidentified: int = 0

    @property
    def outstanding(self) -> int:
        """Return how many event requests are outstanding."""
        return len(self.event_requests) + self.unidentified

    def identifiers(self, taken: frozenset[int] = frozenset()) -> tuple[int, ...]:
        """Return an identifier for each outstanding request; a substitute where the ring does not show it.

        Args:
            taken: identifiers that stand in the rings, which a substitute must not be.
        """
        used = taken | set(self.event_requests)
        free = (cid for cid in range(_SUBSTITUTE, -1, -1) if cid not in used)
        return (*self.event_requests, *(next(free) for _ in range(self.unidentified)))

    def check(self, shape: Shape) -> None:
        """Refuse a position that no rings of this shape have; one that came from elsewhere may be anything.

        Raises:
            NotSupportedError: it is none.
        """
        inside = 0 <= self.completions < 2 * shape.cq_slots and 0 <= self.sq_head < shape.sq_slots
        few = self.unidentified >= 0 and self.outstanding <= MOST_EVENT_REQUESTS
        distinct = len(set(self.event_requests)) == len(self.event_requests)
        if not (inside and few and distinct and all(0 <= cid < 1 << 16 for cid in self.event_requests)):
            raise ambiguous("the position is none that rings of these sizes have")
        commands_needed(shape, self)


class _Posted(NamedTuple):
    """A visible completion: its identifier, and how many commands had been fetched, against the newest one's 0."""

    cid: int
    fetched: int


class _Request(NamedTuple):
    """An event request in the submission ring.

    Attributes:
        fetched: its place in the order of fetching; -1 is the last command that the newest completion knows of.
        certain: no completion of it can have left the completion ring, unless it is newer than all of them.
    """

    cid: int
    fetched: int
    certain: bool


def ambiguous(why: str) -> NotSupportedError:
    """Return the error of rings that do not say where the admin queue stands."""
    return NotSupportedError(
        f"the admin queue's position cannot be worked out: {why}",
        cause="a controller that began elsewhere than the guest's driver believes would execute old admin commands",
        fix="migrate again later; or let the controller arrive disabled, so that the guest's driver resets it",
        reason="admin-queue-ambiguous",
    )


def reconstruct(shape: Shape, sq: bytes, cq: bytes, *, most: int = MOST_EVENT_REQUESTS) -> Position:
    """Return where the admin queue stands whose rings these are.

    Args:
        sq, cq: all bytes of the two rings, of a controller that is suspended and a guest that stands still.
        most: event requests the controller keeps at most, AERL + 1.

    Raises:
        NotSupportedError: the rings contradict themselves.
    """
    if len(sq) != shape.sq_bytes or len(cq) != shape.cq_bytes:
        raise ValueError(f"{len(sq)} and {len(cq)} bytes are not the rings of {shape}")
    entries = [CompletionQueueEntry.at(cq, at) for at in range(0, len(cq), CQE_BYTES)]
    completions = _completions(entries)
    newest_first = _visible(entries, completions)
    if not newest_first:
        return Position(0, 0)
    if any(entry.sqhd >= shape.sq_slots or entry.sqid for entry in newest_first):
        raise ambiguous("a completion names a slot or a queue that is not there")
    posted = _unwrapped(newest_first, shape)
    sq_head = newest_first[0].sqhd
    # While the first pass lasts everything that was ever completed is visible, and counts are no remainders.
    whole = completions if len(posted) == completions < shape.cq_slots else None
    candidates = list(_candidates(shape, completions, sq_head, posted, most))
    if not candidates:
        raise ambiguous("no number of outstanding event requests fits its completions")
    readings = []
    for outstanding in candidates:
        fetched = None if whole is None else whole + outstanding
        readings.append((outstanding, list(_pending(shape, sq, sq_head, posted, fetched))))
    # Where the counts leave a choice the ring decides; but what it shows may be newer than the newest completion.
    fitting = ((count, requests) for count, requests in readings if sum(map(_is_certain, requests)) <= count)
    outstanding, requests = next(fitting, readings[0])
    shown = _shown(requests, outstanding)
    return Position(completions, sq_head, shown, outstanding - len(shown))


def commands_needed(shape: Shape, position: Position) -> int:
    """Return how many commands a fresh controller has to complete before the event requests are submitted again.

    Raises:
        NotSupportedError: no number of commands leads there, or too many would be needed.
    """
    for passes in range(shape.sq_slots):
        commands = position.completions + passes * 2 * shape.cq_slots
        if (commands + position.outstanding) % shape.sq_slots == position.sq_head:
            if commands > MOST_COMMANDS:
                raise ambiguous(f"{commands} commands would be needed, rings of {shape.sq_slots} and {shape.cq_slots}")
            return commands
    raise ambiguous("no number of commands leads there")


def identifiers(sq: bytes) -> frozenset[int]:
    """Return every command identifier that stands in a submission ring."""
    return frozenset(SubmissionQueueEntry.at(sq, at).cid for at in range(0, len(sq), SQE_BYTES))


def _completions(entries: list[CompletionQueueEntry]) -> int:
    """Return how many completions were posted, modulo twice the slots."""
    tags = [entry.phase for entry in entries]
    flip = next((slot for slot, tag in enumerate(tags) if tag != tags[0]), 0)
    if flip and any(tag == tags[0] for tag in tags[flip:]):
        raise ambiguous("the phase tag of its completions flips more than once")
    if not flip:  # one whole pass, or none at all, after which slot 0 gets the other tag
        return len(tags) if tags[0] else 0
    return flip if tags[0] else len(tags) + flip


def _visible(entries: list[CompletionQueueEntry], completions: int) -> list[CompletionQueueEntry]:
    """Return the completions in the ring, the newest first; slots that were never written are none."""
    flip = completions % len(entries)
    before, behind = entries[:flip], entries[flip:]
    if completions < len(entries) and not any(any(entry.raw) for entry in behind):
        behind = []  # the first pass: the driver cleared the ring before it enabled the controller
    return [*reversed(before), *reversed(behind)]


def _unwrapped(newest_first: list[CompletionQueueEntry], shape: Shape) -> list[_Posted]:
    """Return the completions with how far fetching was at each, counted backwards from the newest."""
    posted, fetched, later = [], 0, newest_first[0].sqhd
    for entry in newest_first:
        fetched -= (later - entry.sqhd) % shape.sq_slots
        later = entry.sqhd
        posted.append(_Posted(entry.cid, fetched))
    return posted


def _candidates(shape: Shape, completions: int, sq_head: int, posted: list[_Posted], most: int) -> Iterator[int]:
    """Yield how many event requests may be outstanding: the remainders fit, and nothing completed before its fetch."""
    step = gcd(shape.sq_slots, 2 * shape.cq_slots)
    least = max(-number - entry.fetched for number, entry in enumerate(posted))
    first = (sq_head - completions) % step
    for outstanding in range(first, most + 1, step):
        if outstanding >= least:
            yield outstanding


def _pending(shape: Shape, sq: bytes, sq_head: int, posted: list[_Posted], fetched: int | None) -> Iterator[_Request]:
    """Yield the event requests in the ring that no visible completion answers, the newest first, an identifier once.

    Args:
        fetched: how many commands were ever fetched, when that is known: slots behind them hold something older.
    """
    seen: set[int] = set()
    oldest = posted[-1].fetched
    for age in range(1, 1 + (shape.sq_slots if fetched is None else min(fetched, shape.sq_slots))):
        entry = SubmissionQueueEntry.at(sq, (sq_head - age) % shape.sq_slots * SQE_BYTES)
        if entry.opcode != Opcode.ASYNCHRONOUS_EVENT_REQUEST or entry.cid in seen:
            continue
        seen.add(entry.cid)
        if not any(command.cid == entry.cid and command.fetched > -age for command in posted):
            yield _Request(entry.cid, -age, fetched is not None or oldest <= -age)


def _is_certain(request: _Request) -> bool:
    return request.certain


def _shown(requests: list[_Request], outstanding: int) -> tuple[int, ...]:
    """Return the identifiers of the requests that are outstanding, as far as they are sure; see :class:`Position`.

    Of more candidates than requests the oldest are none: their slots lie right behind SQHD, where a request that was
    submitted since stands, or they were answered before the oldest completion that is visible. Of those that are left
    only one whose completion cannot have been overwritten is sure then.
    """
    if len(requests) > outstanding:
        requests = [request for request in requests[:outstanding] if request.certain]
    return tuple(request.cid for request in reversed(requests))
