"""Builders of Identify and Get Log Page: what a controller is, has, and knows.

All of them only read. Every Identify structure is 4096 bytes, whatever is in it.

Source: NVM Express Base Specification 2.1, "Identify command" and "Get Log Page command".
"""

from __future__ import annotations

from nvmelm.host import AdminCommand
from nvmelm.wire.layout import Word
from nvmelm.wire.opcodes import ALL_NAMESPACES, IDENTIFY_BYTES, Cns, CommandSet, LogId, Opcode

CDW10 = Word(cns="7:0", cntid="31:16")
CDW11 = Word(cnssid="15:0", csi="31:24")
CDW14 = Word(uidx="6:0")
NSID = Word(nsid="31:0")

LOG_CDW10 = Word(lid="7:0", lsp="14:8", rae="15:15", numdl="31:16")
LOG_CDW11 = Word(numdu="15:0", lsi="31:16")

_EFFECTS_LOG_BYTES = 4096


def controller() -> AdminCommand:
    """Build Identify, Identify Controller (CNS 01h): the controller that the command is sent to.

    Status to expect: none but success.

    Source: NVM Express Base Specification 2.1, "Identify Controller data structure".
    """
    return _identify("Identify Controller", Cns.IDENTIFY_CTRL)


def nvm_controller() -> AdminCommand:
    """Build Identify, I/O Command Set specific Identify Controller (CNS 06h) for the NVM command set.

    Status to expect:
        Invalid Field in Command: the controller is older than NVMe 2.0; its limits are those of Identify Controller.

    Source: NVM Command Set Specification 1.2, "I/O Command Set specific Identify Controller data structure".
    """
    name = "I/O Command Set specific Identify Controller"
    return _identify(name, Cns.CSI_IDENTIFY_CTRL, csi=CommandSet.NVM)


def namespace(nsid: int) -> AdminCommand:
    """Build Identify, Identify Namespace (CNS 00h): size and block format of an attached namespace.

    Args:
        nsid: 1 to FFFFFFFEh; FFFFFFFFh asks for what all namespaces have in common.

    Status to expect:
        Invalid Namespace or Format: no namespace has this id. One that is not attached reads as zeros.

    Source: NVM Command Set Specification 1.2, "Identify Namespace data structure".
    """
    return _identify("Identify Namespace", Cns.IDENTIFY_NS, nsid=nsid)


def active_namespaces(start: int = 0) -> AdminCommand:
    """Build Identify, Active Namespace ID list (CNS 02h): up to 1024 ids above ``start``.

    Args:
        start: 0 for the first list, then the last id of the list before; up to FFFFFFFDh.

    Status to expect:
        Invalid Namespace or Format: ``start`` is FFFFFFFEh or FFFFFFFFh.

    Source: NVM Express Base Specification 2.1, "Active Namespace ID list".
    """
    return _identify("Active Namespace ID list", Cns.ACTIVE_NS_LIST, nsid=start)


def namespace_identifiers(nsid: int) -> AdminCommand:
    """Build Identify, Namespace Identification Descriptor list (CNS 03h): EUI64, NGUID, UUID of an active namespace.

    Status to expect:
        Invalid Field in Command: the controller is older than NVMe 1.3.
        Invalid Namespace or Format: the namespace is not attached to this controller.

    Source: NVM Express Base Specification 2.1, "Namespace Identification Descriptor list".
    """
    return _identify("Namespace Identification Descriptor list", Cns.NS_ID_DESCRIPTORS, nsid=nsid)


def allocated_namespaces(start: int = 0) -> AdminCommand:
    """Build Identify, Allocated Namespace ID list (CNS 10h): up to 1024 ids above ``start``, attached or not.

    Args:
        start: 0 for the first list, then the last id of the list before; up to FFFFFFFDh.

    Status to expect:
        Invalid Field in Command: the controller has no namespace management.

    Source: NVM Express Base Specification 2.1, "Allocated Namespace ID list".
    """
    return _identify("Allocated Namespace ID list", Cns.ALLOCATED_NS_LIST, nsid=start)


def allocated_namespace(nsid: int) -> AdminCommand:
    """Build Identify, Identify Namespace for an allocated Namespace ID (CNS 11h): attached to this controller or not.

    Status to expect:
        Invalid Field in Command: the controller has no namespace management.
        Invalid Namespace or Format: no namespace can have this id.

    Source: NVM Express Base Specification 2.1, "Identify Namespace data structure for an Allocated Namespace ID".
    """
    return _identify("Identify Namespace, allocated", Cns.ALLOCATED_NS, nsid=nsid)


