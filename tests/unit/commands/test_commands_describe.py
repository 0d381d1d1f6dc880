"""The sentence of a command says what its words say, for every recorded command and for any words at all."""

from __future__ import annotations

import dataclasses
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.commands import data_queue, identify, migration, namespace, tracking, virtualization
from nvmelm.commands.describe import describe, target_controller
from nvmelm.host import AdminCommand
from nvmelm.wire.opcodes import Opcode, ResourceType, Sequence, SuspendType
from nvmelm.wire.tracking import TrackMemoryChanges
from tests.unit import golden

SENTENCES: list[tuple[AdminCommand, str]] = [
    (identify.controller(), "Identify: Identify Controller"),
    (identify.namespace(2), "Identify: Identify Namespace, namespace 2"),
    (identify.active_namespaces(), "Identify: Active Namespace ID list"),
    (identify.active_namespaces(9), "Identify: Active Namespace ID list, above namespace 9"),
    (identify.secondary_controllers(0x80), "Identify: Secondary Controller List, from controller 0x0080 on"),
    (identify.attached_controllers(1), "Identify: Namespace Attached Controller list, namespace 1"),
    (identify.state_formats(), "Identify: Supported Controller State Formats"),
    (identify.effects_log(), "Get Log Page: Commands Supported and Effects, 4096 bytes"),
    (virtualization.offline(1), "Virtualization Management: Secondary Offline, controller 0x0001"),
    (virtualization.online(0x41), "Virtualization Management: Secondary Online, controller 0x0041"),
    (
        virtualization.assign(1, ResourceType.VQ, 3),
        "Virtualization Management: Secondary Assign, controller 0x0001, 3 VQ resources",
    ),
    (
        virtualization.assign(1, ResourceType.VI, 1),
        "Virtualization Management: Secondary Assign, controller 0x0001, 1 VI resource",
    ),
    (
        virtualization.allocate_primary(0, ResourceType.VQ, 0),
        "Virtualization Management: Primary Flexible Allocation, controller 0x0000, 0 VQ resources",
    ),
    (migration.suspend(1), "Migration Send: Suspend, controller 0x0001"),
    (
        migration.suspend(1, SuspendType.SUSPEND_NOTIFICATION),
        "Migration Send: Suspend Notification, controller 0x0001",
    ),
    (
        migration.suspend(1, delete_udmq=True),
        "Migration Send: Suspend, controller 0x0001, delete its User Data Migration Queue",
    ),
    (migration.resume(1), "Migration Send: Resume, controller 0x0001"),
    (
        migration.set_state(2, bytes(104), offset=0, sequence=Sequence.ONLY, version_index=1),
        (
            "Migration Send: Set Controller State, controller 0x0002, entire structure, 104 bytes at offset 0, "
            "version index 1"
        ),
    ),
    (
        migration.set_state(2, b"", offset=1 << 33, sequence=Sequence.LAST, version_index=0, uuid_index=4),
        (
            "Migration Send: Set Controller State, controller 0x0002, last part, 0 bytes at offset 8589934592, "
            "without an NVMe part, UUID index 4"
        ),
    ),
    (
        migration.get_state(1, offset=52, length=52, version_index=1, uuid_index=2),
        (
            "Migration Receive: Get Controller State, controller 0x0001, 52 bytes at offset 52, version index 1, "
            "UUID index 2"
        ),
    ),
    (tracking.start_user_data_log(5), "Track Send: Log User Data Changes, start, queue 5"),
    (tracking.stop_user_data_log(5), "Track Send: Log User Data Changes, stop, queue 5"),
    (
        tracking.start_memory_tracking(1, TrackMemoryChanges(0, ()).pack()),
        "Track Send: Track Memory Changes, start, controller 0x0001",
    ),
    (tracking.stop_memory_tracking(1), "Track Send: Track Memory Changes, stop, controller 0x0001"),
    (tracking.tracked_memory(1, 4096), "Track Receive: Tracked Memory Changes, controller 0x0001, 4096 bytes"),
    (
        data_queue.create(0x102, bytes(4096)),
        "Controller Data Queue: Create User Data Migration Queue, controller 0x0102, 4096 bytes",
    ),
    (data_queue.delete(7), "Controller Data Queue: Delete, queue 7"),
    (data_queue.set_head(7, 9), "Set Features: Controller Data Queue, queue 7, head at slot 9"),
    (data_queue.set_head(7, 9, 12), "Set Features: Controller Data Queue, queue 7, head at slot 9, event at slot 12"),
    (data_queue.get_head(7), "Get Features: Controller Data Queue, queue 7"),
    (namespace.attach(3, [1]), "Namespace Attachment: Controller Attach, namespace 3"),
    (namespace.detach(3, [1]), "Namespace Attachment: Controller Detach, namespace 3"),
]


@pytest.mark.parametrize(("command", "sentence"), SENTENCES, ids=[sentence for _, sentence in SENTENCES])
def test_sentences(command: AdminCommand, sentence: str) -> None:
    assert describe(command) == sentence


