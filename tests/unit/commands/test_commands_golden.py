"""Every builder against the words that the encoders of nvme-cli and libnvme produced."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nvmelm.commands import data_queue, identify, migration, tracking, virtualization
from nvmelm.host import AdminCommand
from nvmelm.wire.opcodes import ResourceType, Sequence, SuspendType
from tests.unit import golden
from tests.unit.golden import GoldenCommand

Params = dict[str, int]


def virt_mgmt(params: Params) -> AdminCommand:
    kind, target = ResourceType(params["rt"]), params["cntlid"]
    return {
        1: lambda: virtualization.allocate_primary(target, kind, params["nr"]),
        7: lambda: virtualization.offline(target),
        8: lambda: virtualization.assign(target, kind, params["nr"]),
        9: lambda: virtualization.online(target),
    }[params["act"]]()


def set_state(params: Params) -> AdminCommand:
    return migration.set_state(
        params["cntlid"],
        bytes(params["len"]),
        offset=params["offset"],
        sequence=Sequence(params["seqind"]),
        version_index=params["csvi"],
        uuid_index=params["csuuidi"],
        uidx=params.get("uidx", 0),
    )


def get_state(params: Params) -> AdminCommand:
    return migration.get_state(
        params["cntlid"],
        offset=params["offset"],
        length=params["len"],
        version_index=params["csvi"],
        uuid_index=params["csuuidi"],
        uuid_parameter=params["csuidxp"],
        uidx=params.get("uidx", 0),
    )


def log_user_data(params: Params) -> AdminCommand:
    build = tracking.start_user_data_log if params["lact"] else tracking.stop_user_data_log
    return build(params["cdqid"])


def track_memory(params: Params) -> AdminCommand:
    if params["tact"]:
        return tracking.start_memory_tracking(params["cntlid"], golden.data("track_memory_changes_2desc_4k"))
    return tracking.stop_memory_tracking(params["cntlid"])


BUILDERS: dict[str, Callable[[Params], AdminCommand]] = {
    "identify_controller": lambda p: identify.controller(),
    "identify_controller_list": lambda p: identify.controllers(p["cntid"]),
    "identify_primary_ctrl_cap": lambda p: identify.primary_capabilities(p["cntid"]),
    "identify_secondary_ctrl_list": lambda p: identify.secondary_controllers(p["cntid"]),
    "identify_supported_ctrl_state_formats": lambda p: identify.state_formats(),
    "virt_mgmt": virt_mgmt,
    "migration_send_suspend": lambda p: migration.suspend(
        p["cntlid"], SuspendType(p["stype"]), delete_udmq=bool(p["dudmq"]), uidx=p["uidx"]
    ),
    "migration_send_resume": lambda p: migration.resume(p["cntlid"], uidx=p["uidx"]),
    "migration_send_set_state": set_state,
    "migration_recv_get_state": get_state,
    "track_send_log_user_data": log_user_data,
    "track_send_memory_changes": track_memory,
    "track_receive_memory_changes": lambda p: tracking.tracked_memory(p["cntlid"], p["len"]),
    "cdq_create": lambda p: data_queue.create(p["cntlid"], bytes(4 * p["cdqsize_dwords"]), contiguous=bool(p["pc"])),
    "cdq_delete": lambda p: data_queue.delete(p["cdqid"]),
    "set_features_cdq": lambda p: data_queue.set_head(p["cdqid"], p["hp"], p["tpt"] if p["etpt"] else None),
    "get_features_cdq": lambda p: data_queue.get_head(p["cdqid"]),
}

#: libnvme has a buffer of 8 bytes here; the data structure is 512, and a controller may return all of it.
LENGTHS_BY_THE_SPECIFICATION = {"get_features_cdq": (8, 512)}


def test_every_golden_command_has_a_builder() -> None:
    assert {row.name for row in golden.commands()} == set(BUILDERS)


@pytest.mark.parametrize("row", golden.commands(), ids=lambda row: row.id)
def test_words_are_byte_for_byte_the_reference_s(row: GoldenCommand) -> None:
    command = BUILDERS[row.name](row.params)
    assert (command.opcode, command.nsid, command.words) == (row.opcode, row.nsid, row.words)
    assert (command.cdw2, command.cdw3) == (0, 0)
    theirs, ours = LENGTHS_BY_THE_SPECIFICATION.get(row.name, (row.data_length, row.data_length))
    assert (row.data_length, command.data_length) == (theirs, ours)


def test_get_features_asks_for_the_512_bytes_of_the_specification_where_libnvme_asks_for_8() -> None:
    (row,) = (row for row in golden.commands() if row.name == "get_features_cdq")
    assert row.data_length == golden.structure("nvme_lm_ctrl_data_queue_fid_data")["size"] == 8
    assert data_queue.get_head(7).data_in_length == golden.structure("nvme_feat_cdq_get_data_spec")["size"] == 512


#: Not among the golden commands; typed from the Base Specification 2.1.
BY_HAND = [
    pytest.param(identify.namespace(7), (0x06, 7), (0, 0, 0, 0, 0, 0), 4096, id="namespace"),
    pytest.param(identify.active_namespaces(5), (0x06, 5), (0x02, 0, 0, 0, 0, 0), 4096, id="active-namespaces"),
    pytest.param(identify.nvm_controller(), (0x06, 0), (0x06, 0, 0, 0, 0, 0), 4096, id="nvm-controller"),
    pytest.param(identify.attached_controllers(1, 0x102), (0x06, 1), (0x0102_0012, 0, 0, 0, 0, 0), 4096, id="attached"),
    pytest.param(identify.uuid_list(), (0x06, 0), (0x17, 0, 0, 0, 0, 0), 4096, id="uuid-list"),
    pytest.param(identify.effects_log(), (0x02, 0xFFFF_FFFF), (0x03FF_0005, 0, 0, 0, 0, 0), 4096, id="effects-log"),
]


@pytest.mark.parametrize(("command", "head", "words", "length"), BY_HAND)
def test_words_of_other_reads(
    command: AdminCommand, head: tuple[int, int], words: tuple[int, ...], length: int
) -> None:
    assert ((command.opcode, command.nsid), command.words, command.data_in_length) == (head, words, length)
    assert command.data_out is None