def attached_controllers(nsid: int, first: int = 0) -> AdminCommand:
    """Build Identify, Namespace Attached Controller list (CNS 12h): up to 2047 ids from ``first`` on.

    Args:
        nsid: an existing namespace.
        first: the smallest controller id that is of interest.

    Status to expect:
        Invalid Field in Command: no such namespace, or FFFFFFFFh.

    Source: NVM Express Base Specification 2.1, "Namespace Attached Controller list".
    """
    return _identify("Namespace Attached Controller list", Cns.NS_ATTACHED_CTRL_LIST, nsid=nsid, cntid=first)


def controllers(first: int = 0) -> AdminCommand:
    """Build Identify, Controller list (CNS 13h): up to 2047 ids of the NVM subsystem from ``first`` on.

    Args:
        first: the smallest controller id that is of interest.

    Status to expect:
        Invalid Field in Command: the controller knows no namespace management and so no lists.

    Source: NVM Express Base Specification 2.1, "Controller list".
    """
    return _identify("Controller list", Cns.CTRL_LIST, cntid=first)


def primary_capabilities(cntid: int = 0) -> AdminCommand:
    """Build Identify, Primary Controller Capabilities (CNS 14h): VQ and VI resources.

    Args:
        cntid: the specification does not use it here; nvme-cli offers it.

    Status to expect:
        Invalid Field in Command: the controller has no Virtualization Management.

    Source: NVM Express Base Specification 2.1, "Primary Controller Capabilities data structure".
    """
    return _identify("Primary Controller Capabilities", Cns.PRIMARY_CTRL_CAP, cntid=cntid)


def secondary_controllers(first: int = 0) -> AdminCommand:
    """Build Identify, Secondary Controller List (CNS 15h): up to 127 secondaries from ``first`` on.

    Args:
        first: the smallest controller id that is of interest.

    Status to expect:
        Invalid Field in Command: the controller has no Virtualization Management.

    Source: NVM Express Base Specification 2.1, "Secondary Controller list".
    """
    return _identify("Secondary Controller List", Cns.SECONDARY_CTRL_LIST, cntid=first)


def uuid_list() -> AdminCommand:
    """Build Identify, UUID List (CNS 17h): what the UUID indexes of commands stand for.

    Status to expect:
        Invalid Field in Command: the controller has none (CTRATT bit 9).

    Source: NVM Express Base Specification 2.1, "UUID List".
    """
    return _identify("UUID List", Cns.UUID_LIST)


def state_formats() -> AdminCommand:
    """Build Identify, Supported Controller State Formats (CNS 20h).

    Status to expect:
        Invalid Field in Command: this controller does not manage migrations.

    Source: NVM Express Base Specification 2.1, "Supported Controller State Formats data structure". The text on the
    migration flow says CNS 21h; the table, and revision 2.3, say 20h.
    """
    return _identify("Supported Controller State Formats", Cns.SUPPORTED_CTRL_STATE_FORMATS)


def effects_log() -> AdminCommand:
    """Build Get Log Page, Commands Supported and Effects (05h), whole.

    The NSID is FFFFFFFFh, as Linux and nvme-cli send it: the page speaks of the controller, not of a namespace.

    Status to expect:
        Invalid Log Page: the controller does not report effects.

    Source: NVM Express Base Specification 2.1, "Commands Supported and Effects".
    """
    dwords = _EFFECTS_LOG_BYTES // 4 - 1
    return AdminCommand(
        name="Get Log Page (Commands Supported and Effects)",
        opcode=Opcode.GET_LOG_PAGE,
        nsid=ALL_NAMESPACES,
        cdw10=LOG_CDW10.pack(lid=LogId.COMMANDS_SUPPORTED_AND_EFFECTS, numdl=dwords & 0xFFFF),
        cdw11=LOG_CDW11.pack(numdu=dwords >> 16),
        data_in_length=_EFFECTS_LOG_BYTES,
    )


def _identify(what: str, cns: Cns, *, nsid: int = 0, cntid: int = 0, csi: CommandSet = CommandSet.NVM) -> AdminCommand:
    return AdminCommand(
        name=f"Identify ({what})",
        opcode=Opcode.IDENTIFY,
        nsid=NSID.pack(nsid=nsid),
        cdw10=CDW10.pack(cns=cns, cntid=cntid),
        cdw11=CDW11.pack(csi=csi),
        data_in_length=IDENTIFY_BYTES,
    )
