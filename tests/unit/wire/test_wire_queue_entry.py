"""Queue entries: words and status are where the controller puts them."""

from __future__ import annotations

from nvmelm.wire.queue_entry import CompletionQueueEntry, SubmissionQueueEntry


def test_a_submission_entry_shows_its_words() -> None:
    entry = SubmissionQueueEntry(
        bytes.fromhex("4100 0700 00000000") + bytes(32) + b"".join(bytes([n, 0, 0, 0]) for n in range(10, 16))
    )
    assert (entry.opcode, entry.cid, entry.nsid) == (0x41, 7, 0)
    assert entry.words == (10, 11, 12, 13, 14, 15)


def test_a_completion_entry_splits_phase_and_status() -> None:
    # Status 413Ah (Controller Not Suspended, do not retry) with phase 1 is 8275h.
    entry = CompletionQueueEntry(bytes.fromhex("0300000002000000 0500 0000 0700 7582"))
    assert (entry.phase, entry.status_value, entry.cid, entry.sqhd) == (1, 0x413A, 7, 5)
    assert entry.result == 0x0000_0002_0000_0003
