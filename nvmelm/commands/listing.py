"""Read lists that are longer than one answer, to the end, and never longer than a list can be.

A list is believed only while its ids ascend from the one that was asked for. So every answer moves on, and no device
can keep a verb in a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from nvmelm.commands import execute, identify
from nvmelm.errors import MalformedError
from nvmelm.host import AdminCommand, AdminQueue
from nvmelm.wire.identify import (
    MAX_CONTROLLERS_PER_LIST,
    MAX_NAMESPACES_PER_LIST,
    MAX_SECONDARIES_PER_LIST,
    SecondaryControllerEntry,
    parse_controller_list,
    parse_namespace_list,
    parse_secondary_list,
)

_Item = TypeVar("_Item")

_LARGEST_CNTLID = 0xFFFF

#: Far above what any subsystem has, and a bound on what a device that makes up namespaces can make us read.
MAX_NAMESPACES = 65536


def all_controllers(queue: AdminQueue, first: int = 0) -> list[int]:
    """Return the ids of the subsystem's controllers, ascending, from ``first`` on.

    Raises:
        AdminCommandError: the controller refused.
        MalformedError: the lists contradict themselves.
    """
    return _read(queue, identify.controllers, parse_controller_list, _itself, first, MAX_CONTROLLERS_PER_LIST)


def all_attached_controllers(queue: AdminQueue, nsid: int, first: int = 0) -> list[int]:
    """Return the ids of the controllers a namespace is attached to, ascending, from ``first`` on.

    Raises:
        AdminCommandError: the controller refused; there may be no such namespace.
        MalformedError: the lists contradict themselves.
    """

    def build(cntid: int) -> AdminCommand:
        return identify.attached_controllers(nsid, cntid)

    return _read(queue, build, parse_controller_list, _itself, first, MAX_CONTROLLERS_PER_LIST)


def all_secondaries(queue: AdminQueue, first: int = 0) -> list[SecondaryControllerEntry]:
    """Return the secondary controllers of the primary, ascending by id, from ``first`` on.

    Raises:
        AdminCommandError: the controller refused.
        MalformedError: the lists contradict themselves.
    """
    build, limit = identify.secondary_controllers, MAX_SECONDARIES_PER_LIST
    return _read(queue, build, parse_secondary_list, lambda entry: entry.scid, first, limit)


def all_active_namespaces(queue: AdminQueue) -> list[int]:
    """Return the ids of the namespaces attached to the controller, ascending.

    Raises:
        AdminCommandError: the controller refused.
        MalformedError: the lists contradict themselves, or name more than 65536 namespaces.
    """
    return _namespaces(queue, identify.active_namespaces, "Active Namespace ID list")


def all_allocated_namespaces(queue: AdminQueue) -> list[int]:
    """Return the ids of the subsystem's namespaces, attached to a controller or not, ascending.

    Raises:
        AdminCommandError: the controller refused; it may have no namespace management.
        MalformedError: the lists contradict themselves, or name more than 65536 namespaces.
    """
    return _namespaces(queue, identify.allocated_namespaces, "Allocated Namespace ID list")


def _namespaces(queue: AdminQueue, build: Callable[[int], AdminCommand], name: str) -> list[int]:
    listed: list[int] = []
    while True:
        above = listed[-1] if listed else 0
        answer = execute(queue, build(above))
        page = parse_namespace_list(answer.data)
        _check_ascending(page, above + 1, name)
        listed += page
        if len(listed) > MAX_NAMESPACES:
            raise _nonsense(name, f"it names more than {MAX_NAMESPACES} namespaces")
        # The command cannot ask above FFFFFFFDh, and there is no namespace beyond FFFFFFFEh.
        if len(page) < MAX_NAMESPACES_PER_LIST or page[-1] >= 0xFFFF_FFFE:
            return listed


def _read(
    queue: AdminQueue,
    build: Callable[[int], AdminCommand],
    parse: Callable[[bytes], list[_Item]],
    identifier: Callable[[_Item], int],
    first: int,
    page_size: int,
) -> list[_Item]:
    items: list[_Item] = []
    while True:
        command = build(first)
        page = parse(execute(queue, command).data)
        ids = [identifier(item) for item in page]
        _check_ascending(ids, first, command.name)
        items += page
        if len(page) < page_size or ids[-1] == _LARGEST_CNTLID:
            return items
        first = ids[-1] + 1


def _itself(cntlid: int) -> int:
    return cntlid


def _check_ascending(ids: Sequence[int], first: int, name: str) -> None:
    for number, cntlid in enumerate(ids):
        least = ids[number - 1] + 1 if number else first
        if cntlid < least:
            raise _nonsense(name, f"id 0x{cntlid:x} stands where 0x{least:x} is the least possible")


def _nonsense(name: str, cause: str) -> MalformedError:
    fix = "run the verb with --record FILE, and send the recording to the controller's vendor"
    return MalformedError(f"the answer to {name} makes no sense", cause=cause, fix=fix)
