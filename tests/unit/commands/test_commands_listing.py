"""Lists longer than one answer are read to the end; devices that answer nonsense end in an error, not in a loop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.commands import AdminCommandError
from nvmelm.commands.listing import all_active_namespaces, all_attached_controllers, all_controllers, all_secondaries
from nvmelm.errors import MalformedError
from nvmelm.host import AdminCommand, Completion
from nvmelm.wire.identify import (
    SecondaryControllerEntry,
    build_controller_list,
    build_namespace_list,
    build_secondary_list,
)
from tests.unit import golden


class Subsystem:
    """Answers Identify lists as the specification says."""

    max_transfer_bytes = 4096

    def __init__(self, *, controllers: list[int] | None = None, namespaces: list[int] | None = None) -> None:
        self.controllers = controllers or []
        self.namespaces = namespaces or []
        self.asked: list[AdminCommand] = []

    def submit(self, command: AdminCommand) -> Completion:
        self.asked.append(command)
        assert command.opcode == 0x06
        cns, first = command.cdw10 & 0xFF, command.cdw10 >> 16
        ids = [cntlid for cntlid in self.controllers if cntlid >= first]
        if cns == 0x15:
            entries = [SecondaryControllerEntry.pack(scid=cntlid) for cntlid in ids[:127]]
            return Completion(0, 0, build_secondary_list(entries))
        if cns == 0x02:
            above = [nsid for nsid in self.namespaces if nsid > command.nsid]
            return Completion(0, 0, build_namespace_list(above[:1024]))
        assert cns in (0x12, 0x13)
        return Completion(0, 0, build_controller_list(ids[:2047]))

    def close(self) -> None:
        pass


class Stubborn(Subsystem):
    """Answers every command the same."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.data = data.ljust(4096, b"\0")

    def submit(self, command: AdminCommand) -> Completion:
        self.asked.append(command)
        assert len(self.asked) < 1000, "the list has no end"
        return Completion(0, 0, self.data)


@pytest.mark.parametrize(("count", "answers"), [(0, 1), (1, 1), (126, 1), (127, 2), (128, 2), (254, 3), (300, 3)])
def test_secondaries_are_read_to_the_end(count: int, answers: int) -> None:
    queue = Subsystem(controllers=list(range(1, count + 1)))
    assert [entry.scid for entry in all_secondaries(queue)] == list(range(1, count + 1))
    assert len(queue.asked) == answers


@pytest.mark.parametrize(("count", "answers"), [(0, 1), (2046, 1), (2047, 2), (2048, 2), (5000, 3)])
def test_controllers_are_read_to_the_end(count: int, answers: int) -> None:
    queue = Subsystem(controllers=list(range(count)))
    assert all_controllers(queue) == list(range(count))
    assert len(queue.asked) == answers


@pytest.mark.parametrize(("count", "answers"), [(0, 1), (1023, 1), (1024, 2), (2500, 3)])
def test_namespaces_are_read_to_the_end(count: int, answers: int) -> None:
    queue = Subsystem(namespaces=list(range(1, count + 1)))
    assert all_active_namespaces(queue) == list(range(1, count + 1))
    assert len(queue.asked) == answers


def test_all_65536_controllers_are_read() -> None:
    queue = Subsystem(controllers=list(range(65536)))
    assert len(all_secondaries(queue)) == 65536
    assert all_attached_controllers(queue, 1)[-1] == 65535


def test_a_list_that_ends_with_the_last_possible_id_is_not_asked_on() -> None:
    queue = Subsystem(controllers=list(range(65536 - 127, 65536)))
    assert len(all_secondaries(queue)) == 127
    assert len(queue.asked) == 1
    namespaces = list(range(0xFFFF_FFFE - 1023, 0xFFFF_FFFF))
    spaces = Subsystem(namespaces=namespaces)
    assert all_active_namespaces(spaces) == namespaces
    assert len(spaces.asked) == 1


def test_a_list_may_begin_later() -> None:
    assert [entry.scid for entry in all_secondaries(Subsystem(controllers=[1, 5, 9]), first=5)] == [5, 9]


def test_the_namespace_is_asked_for_every_answer() -> None:
    queue = Subsystem(controllers=list(range(2048)))
    assert len(all_attached_controllers(queue, 7)) == 2048
    assert [(command.nsid, command.cdw10) for command in queue.asked] == [(7, 0x12), (7, 2047 << 16 | 0x12)]


def secondaries(*ids: int) -> bytes:
    return build_secondary_list([SecondaryControllerEntry.pack(scid=scid) for scid in ids])


FULL_PAGE = secondaries(*range(1, 128))

NONSENSE: dict[str, tuple[Callable[..., object], bytes]] = {
    "a device that always gives the first page": (all_secondaries, FULL_PAGE),
    "secondaries that descend": (all_secondaries, secondaries(2, 1)),
    "a secondary twice": (all_secondaries, secondaries(1, 1)),
    "128 secondaries in a list": (all_secondaries, b"\x80"),
    "255 secondaries in a list": (all_secondaries, b"\xff" * 4096),
    "controllers that always begin anew": (all_controllers, build_controller_list(range(2047))),
    "controllers that descend": (all_controllers, build_controller_list([3, 2])),
    "65535 controllers in a list": (all_controllers, b"\xff\xff"),
    "namespaces that always begin anew": (all_active_namespaces, build_namespace_list(range(1, 1025))),
    "a namespace twice": (all_active_namespaces, build_namespace_list([4, 4])),
    "namespaces FFFFFFFFh": (all_active_namespaces, b"\xff" * 4096),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_ends_in_an_error(name: str) -> None:
    read, data = NONSENSE[name]
    with pytest.raises(MalformedError):
        read(Stubborn(data))


def test_an_id_below_the_one_that_was_asked_for_is_nonsense() -> None:
    with pytest.raises(MalformedError) as caught:
        all_secondaries(Stubborn(secondaries(1, 2)), first=2)
    assert "id 0x1 stands where 0x2 is the least possible" in caught.value.cause


def test_namespaces_without_end_are_cut_off() -> None:
    class _Endless(Subsystem):
        def submit(self, command: AdminCommand) -> Completion:
            self.asked.append(command)
            return Completion(0, 0, build_namespace_list(range(command.nsid + 1, command.nsid + 1025)))

    queue = _Endless()
    with pytest.raises(MalformedError) as caught:
        all_active_namespaces(queue)
    assert "65536" in caught.value.cause
    assert len(queue.asked) == 65


def test_a_refusal_is_passed_on() -> None:
    class _Refusing(Subsystem):
        def submit(self, command: AdminCommand) -> Completion:
            return Completion(0x4002)

    with pytest.raises(AdminCommandError, match="Invalid Field"):
        all_secondaries(_Refusing())


@pytest.mark.parametrize("read", [all_controllers, all_secondaries, all_active_namespaces])
@given(data=st.binary(max_size=300))
def test_any_answer_is_a_list_or_an_error(read: Callable[..., list[object]], data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        assert isinstance(read(Stubborn(data)), list)


def test_a_recorded_subsystem() -> None:
    exchanges = golden.recording("stock-qemu-7.2")
    assert all_controllers(Stubborn(exchanges[12].data_in)) == [0, 1, 2]
    assert [entry.scid for entry in all_secondaries(Stubborn(exchanges[19].data_in))] == [1, 2, 3, 4]
