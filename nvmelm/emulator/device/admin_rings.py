"""The admin queue pair of a controller in its owner's memory: what a doorbell sets off.

The controller fetches each command once, in the order of the ring, and posts one completion for it in the next slot of
the other ring, with the phase tag of that pass. An Asynchronous Event Request is the exception: it is fetched, and its
completion comes with an event, or never. A full completion queue keeps what was fetched waiting.

A controller that was just enabled begins at slot 0 of both rings, whatever lies in them: old commands are commands.

Source: NVM Express Base Specification 2.1, Memory-Based Transport Queue Model; Asynchronous Event Request command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nvmelm.emulator.machine.state import KeptRings as AdminState
from nvmelm.wire.opcodes import Opcode
from nvmelm.wire.queue_entry import CompletionQueueEntry, SubmissionQueueEntry

SQE_BYTES = SubmissionQueueEntry.size
CQE_BYTES = CompletionQueueEntry.size
EVENT_LIMIT_EXCEEDED = 0x4105

Run = Callable[[SubmissionQueueEntry], tuple[int, int]]
"""Carries a command out and returns status and DW0."""


class Dma(Protocol):
    """Memory that the controller reads and writes; ``ValueError`` where there is none."""

    def read(self, address: int, length: int) -> bytes: ...

    def write(self, address: int, raw: bytes) -> None: ...


def slots(aqa: int) -> tuple[int, int]:
    """Return the entries of the submission and the completion ring that an AQA register says, both 0's based there."""
    return (aqa & 0xFFF) + 1, (aqa >> 16 & 0xFFF) + 1


def fresh() -> AdminState:
    """Return the rings of a controller that was just enabled."""
    return AdminState(sq_head=0, sq_tail=0, cq_head=0, cq_tail=0, phase=1, requests=[], waiting=[], events=[])


class AdminRings:
    """The controller's end of its admin queue pair.

    Args:
        state: where it stands, changed in place.
        aqa, asq, acq: the registers.
        limit: requests for events that may be outstanding (AERL, 1's based here).
        posted: called with the address of each completion that was written, for its interrupt.
    """

    def __init__(
        self,
        state: AdminState,
        memory: Dma,
        *,
        aqa: int,
        asq: int,
        acq: int,
        run: Run,
        limit: int = 4,
        posted: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.state = state
        self._memory = memory
        self._sq_slots, self._cq_slots = slots(aqa)
        self._asq, self._acq = asq, acq
        self._run, self._limit, self._posted = run, limit, posted

    def ring_sq(self, tail: int) -> None:
        """Write the submission queue's tail doorbell."""
        if tail < self._sq_slots:
            self.state["sq_tail"] = tail

    def ring_cq(self, head: int) -> None:
        """Write the completion queue's head doorbell."""
        if head < self._cq_slots:
            self.state["cq_head"] = head

    def work(self) -> None:
        """Complete what waits for room, then fetch and carry out what the doorbell said is there.

        Raises:
            ValueError: a ring lies where no memory is.
        """
        state = self.state
        self.finish()
        while state["sq_head"] != state["sq_tail"]:
            entry = self._fetch()
            if entry.opcode == Opcode.ASYNCHRONOUS_EVENT_REQUEST:
                self._request(entry)
            else:
                status, result = self._run(entry)
                state["waiting"].append([entry.cid, status, result])
            self.finish()

    def finish(self) -> bool:
        """Post what waits for a completion, as far as there is room; return whether nothing waits any more."""
        waiting = self.state["waiting"]
        while waiting and (self.state["cq_tail"] + 1) % self._cq_slots != self.state["cq_head"]:
            self._post(*waiting.pop(0))
        return not waiting

    def event(self, result: int) -> None:
        """Let an event happen: it completes the oldest request, or waits for the next one."""
        self.state["events"].append(result)
        self._deliver()

    def _fetch(self) -> SubmissionQueueEntry:
        state = self.state
        raw = self._memory.read(self._asq + SQE_BYTES * state["sq_head"], SQE_BYTES)
        state["sq_head"] = (state["sq_head"] + 1) % self._sq_slots
        return SubmissionQueueEntry(raw)

    def _request(self, entry: SubmissionQueueEntry) -> None:
        if len(self.state["requests"]) >= self._limit:
            self.state["waiting"].append([entry.cid, EVENT_LIMIT_EXCEEDED, 0])
            return
        self.state["requests"].append(entry.cid)
        self._deliver()

    def _deliver(self) -> None:
        state = self.state
        while state["events"] and state["requests"]:
            state["waiting"].append([state["requests"].pop(0), 0, state["events"].pop(0)])
        self.finish()

    def _post(self, cid: int, status: int, result: int) -> None:
        state = self.state
        raw = CompletionQueueEntry.pack(dw0=result, sqhd=state["sq_head"], cid=cid, status=status << 1 | state["phase"])
        address = self._acq + CQE_BYTES * state["cq_tail"]
        self._memory.write(address, raw)
        state["cq_tail"] += 1
        if state["cq_tail"] == self._cq_slots:
            state["cq_tail"], state["phase"] = 0, state["phase"] ^ 1
        self._posted(address)
