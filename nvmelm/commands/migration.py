"""Builders of Migration Send and Migration Receive: suspend, resume, read the state, write the state.

They go to the controller that manages migrations (the primary) and name the controller that is migrated.

The two commands keep the same fields in different places, and count dwords differently; the words below are the one
place where that matters::

                       Migration Send (Set)    Migration Receive (Get)
    version index      CDW11 23:16             CDW10 23:16
    UUID index         CDW11 31:24             CDW11 23:16
    UUID parameter     none                    CDW11 31:24
    number of dwords   CDW15, plain            CDW15, 0's based

Source: NVM Express Base Specification 2.1, "Migration Send command" and "Migration Receive command".
"""

from __future__ import annotations

from nvmelm.host import AdminCommand, Completion
from nvmelm.wire.layout import Word
from nvmelm.wire.opcodes import MigrationReceiveSelect, MigrationSendSelect, Opcode, Sequence, SuspendType

__all__ = [
    "Sequence",
    "SuspendType",
    "get_state",
    "resume",
    "set_state",
    "suspend",
    "was_suspended",
]

SEND_CDW10 = Word(sel="7:0", seqind="17:16")
SUSPEND_CDW11 = Word(cntlid="15:0", stype="23:16", dudmq="31:31")
RESUME_CDW11 = Word(cntlid="15:0")
SET_CDW11 = Word(cntlid="15:0", csvi="23:16", csuuidi="31:24")

RECEIVE_CDW10 = Word(sel="7:0", csvi="23:16")
RECEIVE_CDW11 = Word(cntlid="15:0", csuuidi="23:16", csuidxp="31:24")

CDW14 = Word(uidx="6:0")
CDW15 = Word(numd="31:0")

_DWORD = 4


def suspend(
    cntlid: int, stype: SuspendType = SuspendType.SUSPEND, *, delete_udmq: bool = False, uidx: int = 0
) -> AdminCommand:
    """Build Migration Send, Suspend.

    The controller finishes what it has fetched and fetches no more; the command completes after that, which may take
    long. Repeating it is success.

    Args:
        cntlid: the controller to suspend.
        stype: SUSPEND_NOTIFICATION announces a suspend to come and stops nothing.
        delete_udmq: also delete the controller's User Data Migration Queue once it is suspended.
        uidx: UUID Index, only where the effects log says that the command takes one (USS).

    Status to expect:
        Invalid Controller Identifier: no controller of this subsystem that can be migrated.
        Invalid Controller Data Queue: ``delete_udmq``, and there is none.

    Source: NVM Express Base Specification 2.1, "Migration Send command", Suspend.
    """
    return AdminCommand(
        name="Migration Send (Suspend)",
        opcode=Opcode.MIGRATION_SEND,
        cdw10=SEND_CDW10.pack(sel=MigrationSendSelect.SUSPEND),
        cdw11=SUSPEND_CDW11.pack(cntlid=cntlid, stype=stype, dudmq=delete_udmq),
        cdw14=CDW14.pack(uidx=uidx),
    )


def resume(cntlid: int, *, uidx: int = 0) -> AdminCommand:
    """Build Migration Send, Resume: the controller fetches commands again.

    Args:
        cntlid: a suspended controller.
        uidx: UUID Index, only where the effects log says that the command takes one (USS).

    Status to expect:
        Controller Not Suspended: it runs already, or was reset meanwhile and has lost its state.
        Command Sequence Error: a state was sent, but not all of it.
        Invalid Controller Identifier: no controller of this subsystem that can be migrated.

    Source: NVM Express Base Specification 2.1, "Migration Send command", Resume.
    """
    return AdminCommand(
        name="Migration Send (Resume)",
        opcode=Opcode.MIGRATION_SEND,
        cdw10=SEND_CDW10.pack(sel=MigrationSendSelect.RESUME),
        cdw11=RESUME_CDW11.pack(cntlid=cntlid),
        cdw14=CDW14.pack(uidx=uidx),
    )


