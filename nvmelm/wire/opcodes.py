"""The numbers commands are made of: opcodes, Identify selectors, feature and log identifiers, Select fields.

Values a device sends are never forced into these enumerations: an unknown one stays the integer it is.

Sources: NVM Express Base Specification 2.1, "Admin Command Set" and the sections of the commands named below;
NVM Command Set Specification 1.2, "I/O Commands".
"""

from __future__ import annotations

from enum import IntEnum

#: The NSID that means all namespaces, and in Get Log Page the controller itself.
ALL_NAMESPACES = 0xFFFF_FFFF

#: Every Identify data structure is one page, and the controller always returns all of it.
IDENTIFY_BYTES = 4096


class Opcode(IntEnum):
    """Admin commands."""

    DELETE_IO_SUBMISSION_QUEUE = 0x00
    CREATE_IO_SUBMISSION_QUEUE = 0x01
    GET_LOG_PAGE = 0x02
    DELETE_IO_COMPLETION_QUEUE = 0x04
    CREATE_IO_COMPLETION_QUEUE = 0x05
    IDENTIFY = 0x06
    ABORT = 0x08
    SET_FEATURES = 0x09
    GET_FEATURES = 0x0A
    ASYNCHRONOUS_EVENT_REQUEST = 0x0C
    NAMESPACE_MANAGEMENT = 0x0D
    NAMESPACE_ATTACHMENT = 0x15
    VIRTUALIZATION_MANAGEMENT = 0x1C
    TRACK_SEND = 0x3D
    TRACK_RECEIVE = 0x3E
    MIGRATION_SEND = 0x41
    MIGRATION_RECEIVE = 0x42
    CONTROLLER_DATA_QUEUE = 0x45
    DOORBELL_BUFFER_CONFIG = 0x7C
    FORMAT_NVM = 0x80


class IoOpcode(IntEnum):
    """I/O commands of the NVM command set."""

    FLUSH = 0x00
    WRITE = 0x01
    READ = 0x02
    WRITE_UNCORRECTABLE = 0x04
    COMPARE = 0x05
    WRITE_ZEROES = 0x08
    DATASET_MANAGEMENT = 0x09


class Cns(IntEnum):
    """Controller or Namespace Structure: what Identify returns."""

    IDENTIFY_NS = 0x00
    IDENTIFY_CTRL = 0x01
    ACTIVE_NS_LIST = 0x02
    NS_ID_DESCRIPTORS = 0x03
    CSI_IDENTIFY_CTRL = 0x06
    ALLOCATED_NS_LIST = 0x10
    ALLOCATED_NS = 0x11
    NS_ATTACHED_CTRL_LIST = 0x12
    CTRL_LIST = 0x13
    PRIMARY_CTRL_CAP = 0x14
    SECONDARY_CTRL_LIST = 0x15
    UUID_LIST = 0x17
    SUPPORTED_CTRL_STATE_FORMATS = 0x20


class CommandSet(IntEnum):
    """Command Set Identifier (CSI)."""

    NVM = 0x00


class FeatureId(IntEnum):
    """Feature identifiers of Get Features and Set Features."""

    CONTROLLER_DATA_QUEUE = 0x21


class FeatureSelect(IntEnum):
    """Which value Get Features returns."""

    CURRENT = 0
    DEFAULT = 1
    SAVED = 2
    SUPPORTED_CAPABILITIES = 3


class LogId(IntEnum):
    """Log pages."""

    COMMANDS_SUPPORTED_AND_EFFECTS = 0x05


class AttachmentSelect(IntEnum):
    """Namespace Attachment, Select."""

    CONTROLLER_ATTACH = 0
    CONTROLLER_DETACH = 1


class VirtualizationAction(IntEnum):
    """Virtualization Management, Action."""

    PRIMARY_FLEXIBLE_ALLOCATION = 1
    SECONDARY_OFFLINE = 7
    SECONDARY_ASSIGN = 8
    SECONDARY_ONLINE = 9


class ResourceType(IntEnum):
    """Controller resources: virtual queues (queue pairs) and virtual interrupts (MSI-X vectors)."""

    VQ = 0
    VI = 1


class MigrationSendSelect(IntEnum):
    """Migration Send, Select."""

    SUSPEND = 0
    RESUME = 1
    SET_CONTROLLER_STATE = 2


class SuspendType(IntEnum):
    """Migration Send (Suspend), Suspend Type."""

    SUSPEND_NOTIFICATION = 0
    SUSPEND = 1


class Sequence(IntEnum):
    """Migration Send (Set Controller State), Sequence Indicator: which part of the structure a command carries."""

    MIDDLE = 0b00
    FIRST = 0b01
    LAST = 0b10
    ONLY = 0b11


class MigrationReceiveSelect(IntEnum):
    """Migration Receive, Select."""

    GET_CONTROLLER_STATE = 0


class TrackSendSelect(IntEnum):
    """Track Send, Select."""

    LOG_USER_DATA_CHANGES = 0
    TRACK_MEMORY_CHANGES = 1


class TrackAction(IntEnum):
    """Track Send: the logging action (LACT) and the tracking action (TACT) have the same values."""

    STOP = 0
    START = 1


class TrackReceiveSelect(IntEnum):
    """Track Receive, Select."""

    TRACKED_MEMORY_CHANGES = 0


class DataQueueSelect(IntEnum):
    """Controller Data Queue, Select."""

    CREATE = 0
    DELETE = 1


class DataQueueType(IntEnum):
    """Controller Data Queue (Create), Queue Type."""

    USER_DATA_MIGRATION_QUEUE = 0
