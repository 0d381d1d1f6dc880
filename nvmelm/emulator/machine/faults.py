"""Faults on demand: what is to go wrong, and at which command or write.

A fault is one line of text, ``WHERE[#N][*TIMES]=ACTION[:VALUE]``, and is kept in the host's state until it has struck:

* ``WHERE`` is ``admin`` (any command), ``admin/0x41`` (an opcode), ``admin/0x41/2`` (an opcode and its CDW10 7:0, the
  Select or CNS), or ``sysfs/GLOB`` (a write to a matching path, ``sysfs/*/sriov_numvfs``; ``*`` crosses slashes);
* ``#N`` is the N-th match from now on, 1 when left out; ``*TIMES`` lets it strike so many matches in a row;
* ``ACTION`` is one of

====================  ================================================================================================
``status:V``          the command completes with status V and has no effect
``delay:MS``          the command, or write, takes that many milliseconds more; past its timeout, it is ``lose``
``lose``              the command takes effect, its completion is lost: the driver times out and resets the primary
``reset``             the primary was reset just before the command
``vanish``            the device is gone from the bus
``nonsense:KIND``     the command succeeds and its data is wrong: ``zeros``, ``ones``, ``noise``, ``counts`` (impossible
                      counts), ``states`` (undefined states), ``huge`` (sizes of 2^128 - 1), ``endless`` (full lists
                      for ever)
``errno:NAME``        the kernel refuses the command or the write, ``errno:EBUSY``
``silent``            a write succeeds and does nothing
``crash-before``      the process dies just before it takes effect; ``raise-before`` raises EmulatedCrash instead
``crash-after``       the process dies just after it took effect; ``raise-after`` raises EmulatedCrash instead
====================  ================================================================================================
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from fnmatch import fnmatchcase

from nvmelm.emulator.machine.machine import Machine
from nvmelm.emulator.machine.state import Fault, HostState
from nvmelm.errors import UsageError
from nvmelm.host import AdminCommand
from nvmelm.host.local.sysfs import write_refused
from nvmelm.wire.opcodes import Cns, Opcode

Writer = Callable[[str], None]

#: The exit status of a process that a fault killed, that of a SIGKILL.
CRASH_STATUS = 137

_LINE = re.compile(r"(admin|sysfs)(?:/(.+?))?(?:#(\d+))?(?:\*(\d+))?=([a-z-]+)(?::(.+))?")
_NEEDS_VALUE = {"status", "delay", "nonsense", "errno"}
_WITHOUT_VALUE = {"lose", "reset", "vanish", "silent", "crash-before", "crash-after", "raise-before", "raise-after"}
_NONSENSE = {"zeros", "ones", "noise", "counts", "states", "huge", "endless"}


class EmulatedCrash(BaseException):
    """The process would have died here; for tests that live in one process."""


def parse(text: str) -> Fault:
    """Return the fault one line describes.

    Raises:
        UsageError: the line makes no sense.
    """
    match = _LINE.fullmatch(text)
    if match is None:
        raise _bad(text, "it is not WHERE[#N][*TIMES]=ACTION[:VALUE]")
    where, place, number, times, action, value = match.groups()
    opcode, _, select = (place or "").partition("/") if where == "admin" else ("", "", "")
    if action not in _NEEDS_VALUE | _WITHOUT_VALUE or (action in _NEEDS_VALUE) != bool(value):
        raise _bad(text, f"there is no action {action!r} like that")
    if where == "sysfs" and action not in {"delay", "errno", "silent"} and not action.startswith(("crash", "raise")):
        raise _bad(text, f"a write cannot end in {action!r}")
    if (action == "nonsense" and value not in _NONSENSE) or (action == "errno" and not hasattr(errno, value)):
        raise _bad(text, f"{value!r} is none of the values of {action}")
    try:
        if action in ("status", "delay"):
            float(int(value, 0) if action == "status" else value)
        return Fault(
            where=where,
            opcode=int(opcode, 0) if opcode else -1,
            select=int(select, 0) if select else -1,
            path=(place or "*") if where == "sysfs" else "",
            skip=int(number or 1) - 1,
            times=int(times or 1),
            action=action,
            value=value or "",
        )
    except ValueError as error:
        raise _bad(text, str(error)) from error


def _bad(text: str, cause: str) -> UsageError:
    return UsageError(f"not a fault: {text!r}", cause=cause, fix="write one such as admin/0x41/2#1=status:0x4006")


def take(machine: Machine, matches: Callable[[Fault], bool], where: str) -> Fault | None:
    """Count an event against every armed fault, and return the first that strikes now."""
    struck: Fault | None = None
    for fault in machine.state["faults"]:
        if fault["where"] != where or not matches(fault):
            continue
        if fault["skip"]:
            fault["skip"] -= 1
        elif struck is None:
            fault["times"] -= 1
            struck = fault.copy()
    if struck is not None:
        machine.state["faults"] = [fault for fault in machine.state["faults"] if fault["times"] > 0]
    return struck


def armed(state: HostState) -> bool:
    """Return whether a fault waits for a command."""
    return any(fault["where"] == "admin" for fault in state["faults"])


def for_command(machine: Machine, command: AdminCommand) -> Fault | None:
    """Return the fault that strikes this command."""

    def matches(fault: Fault) -> bool:
        return fault["opcode"] in (-1, command.opcode) and fault["select"] in (-1, command.cdw10 & 0xFF)

    with machine.change():
        return take(machine, matches, "admin")


def before_write(machine: Machine, path: str, value: str) -> str | None:
    """Let a fault strike a write: raise, wait, or return what is left to do: ``silent``, or a crash after it."""
    with machine.view() as state:
        if not any(fault["where"] == "sysfs" for fault in state["faults"]):
            return None
    with machine.change():
        fault = take(machine, lambda fault: fnmatchcase(path, fault["path"]), "sysfs")
    if fault is None:
        return None
    match fault["action"]:
        case "delay":
            time.sleep(float(fault["value"]) / 1000)
        case "errno":
            number = getattr(errno, fault["value"])
            raise write_refused(path, value, OSError(number, os.strerror(number)))
        case "crash-before" | "raise-before":
            crash(fault["action"])
        case other:
            return other
    return None


def crash(action: str) -> None:
    """End the process as a kill would, or raise in its place."""
    if action.startswith("crash"):
        os._exit(CRASH_STATUS)
    raise EmulatedCrash(action)


def nonsense(kind: str, command: AdminCommand, data: bytes) -> bytes:
    """Return what a broken controller sends in place of its data."""
    from random import Random  # 5 ms of imports that only a test of nonsense needs

    raw = bytearray(data)
    match kind:
        case "zeros":
            return bytes(len(raw))
        case "ones":
            return b"\xff" * len(raw)
        case "noise":
            return Random(command.opcode << 32 | command.cdw10).randbytes(len(raw))  # noqa: S311 - no secret
        case _:
            return _misleading(kind, command, raw)


def _misleading(kind: str, command: AdminCommand, raw: bytearray) -> bytes:
    """Put a value no controller may send into the place that matters for this command."""
    place = (command.opcode, command.cdw10 & 0xFF if command.opcode == Opcode.IDENTIFY else -1)
    match kind, place:
        case "counts", (Opcode.IDENTIFY, Cns.SECONDARY_CTRL_LIST):
            raw[0] = 0xFF
        case "counts", (Opcode.IDENTIFY, Cns.SUPPORTED_CTRL_STATE_FORMATS):
            raw[0:2] = b"\xff\xff"
        case "counts", (Opcode.IDENTIFY, _):
            raw[0:2] = b"\xff\xff"
        case "counts", (Opcode.TRACK_RECEIVE, _):
            raw[4:8] = b"\xff\xff\xff\xff"
        case "counts", (Opcode.MIGRATION_RECEIVE, _):
            raw[50:54] = b"\xff\xff\xff\xff"[: max(0, len(raw) - 50)]
        case "states", (Opcode.IDENTIFY, Cns.SECONDARY_CTRL_LIST):
            for entry in range(min(raw[0], 127)):
                raw[36 + 32 * entry] = 0xFE
        case "states", (Opcode.MIGRATION_RECEIVE, _):
            raw[0:3] = b"\x07\x00\xfe"
        case "huge", (Opcode.MIGRATION_RECEIVE, _):
            raw[16:48] = b"\xff" * max(0, min(32, len(raw) - 16))
        case "endless", (Opcode.IDENTIFY, Cns.SECONDARY_CTRL_LIST):
            raw[:] = bytes([127]).ljust(32, b"\0") + bytes(range(32)) * 127
        case "endless", (Opcode.IDENTIFY, _):
            raw[:] = b"\xff\x07" + b"\x01\x00" * 2047
        case _:
            return b"\xff" * len(raw)
    return bytes(raw)
