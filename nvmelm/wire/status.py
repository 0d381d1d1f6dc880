"""The status of a completed command: what the code means, why it came, and what to type next.

A status is the number the kernel returns for a passthrough command: the completion's status field without the phase
bit::

    14    13   12:11  10:8          7:0
    DNR   M    CRD    SCT type      SC code

Only type and code (``value & 0x7FF``) name the reason. People write it ``1h/3Ah``.

Sources: NVM Express Base Specification 2.1, "Status Field" and "Status Code"; for codes made by the driver, Linux
``include/linux/nvme.h``.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from nvmelm.errors import UsageError

if TYPE_CHECKING:  # most commands succeed, and their status needs no words
    from nvmelm.wire.status_table import StatusRow


_CODE_MASK = 0x7FF
_LARGEST = 0x7FFF

_UNKNOWN_CAUSE = "nvmelm does not know this code; it is the vendor's, or of a later specification"
_UNKNOWN_FIX = "look it up in the controller's manual; nvmelm show PF names model and firmware"


class StatusCode(IntEnum):
    """Codes that programs compare :attr:`Status.code` with; each has a row in the table."""

    SUCCESS = 0x000
    INVALID_OPCODE = 0x001
    INVALID_FIELD = 0x002
    DATA_TRANSFER_ERROR = 0x004
    INTERNAL_ERROR = 0x006
    ABORT_REQUESTED = 0x007
    INVALID_NAMESPACE_OR_FORMAT = 0x00B
    COMMAND_SEQUENCE_ERROR = 0x00C
    PRP_OFFSET_INVALID = 0x013
    SANITIZE_IN_PROGRESS = 0x01D
    COMMAND_INTERRUPTED = 0x021
    INVALID_LOG_PAGE = 0x109
    FEATURE_NOT_SAVEABLE = 0x10D
    FEATURE_NOT_CHANGEABLE = 0x10E
    NAMESPACE_ALREADY_ATTACHED = 0x118
    NAMESPACE_IS_PRIVATE = 0x119
    NAMESPACE_NOT_ATTACHED = 0x11A
    CONTROLLER_LIST_INVALID = 0x11C
    INVALID_CONTROLLER_IDENTIFIER = 0x11F
    INVALID_SECONDARY_CONTROLLER_STATE = 0x120
    INVALID_NUMBER_OF_CONTROLLER_RESOURCES = 0x121
    INVALID_RESOURCE_IDENTIFIER = 0x122
    INVALID_CONTROLLER_DATA_QUEUE = 0x137
    NOT_ENOUGH_RESOURCES = 0x138
    CONTROLLER_SUSPENDED = 0x139
    CONTROLLER_NOT_SUSPENDED = 0x13A
    CONTROLLER_DATA_QUEUE_FULL = 0x13B
    HOST_PATHING_ERROR = 0x370
    COMMAND_ABORTED_BY_HOST = 0x371


@cache
def _rows() -> dict[int, StatusRow]:
    """Return the table by code; it is built when a status has to be put in words."""
    from nvmelm.wire.status_table import ROWS

    return {row.code: row for row in ROWS}


class Status(NamedTuple):
    """One status, known or not.

    Args:
        value: 0 to 7FFFh, as the kernel returns it.
    """

    value: int

    @property
    def sc(self) -> int:
        """Return the status code, 0 to FFh."""
        return self.value & 0xFF

    @property
    def sct(self) -> int:
        """Return the status code type: 0 generic, 1 command specific, 2 media, 3 path, 7 vendor."""
        return self.value >> 8 & 0b111

    @property
    def crd(self) -> int:
        """Return which of the controller's Command Retry Delay Times to wait before a retry; 0: none."""
        return self.value >> 11 & 0b11

    @property
    def more(self) -> bool:
        """Return whether the error log has more about it."""
        return bool(self.value >> 13 & 1)

    @property
    def dnr(self) -> bool:
        """Return Do Not Retry: the same command will fail again."""
        return bool(self.value >> 14 & 1)

    @property
    def code(self) -> int:
        """Return type and code together: what names the reason."""
        return self.value & _CODE_MASK

    @property
    def ok(self) -> bool:
        """Return whether the command succeeded."""
        return self.code == 0

    @property
    def known(self) -> bool:
        """Return whether the table has the code."""
        return self.code in _rows()

    @property
    def by_driver(self) -> bool:
        """Return whether the driver made the status; the controller never completed the command."""
        return self.code in (StatusCode.HOST_PATHING_ERROR, StatusCode.COMMAND_ABORTED_BY_HOST)

    @property
    def text(self) -> str:
        """Return the code as people write it, ``1h/3Ah``."""
        return f"{self.sct:X}h/{self.sc:02X}h"

    @property
    def name(self) -> str:
        """Return the specification's name, or the code when the table has none."""
        return _rows()[self.code].name if self.known else f"status {self.text}"

    @property
    def reason(self) -> str:
        """Return a stable word for programs, ``controller-not-suspended``."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def cause(self) -> str:
        """Return why a controller says this, in one clause."""
        return self.explain()[0]

    @property
    def fix(self) -> str:
        """Return what to type or do next, in one clause."""
        return self.explain()[1]

    def explain(self, *, cntlid: int | None = None, opcode: int | None = None) -> tuple[str, str]:
        """Return cause and fix for one failed command.

        Args:
            cntlid: the controller the command named; ``CNTLID`` stands in the text without it.
            opcode: the command, for codes that mean different things in different commands.
        """
        row = _rows().get(self.code)
        if row is None:
            return _UNKNOWN_CAUSE, _UNKNOWN_FIX
        cause, fix = row.in_command.get(-1 if opcode is None else opcode, (row.cause, row.fix))
        who = "CNTLID" if cntlid is None else f"0x{cntlid:04x}"
        return cause.replace("{cntlid}", who), fix.replace("{cntlid}", who)

    def __str__(self) -> str:
        return f"{self.name} ({self.text})" if self.known else self.name


def lookup(text: str) -> Status:
    """Return the status a person means: ``1h/3Ah``, ``1/3A``, ``0x13a``, ``0x413a``, ``13Ah``, ``314`` or a name.

    Names are compared without regard to case, and so are the words of :attr:`Status.reason`; type and code are
    hexadecimal in ``a/b``, and any other number is hexadecimal with ``0x`` or ``h``, or when only that is possible.

    Raises:
        UsageError: it is none of these.
    """
    wanted = _plain(text)
    for row in _rows().values():
        if wanted in (_plain(row.name), _plain(row.name.partition(" in Command")[0])):
            return Status(row.code)
    for code in StatusCode:
        if wanted == _plain(code.name):
            return Status(code)
    value = _number(text.strip().lower())
    if value is None or not 0 <= value <= _LARGEST:
        message = f"{text!r} is no NVMe status"
        raise UsageError(message, cause="a status has 15 bits, and a name", fix="nvmelm explain 1h/3Ah")
    return Status(value)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", name.lower()).strip()


def _number(text: str) -> int | None:
    pair = re.fullmatch(r"(?:0x)?([0-7])h?\s*/\s*(?:0x)?([0-9a-f]{1,2})h?", text)
    pair = pair or re.fullmatch(r"status-([0-7])h-([0-9a-f]{2})h", text)  # the word of a code without a name
    if pair:
        return int(pair[1], 16) << 8 | int(pair[2], 16)
    if re.fullmatch(r"[0-9]{1,5}", text):
        return int(text)
    number = re.fullmatch(r"(?:0x)?([0-9a-f]{1,5})h?", text)
    return int(number[1], 16) if number else None
