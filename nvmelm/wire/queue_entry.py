"""Submission and completion queue entries, the two structures every NVMe command travels in.

::

    submission queue entry, 64 bytes                completion queue entry, 16 bytes
     0 opcode | flags | cid | nsid                   0 DW0 | DW1
     8 CDW2 | CDW3                                   8 SQHD | SQID | CID | phase 0, status 15:1
    16 MPTR
    24 PRP1 | PRP2
    40 CDW10 ... CDW15

Source: NVM Express Base Specification 2.1, "Submission Queue Entry" and "Common Completion Queue Entry".
"""

from __future__ import annotations

from nvmelm.wire.layout import U8, U16, U32, U64, Layout


class SubmissionQueueEntry(Layout, size=64):
    """A command as the controller fetches it.

    Source: NVM Express Base Specification 2.1, "Common Command Format".
    """

    opcode = U8(0, "Opcode")
    flags = U8(1, "Fused Operation and PRP or SGL for Data Transfer")
    cid = U16(2, "Command Identifier")
    nsid = U32(4, "Namespace Identifier")
    cdw2 = U32(8, "Command Dword 2")
    cdw3 = U32(12, "Command Dword 3")
    mptr = U64(16, "Metadata Pointer")
    prp1 = U64(24, "PRP Entry 1 of the Data Pointer")
    prp2 = U64(32, "PRP Entry 2 of the Data Pointer")
    cdw10 = U32(40, "Command Dword 10")
    cdw11 = U32(44, "Command Dword 11")
    cdw12 = U32(48, "Command Dword 12")
    cdw13 = U32(52, "Command Dword 13")
    cdw14 = U32(56, "Command Dword 14")
    cdw15 = U32(60, "Command Dword 15")

    @property
    def words(self) -> tuple[int, int, int, int, int, int]:
        """Return CDW10 to CDW15."""
        return (self.cdw10, self.cdw11, self.cdw12, self.cdw13, self.cdw14, self.cdw15)


class CompletionQueueEntry(Layout, size=16):
    """What the controller posts when a command is done.

    Source: NVM Express Base Specification 2.1, "Common Completion Queue Entry Layout".
    """

    dw0 = U32(0, "Command specific")
    dw1 = U32(4, "Command specific")
    sqhd = U16(8, "Submission Queue Head Pointer")
    sqid = U16(10, "Submission Queue Identifier")
    cid = U16(12, "Command Identifier")
    status = U16(14, "bit 0 Phase Tag, bits 15:1 Status")

    @property
    def phase(self) -> int:
        """Return the Phase Tag."""
        return self.status & 1

    @property
    def status_value(self) -> int:
        """Return the status without the phase bit, as :class:`~nvmelm.wire.status.Status` takes it."""
        return self.status >> 1

    @property
    def result(self) -> int:
        """Return DW0 in bits 31:0 and DW1 in bits 63:32."""
        return self.dw0 | self.dw1 << 32