@pytest.mark.parametrize(("command", "sentence"), SENTENCES, ids=[sentence for _, sentence in SENTENCES])
def test_the_name_of_a_command_is_what_its_words_say(command: AdminCommand, sentence: str) -> None:
    name, _, what = command.name.partition(" (")
    what = what.rstrip(")").removeprefix("Suspend")
    assert sentence.startswith(f"{name}: ")
    assert what.split()[0] in sentence if what else "Suspend" in sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"opcode": 0xC1, "cdw10": 0xAB}, "Admin command C1h: namespace 0x0, words 000000ab"),
        ({"opcode": Opcode.IDENTIFY, "cdw10": 0x77}, "structure 77h"),
        ({"opcode": Opcode.IDENTIFY, "cdw10": 0x12, "nsid": 0xFFFF_FFFF}, "all namespaces"),
        ({"opcode": Opcode.GET_LOG_PAGE, "cdw10": 0x7F_0002}, "page 02h, 512 bytes"),
        ({"opcode": Opcode.SET_FEATURES, "cdw10": 0x07, "cdw11": 0x10001}, "feature 07h, value 0x00010001"),
        ({"opcode": Opcode.GET_FEATURES, "cdw10": 0x07}, "feature 07h"),
        ({"opcode": Opcode.VIRTUALIZATION_MANAGEMENT, "cdw10": 0x0001_0005}, "action 5h, controller 0x0001"),
        ({"opcode": Opcode.VIRTUALIZATION_MANAGEMENT, "cdw10": 0x0001_0208, "cdw11": 4}, "4 type 2 resources"),
        ({"opcode": Opcode.MIGRATION_SEND, "cdw10": 3}, "selection 3h"),
        ({"opcode": Opcode.MIGRATION_SEND, "cdw11": 0x0009_0001}, "suspend type 9h"),
        ({"opcode": Opcode.MIGRATION_RECEIVE, "cdw10": 1}, "selection 1h"),
        ({"opcode": Opcode.TRACK_SEND, "cdw10": 0x0003_0007}, "selection 7h, action 3"),
        ({"opcode": Opcode.CONTROLLER_DATA_QUEUE, "cdw10": 0x00C0_0000}, "queue of type C0h"),
        ({"opcode": Opcode.CONTROLLER_DATA_QUEUE, "cdw10": 0xC0, "cdw11": 2}, "selection C0h, queue 2"),
    ],
)
def test_what_has_no_name_is_a_number(changes: dict[str, int], words: str) -> None:
    assert words in describe(AdminCommand(name="whatever", **changes))


_WORD = st.integers(0, 0xFFFF_FFFF)


@given(st.integers(0, 0xFF) | st.sampled_from(list(Opcode)), _WORD, st.lists(_WORD, min_size=6, max_size=6))
def test_any_words_give_one_line(opcode: int, nsid: int, words: list[int]) -> None:
    named = {f"cdw{number}": word for number, word in zip(range(10, 16), words, strict=True)}
    command = AdminCommand(name="", opcode=opcode, nsid=nsid, **named)
    assert re.fullmatch(r"[ -~]+: [ -~]+", describe(command))
    assert target_controller(command) is None or 0 <= target_controller(command) <= 0xFFFF


def test_what_a_recording_claims_can_be_held_against_its_words() -> None:
    descriptions = {exchange.about: describe(_command(exchange)) for exchange in golden.recording("tp4159-controller")}
    assert descriptions["Secondary Assign 3 VQ resources to 0x0001"].endswith("controller 0x0001, 3 VQ resources")
    assert descriptions["Migration Send Suspend (STYPE 1) of 0x0001"] == "Migration Send: Suspend, controller 0x0001"
    assert "version index 7" in descriptions["Migration Receive with an unknown version index: refused"]


def _command(exchange: golden.Exchange) -> AdminCommand:
    words = {f"cdw{number}": word for number, word in zip(range(10, 16), exchange.words, strict=True)}
    return AdminCommand(name=exchange.about, opcode=exchange.opcode, nsid=exchange.nsid, **words)


@pytest.mark.parametrize(
    ("command", "target"),
    [
        (virtualization.offline(0x41), 0x41),
        (migration.resume(0x41), 0x41),
        (migration.get_state(0x41, offset=0, length=48, version_index=1), 0x41),
        (tracking.stop_memory_tracking(0x41), 0x41),
        (tracking.tracked_memory(0x41, 16), 0x41),
        (data_queue.create(0x41, bytes(4096)), 0x41),
        (tracking.stop_user_data_log(0x41), None),
        (data_queue.delete(0x41), None),
        (identify.secondary_controllers(0x41), None),
    ],
)
def test_a_command_knows_whom_it_concerns(command: AdminCommand, target: int | None) -> None:
    assert target_controller(command) == target


def test_sentences_come_from_words_alone() -> None:
    assert describe(dataclasses.replace(migration.resume(1), name="something else")) == describe(migration.resume(1))
