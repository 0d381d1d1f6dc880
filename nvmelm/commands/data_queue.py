"""Builders of Controller Data Queue and its feature 21h: a queue in host memory that the controller fills by itself.

The controller writes to the memory for as long as the queue lives. The kernel's passthrough maps a buffer only while
the command runs, so Create through ``/dev/nvmeX`` lets the device write to memory that belongs to someone else by
then. Only a transport whose memory stays mapped (a primary controller owned through vfio-pci) may send it.

Source: NVM Express Base Specification 2.1, "Controller Data Queue command" and "Controller Data Queue (Feature
Identifier 21h)".
"""

from __future__ import annotations

from nvmelm.host import AdminCommand, Completion
from nvmelm.wire.data_queue import DataQueueFeature
from nvmelm.wire.layout import Word
from nvmelm.wire.opcodes import DataQueueSelect, DataQueueType, FeatureId, FeatureSelect, Opcode
from nvmelm.wire.tracking import MigrationQueueEntry

CREATE_CDW10 = Word(sel="7:0", qt="23:16")
CREATE_CDW11 = Word(pc="0:0", cqs="31:16")
CREATE_CDW12 = Word(cdqsize="31:0")
DELETE_CDW11 = Word(cdqid="15:0")

SET_CDW10 = Word(fid="7:0", sv="31:31")
GET_CDW10 = Word(fid="7:0", sel="10:8")
FEATURE_CDW11 = Word(cdqid="15:0", etpt="31:31")
SLOT = Word(slot="31:0")

_DWORD = 4


def create(cntlid: int, memory: bytes | memoryview, *, contiguous: bool = True, queue_bytes: int = 0) -> AdminCommand:
    """Build Controller Data Queue, Create: a User Data Migration Queue for one controller.

    Never for a kernel-owned primary controller; see above.

    Args:
        cntlid: the controller whose changed blocks the queue will hold.
        memory: the queue itself, zeroed; or, when it is not contiguous, the list of its pages' addresses.
        contiguous: whether ``memory`` is the queue itself, one buffer for the device.
        queue_bytes: the size of a queue that is not contiguous.

    Status to expect:
        Invalid Controller Identifier: no controller of this subsystem that can be migrated.
        Invalid Field in Command: it has a queue already; a wrong size; or more queues or memory ranges than
            Identify Controller allows.
        Not Enough Resources: more queues than Identify Controller allows; the specification names both.
        PRP Offset Invalid: the memory is not page aligned.

    Raises:
        ValueError: the queue has fewer than two entries, or not whole ones, or a value does not fit.

    Source: NVM Express Base Specification 2.1, "Controller Data Queue command", Create Controller Data Queue.
    """
    size = len(memory) if contiguous else queue_bytes
    if size % MigrationQueueEntry.size or size < 2 * MigrationQueueEntry.size:
        raise ValueError(f"a queue of {size} bytes does not hold two or more whole entries")
    return AdminCommand(
        name="Controller Data Queue (Create)",
        opcode=Opcode.CONTROLLER_DATA_QUEUE,
        cdw10=CREATE_CDW10.pack(sel=DataQueueSelect.CREATE, qt=DataQueueType.USER_DATA_MIGRATION_QUEUE),
        cdw11=CREATE_CDW11.pack(pc=contiguous, cqs=cntlid),
        cdw12=CREATE_CDW12.pack(cdqsize=size // _DWORD),
        data_out=memory,
    )


def created_id(completion: Completion) -> int:
    """Return the identifier of the queue that was created (CDQID, DW0 bits 15:0)."""
    return completion.result & 0xFFFF


def delete(cdqid: int) -> AdminCommand:
    """Build Controller Data Queue, Delete; the memory may be used again when it succeeded.

    Args:
        cdqid: the queue.

    Status to expect:
        Invalid Controller Data Queue: no such queue (any more).

    Source: NVM Express Base Specification 2.1, "Controller Data Queue command", Delete Controller Data Queue.
    """
    return AdminCommand(
        name="Controller Data Queue (Delete)",
        opcode=Opcode.CONTROLLER_DATA_QUEUE,
        cdw10=CREATE_CDW10.pack(sel=DataQueueSelect.DELETE),
        cdw11=DELETE_CDW11.pack(cdqid=cdqid),
    )


def set_head(cdqid: int, head: int, trigger: int | None = None) -> AdminCommand:
    """Build Set Features, Controller Data Queue: tell the controller which slots were read.

    Args:
        cdqid: the queue.
        head: the slot of the next entry the host will read.
        trigger: ask for one event when an entry is posted to this slot; look at the queue once more afterwards, for
            it may have been posted before the command completed.

    Status to expect:
        Invalid Controller Data Queue: no such queue.
        Invalid Field in Command: nothing was posted there, the queue is empty, or the trigger is outside the queue.

    Source: NVM Express Base Specification 2.1, "Controller Data Queue (Feature Identifier 21h)".
    """
    return AdminCommand(
        name="Set Features (Controller Data Queue)",
        opcode=Opcode.SET_FEATURES,
        cdw10=SET_CDW10.pack(fid=FeatureId.CONTROLLER_DATA_QUEUE),
        cdw11=FEATURE_CDW11.pack(cdqid=cdqid, etpt=trigger is not None),
        cdw12=SLOT.pack(slot=head),
        cdw13=SLOT.pack(slot=trigger or 0),
    )


def get_head(cdqid: int, select: FeatureSelect = FeatureSelect.CURRENT) -> AdminCommand:
    """Build Get Features, Controller Data Queue: which head the controller knows.

    The answer is 512 bytes in the specification; libnvme has a buffer of 8 and relies on the controller to send no
    more. :meth:`DataQueueFeature.parse <nvmelm.wire.data_queue.DataQueueFeature.parse>` reads both.

    Args:
        cdqid: the queue.
        select: CURRENT, or what else the feature can tell.

    Status to expect:
        Invalid Controller Data Queue: no such queue.

    Source: NVM Express Base Specification 2.1, "Controller Data Queue (Feature Identifier 21h)".
    """
    return AdminCommand(
        name="Get Features (Controller Data Queue)",
        opcode=Opcode.GET_FEATURES,
        cdw10=GET_CDW10.pack(fid=FeatureId.CONTROLLER_DATA_QUEUE, sel=select),
        cdw11=DELETE_CDW11.pack(cdqid=cdqid),
        data_in_length=DataQueueFeature.size,
    )