def set_state(
    cntlid: int,
    data: bytes | memoryview,
    *,
    offset: int,
    sequence: Sequence,
    version_index: int,
    uuid_index: int = 0,
    uidx: int = 0,
) -> AdminCommand:
    """Build Migration Send, Set Controller State: one part of a Controller State, or all of it.

    Parts go one at a time, in order, each after the completion of the one before. The state is committed when the
    last part succeeds; after any failure the whole is sent again.

    Args:
        cntlid: the controller that receives the state; suspended.
        data: whole dwords; empty only with ``Sequence.LAST``.
        offset: where ``data`` belongs in the Controller State, bytes, a multiple of 4.
        sequence: ONLY for all of it in one command, else FIRST, MIDDLE, LAST.
        version_index: index (from 1) of the NVMe part's version at the receiving side; 0: there is no NVMe part.
        uuid_index: index (from 1) of the vendor part's format at the receiving side; 0: there is no vendor part.
        uidx: UUID Index, only where the effects log says that the command takes one (USS).

    Status to expect:
        Invalid Controller Identifier: it is neither suspended nor offline, or no controller that can be migrated.
        Invalid Field in Command: an index is unknown, or 0 for a part that is there; or the controller has I/O
            queues already.
        Command Sequence Error: MIDDLE or LAST, and nothing was started.

    Raises:
        ValueError: a value that does not fit, is not whole dwords, or no data where some must be.

    Source: NVM Express Base Specification 2.1, "Migration Send command", Set Controller State.
    """
    if len(data) == 0 and sequence != Sequence.LAST:
        raise ValueError("a part without data is only allowed as the last one")
    low, high = _offset(offset)
    return AdminCommand(
        name="Migration Send (Set Controller State)",
        opcode=Opcode.MIGRATION_SEND,
        cdw10=SEND_CDW10.pack(sel=MigrationSendSelect.SET_CONTROLLER_STATE, seqind=sequence),
        cdw11=SET_CDW11.pack(cntlid=cntlid, csvi=version_index, csuuidi=uuid_index),
        cdw12=low,
        cdw13=high,
        cdw14=CDW14.pack(uidx=uidx),
        cdw15=CDW15.pack(numd=_dwords("data", len(data))),
        data_out=data if len(data) else None,
    )


def get_state(
    cntlid: int,
    *,
    offset: int,
    length: int,
    version_index: int,
    uuid_index: int = 0,
    uuid_parameter: int = 0,
    uidx: int = 0,
) -> AdminCommand:
    """Build Migration Receive, Get Controller State: some bytes of a Controller State.

    Only one command is one moment: a state read in parts is consistent when the controller was suspended from before
    the first part to after the last.

    Args:
        cntlid: the controller whose state is read.
        offset: where to start in the Controller State, bytes, a multiple of 4, not at or past its end.
        length: bytes, a multiple of 4; asking for more than there is succeeds, with an undefined tail.
        version_index: index (from 1) of the NVMe part's version; 0 leaves the NVMe part out.
        uuid_index: index (from 1) of the vendor part's format; 0 leaves the vendor part out.
        uuid_parameter: means what the vendor says; ignored without ``uuid_index``.
        uidx: UUID Index, only where the effects log says that the command takes one (USS).

    Status to expect:
        Invalid Controller Identifier: no controller of this subsystem that can be migrated.
        Invalid Field in Command: an index is unknown, or the offset is past the end.

    Raises:
        ValueError: a value that does not fit or is not whole dwords.

    Source: NVM Express Base Specification 2.1, "Migration Receive command", Get Controller State.
    """
    if length <= 0:
        raise ValueError(f"length={length}: nothing to read")
    low, high = _offset(offset)
    return AdminCommand(
        name="Migration Receive (Get Controller State)",
        opcode=Opcode.MIGRATION_RECEIVE,
        cdw10=RECEIVE_CDW10.pack(sel=MigrationReceiveSelect.GET_CONTROLLER_STATE, csvi=version_index),
        cdw11=RECEIVE_CDW11.pack(cntlid=cntlid, csuuidi=uuid_index, csuidxp=uuid_parameter),
        cdw12=low,
        cdw13=high,
        cdw14=CDW14.pack(uidx=uidx),
        cdw15=CDW15.pack(numd=_dwords("length", length) - 1),
        data_in_length=length,
    )


def was_suspended(completion: Completion) -> bool:
    """Return whether Get Controller State found the controller suspended from beginning to end (CSUP, DW0 bit 0).

    A device may leave this bit clear and say so in the structure alone; the structure decides.
    """
    return bool(completion.result & 1)


def _offset(offset: int) -> tuple[int, int]:
    if not 0 <= offset < 1 << 64 or offset % _DWORD:
        raise ValueError(f"offset={offset} is not a multiple of {_DWORD} between 0 and 2^64")
    return offset & 0xFFFF_FFFF, offset >> 32


def _dwords(name: str, length: int) -> int:
    if length % _DWORD:
        raise ValueError(f"{name} has {length} bytes, not whole dwords")
    return length // _DWORD
