"""The dwords of the commands that the device takes apart, bit range by bit range.

Source: Base Specification 2.1, the commands named below. It is read once more here: those who build commands have
tables of their own (nvmelm/commands), and a slip in one of the two is seen by the other.
"""

from __future__ import annotations

from nvmelm.wire.layout import Word

#: Migration Send: CDW10 and CDW11. MOS of Set Controller State is the Sequence Indicator.
MIGRATION_SEND_10 = Word(sel="7:0", seqind="17:16")
SUSPEND_11 = Word(cntlid="15:0", stype="23:16", dudmq="31:31")
SET_STATE_11 = Word(cntlid="15:0", csvi="23:16", csuuidi="31:24")
#: Migration Receive. CSVI stands in CDW10 here, not in CDW11.
MIGRATION_RECEIVE_10 = Word(sel="7:0", csvi="23:16")
MIGRATION_RECEIVE_11 = Word(cntlid="15:0", csuuidi="23:16", csuidxp="31:24")
#: Track Send: what MOS means depends on SEL.
LOG_USER_DATA_10 = Word(sel="7:0", action="19:16")
TRACK_MEMORY_10 = Word(sel="7:0", action="16:16")
#: Track Receive, and all others that name a controller, or a queue, in CDW11.
CONTROLLER_11 = Word(cntlid="15:0")
QUEUE_11 = Word(cdqid="15:0")
#: Controller Data Queue, and its feature.
CREATE_QUEUE_10 = Word(sel="7:0", qt="23:16")
CREATE_QUEUE_11 = Word(pc="0:0", cntlid="31:16")
QUEUE_FEATURE_11 = Word(cdqid="15:0", etpt="31:31")
#: Virtualization Management.
VIRTUALIZATION_10 = Word(act="3:0", rt="10:8", cntlid="31:16")
VIRTUALIZATION_11 = Word(nr="15:0")
#: Namespace Attachment.
ATTACHMENT_10 = Word(sel="3:0")
#: Identify, Get Log Page, Set Features.
IDENTIFY_11 = Word(csi="31:24")
LOG_PAGE_10 = Word(lid="7:0", numdl="31:16")
LOG_PAGE_11 = Word(numdu="15:0")
SET_FEATURES_10 = Word(fid="7:0", sv="31:31")
#: Create and Delete I/O Submission or Completion Queue.
IO_QUEUE_10 = Word(qid="15:0", qsize="31:16")
IO_COMPLETION_QUEUE_11 = Word(iv="31:16")
IO_SUBMISSION_QUEUE_11 = Word(cqid="31:16")
#: Read, Write and Write Zeroes of the NVM Command Set: NLB counts from zero.
BLOCKS_12 = Word(nlb="15:0")


def qword(low: int, high: int) -> int:
    """Return the 64-bit number that two dwords hold, CDW12 (lower) and CDW13 (upper) mostly."""
    return high << 32 | low
