"""Builders of Virtualization Management: secondaries offline and online, and their share of the resources.

The order for one secondary is Offline, Assign VQ, Assign VI, function-level reset of its VF, Online; a VF that is
enabled after the assignment comes up as after a reset. A secondary goes offline by itself whenever its primary is
reset.

Source: NVM Express Base Specification 2.1, "Virtualization Management command" and "Virtualization Enhancements".
"""

from __future__ import annotations

from nvmelm.host import AdminCommand, Completion
from nvmelm.wire.layout import Word
from nvmelm.wire.opcodes import Opcode, ResourceType, VirtualizationAction

__all__ = ["CDW10", "CDW11", "ResourceType", "allocate_primary", "assign", "offline", "online", "resources_modified"]

CDW10 = Word(act="3:0", rt="10:8", cntlid="31:16")
CDW11 = Word(nr="15:0")


def offline(cntlid: int) -> AdminCommand:
    """Build Virtualization Management, Secondary Offline: stop it and take all its flexible resources away.

    Success when it is offline already.

    Status to expect:
        Invalid Controller Identifier: not a secondary of this primary.

    Source: NVM Express Base Specification 2.1, "Virtualization Management command", Secondary Offline.
    """
    return _manage("Secondary Offline", VirtualizationAction.SECONDARY_OFFLINE, cntlid)


def online(cntlid: int) -> AdminCommand:
    """Build Virtualization Management, Secondary Online: let the secondary be enabled.

    Success when it is online already.

    Status to expect:
        Invalid Controller Identifier: not a secondary of this primary.
        Invalid Secondary Controller State: it has fewer than 2 VQ or 1 VI resources, its VF is not enabled, or the
            primary is not enabled.

    Source: NVM Express Base Specification 2.1, "Virtualization Management command", Secondary Online.
    """
    return _manage("Secondary Online", VirtualizationAction.SECONDARY_ONLINE, cntlid)


def assign(cntlid: int, resource_type: ResourceType, count: int) -> AdminCommand:
    """Build Virtualization Management, Secondary Assign: set how many flexible resources an offline secondary has.

    Args:
        count: the new number, not an addition; 0 gives all back. The controller may round it:
            see :func:`resources_modified`.

    Status to expect:
        Invalid Controller Identifier: not a secondary of this primary.
        Invalid Secondary Controller State: it is online.
        Invalid Number of Controller Resources: above VQFRSM or VIFRSM.
        Invalid Resource Identifier: the type cannot be shared out, or fewer are free.

    Source: NVM Express Base Specification 2.1, "Virtualization Management command", Secondary Assign.
    """
    return _manage("Secondary Assign", VirtualizationAction.SECONDARY_ASSIGN, cntlid, resource_type, count)


def allocate_primary(cntlid: int, resource_type: ResourceType, count: int) -> AdminCommand:
    """Build Virtualization Management, Primary Flexible Allocation: what the primary itself keeps.

    It takes effect with the next reset of the primary other than a Controller Reset, and survives power cycles.

    Args:
        cntlid: the primary's own id.
        count: the new number of flexible resources of the primary.

    Status to expect:
        Invalid Controller Identifier: not this primary.
        Invalid Number of Controller Resources: above VQFRT or VIFRT.
        Invalid Resource Identifier: the type cannot be shared out, or fewer are free.

    Source: NVM Express Base Specification 2.1, "Virtualization Management command", Primary Controller Flexible
    Allocation.
    """
    action = VirtualizationAction.PRIMARY_FLEXIBLE_ALLOCATION
    return _manage("Primary Flexible Allocation", action, cntlid, resource_type, count)


def resources_modified(completion: Completion) -> int:
    """Return how many resources Assign or Primary Flexible Allocation really gave (NRM, DW0 bits 15:0)."""
    return completion.result & 0xFFFF


def _manage(
    what: str, action: VirtualizationAction, cntlid: int, resource_type: ResourceType = ResourceType.VQ, count: int = 0
) -> AdminCommand:
    return AdminCommand(
        name=f"Virtualization Management ({what})",
        opcode=Opcode.VIRTUALIZATION_MANAGEMENT,
        cdw10=CDW10.pack(act=action, rt=resource_type, cntlid=cntlid),
        cdw11=CDW11.pack(nr=count),
    )
