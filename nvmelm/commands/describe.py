"""Say in a short sentence what the words of a command mean: for dry runs, and to check what recordings claim.

Everything is read from opcode and words, nothing from the command's name, so the sentence can be held against the
name. Any words at all give a sentence; what has no name is shown as a number.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from nvmelm.commands import data_queue, identify, migration, namespace, tracking, virtualization
from nvmelm.host import AdminCommand
from nvmelm.wire.opcodes import (
    ALL_NAMESPACES,
    AttachmentSelect,
    Cns,
    DataQueueSelect,
    FeatureId,
    LogId,
    MigrationReceiveSelect,
    MigrationSendSelect,
    Opcode,
    ResourceType,
    Sequence,
    SuspendType,
    TrackReceiveSelect,
    TrackSendSelect,
    VirtualizationAction,
)

_STRUCTURES = {
    Cns.IDENTIFY_NS: "Identify Namespace",
    Cns.IDENTIFY_CTRL: "Identify Controller",
    Cns.ACTIVE_NS_LIST: "Active Namespace ID list",
    Cns.CSI_IDENTIFY_CTRL: "I/O Command Set specific Identify Controller",
    Cns.ALLOCATED_NS_LIST: "Allocated Namespace ID list",
    Cns.ALLOCATED_NS: "Identify Namespace, allocated",
    Cns.NS_ATTACHED_CTRL_LIST: "Namespace Attached Controller list",
    Cns.CTRL_LIST: "Controller list",
    Cns.PRIMARY_CTRL_CAP: "Primary Controller Capabilities",
    Cns.SECONDARY_CTRL_LIST: "Secondary Controller List",
    Cns.UUID_LIST: "UUID List",
    Cns.SUPPORTED_CTRL_STATE_FORMATS: "Supported Controller State Formats",
}
_LISTS_FROM_A_CONTROLLER = (Cns.NS_ATTACHED_CTRL_LIST, Cns.CTRL_LIST, Cns.SECONDARY_CTRL_LIST)
_PARTS = {
    Sequence.ONLY: "entire structure",
    Sequence.FIRST: "first part",
    Sequence.MIDDLE: "middle part",
    Sequence.LAST: "last part",
}


def describe(command: AdminCommand) -> str:
    """Return one short sentence, ``Virtualization Management: Secondary Online, controller 0x0001``."""
    known = _DESCRIBERS.get(command.opcode)
    if known is None:
        words = " ".join(f"{word:08x}" for word in command.words)
        return f"Admin command {command.opcode:02X}h: namespace 0x{command.nsid:x}, words {words}"
    name, tell = known
    return f"{name}: {', '.join(part for part in tell(command) if part)}"


def target_controller(command: AdminCommand) -> int | None:
    """Return the controller that a command names and acts on, None when it names none."""
    if command.opcode == Opcode.VIRTUALIZATION_MANAGEMENT:
        return virtualization.CDW10.unpack(command.cdw10)["cntlid"]
    if command.opcode == Opcode.TRACK_SEND:
        select = tracking.SEND_CDW10.unpack(command.cdw10)["sel"]
        return command.cdw11 & 0xFFFF if select == TrackSendSelect.TRACK_MEMORY_CHANGES else None
    if command.opcode == Opcode.CONTROLLER_DATA_QUEUE:
        select = data_queue.CREATE_CDW10.unpack(command.cdw10)["sel"]
        return command.cdw11 >> 16 & 0xFFFF if select == DataQueueSelect.CREATE else None
    if command.opcode in (Opcode.MIGRATION_SEND, Opcode.MIGRATION_RECEIVE, Opcode.TRACK_RECEIVE):
        return command.cdw11 & 0xFFFF
    return None


def _identify(command: AdminCommand) -> list[str]:
    word = identify.CDW10.unpack(command.cdw10)
    cns, cntid = word["cns"], word["cntid"]
    parts = [_STRUCTURES[Cns(cns)] if cns in _STRUCTURES else f"structure {cns:02X}h"]
    if cns in (Cns.ACTIVE_NS_LIST, Cns.ALLOCATED_NS_LIST):
        parts.append(f"above namespace {command.nsid}" if command.nsid else "")
    elif command.nsid:
        parts.append(_namespace(command.nsid))
    if cntid:
        parts.append(f"from {_controller(cntid)} on" if cns in _LISTS_FROM_A_CONTROLLER else _controller(cntid))
    return parts


def _get_log_page(command: AdminCommand) -> list[str]:
    low, high = identify.LOG_CDW10.unpack(command.cdw10), identify.LOG_CDW11.unpack(command.cdw11)
    size = 4 * ((high["numdu"] << 16 | low["numdl"]) + 1)
    known = low["lid"] == LogId.COMMANDS_SUPPORTED_AND_EFFECTS
    return ["Commands Supported and Effects" if known else f"page {low['lid']:02X}h", f"{size} bytes"]


def _set_features(command: AdminCommand) -> list[str]:
    fid = data_queue.SET_CDW10.unpack(command.cdw10)["fid"]
    if fid != FeatureId.CONTROLLER_DATA_QUEUE:
        return [f"feature {fid:02X}h", f"value 0x{command.cdw11:08x}"]
    word = data_queue.FEATURE_CDW11.unpack(command.cdw11)
    trigger = f"event at slot {command.cdw13}" if word["etpt"] else ""
    return ["Controller Data Queue", f"queue {word['cdqid']}", f"head at slot {command.cdw12}", trigger]


def _get_features(command: AdminCommand) -> list[str]:
    fid = data_queue.GET_CDW10.unpack(command.cdw10)["fid"]
    if fid != FeatureId.CONTROLLER_DATA_QUEUE:
        return [f"feature {fid:02X}h"]
    return ["Controller Data Queue", f"queue {command.cdw11 & 0xFFFF}"]


def _namespace_attachment(command: AdminCommand) -> list[str]:
    select = namespace.CDW10.unpack(command.cdw10)["sel"]
    return [_named(AttachmentSelect, select, "selection"), _namespace(command.nsid)]


def _virtualization(command: AdminCommand) -> list[str]:
    word = virtualization.CDW10.unpack(command.cdw10)
    parts = [_named(VirtualizationAction, word["act"], "action"), _controller(word["cntlid"])]
    if word["act"] in (VirtualizationAction.SECONDARY_ASSIGN, VirtualizationAction.PRIMARY_FLEXIBLE_ALLOCATION):
        count = virtualization.CDW11.unpack(command.cdw11)["nr"]
        kind = ResourceType(word["rt"]).name if word["rt"] in list(ResourceType) else f"type {word['rt']}"
        parts.append(f"{count} {kind} resource{'' if count == 1 else 's'}")
    return parts


def _track_send(command: AdminCommand) -> list[str]:
    word = tracking.SEND_CDW10.unpack(command.cdw10)
    action = {0: "stop", 1: "start"}.get(word["action"], f"action {word['action']}")
    parts = [_named(TrackSendSelect, word["sel"], "selection"), action]
    if word["sel"] == TrackSendSelect.LOG_USER_DATA_CHANGES:
        return [*parts, f"queue {command.cdw11 & 0xFFFF}"]
    return [*parts, _controller(command.cdw11 & 0xFFFF)]


def _track_receive(command: AdminCommand) -> list[str]:
    select = tracking.RECEIVE_CDW10.unpack(command.cdw10)["sel"]
    size = f"{4 * (command.cdw12 + 1)} bytes"
    return [_named(TrackReceiveSelect, select, "selection"), _controller(command.cdw11 & 0xFFFF), size]


def _migration_send(command: AdminCommand) -> list[str]:
    word = migration.SEND_CDW10.unpack(command.cdw10)
    select = word["sel"]
    target = _controller(command.cdw11 & 0xFFFF)
    if select == MigrationSendSelect.SUSPEND:
        suspend = migration.SUSPEND_CDW11.unpack(command.cdw11)
        queue = "delete its User Data Migration Queue" if suspend["dudmq"] else ""
        return [_named(SuspendType, suspend["stype"], "suspend type"), target, queue]
    if select == MigrationSendSelect.SET_CONTROLLER_STATE:
        indexes = migration.SET_CDW11.unpack(command.cdw11)
        part = _PARTS[Sequence(word["seqind"])]
        what = ["Set Controller State", target, part, _bytes_at(command, 4 * command.cdw15)]
        return [*what, *_indexes(indexes["csvi"], indexes["csuuidi"])]
    return [_named(MigrationSendSelect, select, "selection"), target]


def _migration_receive(command: AdminCommand) -> list[str]:
    low, high = migration.RECEIVE_CDW10.unpack(command.cdw10), migration.RECEIVE_CDW11.unpack(command.cdw11)
    what = [_named(MigrationReceiveSelect, low["sel"], "selection"), _controller(high["cntlid"])]
    return [*what, _bytes_at(command, 4 * (command.cdw15 + 1)), *_indexes(low["csvi"], high["csuuidi"])]


def _data_queue(command: AdminCommand) -> list[str]:
    word = data_queue.CREATE_CDW10.unpack(command.cdw10)
    if word["sel"] == DataQueueSelect.CREATE:
        target = data_queue.CREATE_CDW11.unpack(command.cdw11)["cqs"]
        kind = "User Data Migration Queue" if word["qt"] == 0 else f"queue of type {word['qt']:02X}h"
        return [f"Create {kind}", _controller(target), f"{4 * command.cdw12} bytes"]
    return [_named(DataQueueSelect, word["sel"], "selection"), f"queue {command.cdw11 & 0xFFFF}"]


def _named(kind: type[IntEnum], value: int, what: str) -> str:
    return kind(value).name.replace("_", " ").title() if value in list(kind) else f"{what} {value:X}h"


def _controller(cntlid: int) -> str:
    return f"controller 0x{cntlid:04x}"


def _namespace(nsid: int) -> str:
    return "all namespaces" if nsid == ALL_NAMESPACES else f"namespace {nsid}"


def _bytes_at(command: AdminCommand, size: int) -> str:
    return f"{size} bytes at offset {command.cdw13 << 32 | command.cdw12}"


def _indexes(version: int, uuid: int) -> list[str]:
    return [
        f"version index {version}" if version else "without an NVMe part",
        f"UUID index {uuid}" if uuid else "",
    ]


_DESCRIBERS: dict[int, tuple[str, Callable[[AdminCommand], list[str]]]] = {
    Opcode.GET_LOG_PAGE: ("Get Log Page", _get_log_page),
    Opcode.IDENTIFY: ("Identify", _identify),
    Opcode.SET_FEATURES: ("Set Features", _set_features),
    Opcode.GET_FEATURES: ("Get Features", _get_features),
    Opcode.NAMESPACE_ATTACHMENT: ("Namespace Attachment", _namespace_attachment),
    Opcode.VIRTUALIZATION_MANAGEMENT: ("Virtualization Management", _virtualization),
    Opcode.TRACK_SEND: ("Track Send", _track_send),
    Opcode.TRACK_RECEIVE: ("Track Receive", _track_receive),
    Opcode.MIGRATION_SEND: ("Migration Send", _migration_send),
    Opcode.MIGRATION_RECEIVE: ("Migration Receive", _migration_receive),
    Opcode.CONTROLLER_DATA_QUEUE: ("Controller Data Queue", _data_queue),
}
