"""The rows behind :mod:`nvmelm.wire.status`: every code a verb of nvmelm can meet, with its cause and its fix.

Texts say what a code means for the commands nvmelm sends. ``{cntlid}`` stands for the controller the command named,
``PF`` for the primary controller, as in the help of the verbs.

Source: NVM Express Base Specification 2.1, "Generic Command Status", "Command Specific Status" and "Path Related
Status", and the status tables of the commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nvmelm.wire.opcodes import Opcode


@dataclass(frozen=True, slots=True)
class StatusRow:
    """One status code.

    Attributes:
        code: type in bits 10:8, code in bits 7:0.
        name: the specification's name.
        cause: why a controller answers with it.
        fix: what to type or do next.
        in_command: cause and fix where a command gives the code a meaning of its own, by opcode.
    """

    code: int
    name: str
    cause: str
    fix: str
    in_command: Mapping[int, tuple[str, str]] = field(default_factory=dict)


_SHOW = "nvmelm show PF"
_LIST = "nvmelm secondary list PF"
_AGAIN = "run the verb again"
_REPORT = "run the verb again with --record FILE, and send the recording to the controller's vendor"
_RECOVER = "nvmelm recover"

GENERIC = (
    StatusRow(0x000, "Successful Completion", "the command did what it was asked", "nothing to do"),
    StatusRow(
        0x001,
        "Invalid Command Opcode",
        "the controller does not implement this command",
        f"{_SHOW} lists what it implements; live migration needs a primary controller with HMLMS",
        {
            Opcode.MIGRATION_SEND: (
                "this controller does not manage live migration",
                f"{_SHOW}; send the command to a primary controller with Host Managed Live Migration",
            ),
            Opcode.MIGRATION_RECEIVE: (
                "this controller does not manage live migration",
                f"{_SHOW}; send the command to a primary controller with Host Managed Live Migration",
            ),
            Opcode.VIRTUALIZATION_MANAGEMENT: (
                "this controller has no secondary controllers to manage",
                f"nvmelm list shows the primary controllers; {_SHOW} what each can do",
            ),
        },
    ),
    StatusRow(
        0x002,
        "Invalid Field in Command",
        "the controller does not take a value in this command, or not in its present state",
        _REPORT,
        {
            Opcode.IDENTIFY: ("the controller does not have this structure", f"{_SHOW} lists what it has"),
            Opcode.MIGRATION_SEND: (
                "controller {cntlid} already has I/O queues, or does not take the state's version, format or size",
                f"{_SHOW} lists the formats; nvmelm secondary offline PF {{cntlid}}, then online, gives a fresh target",
            ),
            Opcode.MIGRATION_RECEIVE: (
                "the controller does not know this version or format of state, or the offset is past its end",
                f"{_SHOW} lists the formats",
            ),
            Opcode.TRACK_SEND: (
                "granularity, number or alignment of the ranges is outside what the controller can track",
                f"{_SHOW} lists the limits of memory tracking",
            ),
            Opcode.CONTROLLER_DATA_QUEUE: (
                "the size is wrong, the controller has a queue already, or there are as many queues as there can be",
                f"{_SHOW} lists the limits; delete the old queue first",
            ),
        },
    ),
    StatusRow(0x003, "Command ID Conflict", "the driver used the number of a command that is still running", _REPORT),
    StatusRow(0x004, "Data Transfer Error", "data or metadata of the command could not be moved", _AGAIN),
    StatusRow(0x005, "Commands Aborted due to Power Loss Notification", "the host announced a power loss", _RECOVER),
    StatusRow(
        0x006,
        "Internal Error",
        "the controller failed to do it and does not say why",
        f"{_AGAIN}; if it stays, nvme error-log on the primary controller may say more",
    ),
    StatusRow(0x007, "Command Abort Requested", "somebody aborted the command", _AGAIN),
    StatusRow(0x008, "Command Aborted due to SQ Deletion", "the queue of the command was deleted under it", _RECOVER),
    StatusRow(
        0x00B,
        "Invalid Namespace or Format",
        "no such namespace, or it is formatted in a way the command cannot handle",
        f"{_SHOW} lists the namespaces",
    ),
    StatusRow(
        0x00C,
        "Command Sequence Error",
        "a part of the state arrived without its beginning, or controller {cntlid} was resumed before its end",
        "nvmelm state restore PF {cntlid} FILE sends the whole state again",
    ),
    StatusRow(
        0x012, "Invalid Use of Controller Memory Buffer", "the command's data may not be in controller memory", _REPORT
    ),
    StatusRow(0x013, "PRP Offset Invalid", "the memory of the command is not aligned to a page", _REPORT),
    StatusRow(0x015, "Operation Denied", "the controller is not allowed to do this now", f"{_SHOW}; ask who locked it"),
    StatusRow(
        0x01C, "Sanitize Failed", "an earlier sanitize failed and must be repeated first", "nvme sanitize, then again"
    ),
    StatusRow(
        0x01D,
        "Sanitize In Progress",
        "the media is being sanitized; migration, tracking and data queue commands wait for that",
        "nvme sanitize-log shows when it is done; then run the verb again",
    ),
    StatusRow(0x01F, "Command Not Supported for Queue in CMB", "the admin queue is in controller memory", _REPORT),
    StatusRow(0x020, "Namespace is Write Protected", "the namespace does not take writes", "nvme get-feature -f 0x84"),
    StatusRow(0x021, "Command Interrupted", "the controller stopped the command for work of its own", _AGAIN),
    StatusRow(0x022, "Transient Transport Error", "the transport failed for a moment", _AGAIN),
    StatusRow(
        0x023,
        "Command Prohibited by Command and Feature Lockdown",
        "an operator locked this command on the controller",
        "ask who locked it; nvme lockdown undoes it",
    ),
    StatusRow(
        0x024, "Admin Command Media Not Ready", "the media is not ready for admin commands yet", f"wait, then {_AGAIN}"
    ),
    StatusRow(0x080, "LBA Out of Range", "the command names a block behind the end of the namespace", _REPORT),
    StatusRow(0x082, "Namespace Not Ready", "the namespace cannot be reached for now", f"wait, then {_AGAIN}"),
    StatusRow(
        0x083, "Reservation Conflict", "another host holds a reservation on the namespace", "nvme resv-report names it"
    ),
    StatusRow(0x084, "Format In Progress", "a namespace is being formatted", f"wait, then {_AGAIN}"),
)

COMMAND_SPECIFIC = (
    StatusRow(0x100, "Completion Queue Invalid", "the command names a completion queue that is not there", _REPORT),
    StatusRow(0x101, "Invalid Queue Identifier", "the command names a queue that is not there", _REPORT),
    StatusRow(0x102, "Invalid Queue Size", "the controller has no queues of that size", _REPORT),
    StatusRow(
        0x105, "Asynchronous Event Request Limit Exceeded", "more event requests than the controller holds", _REPORT
    ),
    StatusRow(0x108, "Invalid Interrupt Vector", "the controller has no such interrupt vector", _REPORT),
    StatusRow(0x109, "Invalid Log Page", "the controller does not have this log page", f"{_SHOW} does without it"),
    StatusRow(
        0x10D, "Feature Identifier Not Saveable", "the feature is lost with every reset and cannot be saved", _REPORT
    ),
    StatusRow(0x10E, "Feature Not Changeable", "the controller fixes the value of this feature", f"{_SHOW}"),
    StatusRow(
        0x10F, "Feature Not Namespace Specific", "the feature belongs to the controller, not to a namespace", _REPORT
    ),
    StatusRow(
        0x118,
        "Namespace Already Attached",
        "the namespace is attached to one of the controllers already",
        "nvme list-ctrl shows which; leave it out",
    ),
    StatusRow(
        0x119,
        "Namespace Is Private",
        "the namespace belongs to one controller at a time, and another has it",
        "nvme detach-ns it there first, or create the namespace as a shared one",
    ),
    StatusRow(
        0x11A,
        "Namespace Not Attached",
        "the namespace is not attached to one of the controllers",
        "nvme list-ctrl shows which are",
    ),
    StatusRow(0x11C, "Controller List Invalid", "one of the controllers does not exist", f"{_LIST} shows which do"),
    StatusRow(
        0x11F,
        "Invalid Controller Identifier",
        "controller {cntlid} is not one this primary controller can do that to",
        f"{_LIST} shows its secondary controllers",
        {
            Opcode.VIRTUALIZATION_MANAGEMENT: (
                "controller {cntlid} is not a secondary controller of this primary",
                f"{_LIST} shows which are",
            ),
            Opcode.MIGRATION_SEND: (
                "controller {cntlid} does not exist, cannot be migrated, or is neither suspended nor offline",
                f"{_LIST} shows them; nvmelm state suspend PF {{cntlid}} before its state is set",
            ),
            Opcode.TRACK_SEND: (
                "controller {cntlid} is this primary controller itself, or is tracked already",
                f"{_LIST}; stop the other tracking first",
            ),
            Opcode.TRACK_RECEIVE: (
                "controller {cntlid} is not being tracked by this primary controller",
                f"{_LIST}; a reset of the primary controller ends all tracking, so start the migration again",
            ),
        },
    ),
    StatusRow(
        0x120,
        "Invalid Secondary Controller State",
        "controller {cntlid} is online and must be offline to be given resources; or, to go online, it has fewer than "
        "2 VQ or 1 VI resources, or its VF is not enabled",
        f"{_LIST} shows which; nvmelm secondary offline PF {{cntlid}}, or nvmelm sriov enable PF --vfs N",
    ),
    StatusRow(
        0x121,
        "Invalid Number of Controller Resources",
        "more resources than one controller can get",
        f"{_SHOW} lists the most that one secondary controller may have",
    ),
    StatusRow(
        0x122,
        "Invalid Resource Identifier",
        "the controller does not share out this type of resource, or has fewer of it free",
        f"{_SHOW} lists what is free; nvmelm secondary offline PF CNTLID gives the resources of another back",
    ),
    StatusRow(
        0x125, "ANA Attach Failed", "the namespace's access state does not let a controller be attached now", _AGAIN
    ),
    StatusRow(
        0x127,
        "Namespace Attachment Limit Exceeded",
        "the controller, or its domain, has as many namespaces attached as it can",
        "nvme detach-ns one first",
    ),
    StatusRow(
        0x137,
        "Invalid Controller Data Queue",
        "no such queue; it goes with a reset of the primary controller, or its controller is logged already",
        "start the migration again",
        {
            Opcode.MIGRATION_RECEIVE: (
                "controller {cntlid} is not one that can be migrated (some devices answer so instead of 1h/1Fh)",
                f"{_LIST} shows its secondary controllers",
            ),
        },
    ),
    StatusRow(
        0x138,
        "Not Enough Resources",
        "the controller has no room for this",
        f"{_SHOW} lists its limits; end another migration first",
        {
            Opcode.TRACK_SEND: (
                "the controller cannot track so many ranges of memory, or not so finely",
                f"{_SHOW} lists its limits; ask for larger units or fewer ranges",
            ),
        },
    ),
    StatusRow(
        0x139,
        "Controller Suspended",
        "controller {cntlid} is suspended, and this is possible only while it runs",
        "nvmelm state resume PF {cntlid}",
    ),
    StatusRow(
        0x13A,
        "Controller Not Suspended",
        "controller {cntlid} is running; it was never suspended, was resumed, or a reset ended the suspension",
        f"{_LIST} shows its state; nvmelm state suspend PF {{cntlid}} suspends it",
        {
            Opcode.MIGRATION_SEND: (
                "controller {cntlid} is running, so there is nothing to resume; a reset may have ended the suspension",
                f"{_LIST} shows its state; a state that was set before a reset is lost: restore it again",
            ),
        },
    ),
    StatusRow(
        0x13B,
        "Controller Data Queue Full",
        "the queue is full of changes that nobody read",
        "read the queue, or start the migration again with a larger one",
    ),
)

PATH = (
    StatusRow(0x300, "Internal Path Error", "the controller cannot reach the namespace now", _AGAIN),
    StatusRow(0x301, "Asymmetric Access Persistent Loss", "the controller lost this namespace for good", f"{_SHOW}"),
    StatusRow(
        0x302, "Asymmetric Access Inaccessible", "the controller cannot reach the namespace now", "use another path"
    ),
    StatusRow(0x303, "Asymmetric Access Transition", "access to the namespace is changing", f"wait, then {_AGAIN}"),
    StatusRow(0x360, "Controller Pathing Error", "the controller failed on the way to the media", _AGAIN),
    StatusRow(
        0x370,
        "Host Pathing Error",
        "the driver gave up on the path to the controller; the controller may never have seen the command",
        f"dmesg says why; {_RECOVER}",
    ),
    StatusRow(
        0x371,
        "Command Aborted By Host",
        "the driver ended the command, as it does when it resets the controller; a reset of a primary controller "
        "takes its secondary controllers offline",
        f"dmesg says why; {_LIST} shows what is left, then {_RECOVER}",
    ),
)

ROWS = GENERIC + COMMAND_SPECIFIC + PATH
