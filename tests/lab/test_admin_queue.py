"""The admin queue against a real kernel, with nvme-cli as the witness of what the controller says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nvmelm.errors import DeviceGoneError, NotSupportedError
from nvmelm.host import AdminCommand
from nvmelm.host.local.passthru import PassthruQueue
from nvmelm.host.local.sysfs import DirectorySysfs
from tests.lab.machine import Pf, medium, put

#: Invalid Opcode and Do Not Retry, Invalid Field and Do Not Retry.
INVALID_OPCODE_DNR, INVALID_FIELD_DNR = 0x4001, 0x4002


@pytest.fixture
def queue(pf_a: Pf) -> Iterator[PassthruQueue]:
    opened = PassthruQueue(f"/dev/{pf_a.node}", DirectorySysfs(), pf_a.node)
    yield opened
    opened.close()


def identify(cns: int, *, length: int = 4096) -> AdminCommand:
    return AdminCommand(name="Identify", opcode=0x06, cdw10=cns, data_in_length=length)


def get_log(lid: int, length: int) -> AdminCommand:
    dwords = length // 4 - 1
    return AdminCommand(
        name="Get Log Page", opcode=0x02, nsid=0xFFFFFFFF, data_in_length=length,
        cdw10=lid | (dwords & 0xFFFF) << 16, cdw11=dwords >> 16,
    )  # fmt: skip


def number(raw: bytes, offset: int, size: int) -> int:
    return int.from_bytes(raw[offset : offset + size], "little")


def test_identify_controller_says_what_nvme_cli_reads(
    queue: PassthruQueue, pf_a: Pf, witness: Callable[..., Any]
) -> None:
    said = witness("id-ctrl", f"/dev/{pf_a.node}")
    completion = queue.submit(identify(0x01))
    raw = completion.data
    assert completion.status == 0
    assert len(raw) == 4096
    assert raw[4:24].decode().strip() == said["sn"].strip() == pf_a.serial
    assert number(raw, 0, 2) == said["vid"]
    assert number(raw, 78, 2) == said["cntlid"]
    assert number(raw, 256, 2) == said["oacs"]
    assert raw[77] == said["mdts"]


def test_the_secondary_list_says_what_nvme_cli_reads(queue: PassthruQueue, pf_a: Pf) -> None:
    raw = queue.submit(identify(0x15)).data
    said = pf_a.secondaries()
    assert raw[0] == len(said) == int(os.environ["NVMELM_LAB_VFS"])
    for index, one in enumerate(said):
        entry = raw[32 * (index + 1) : 32 * (index + 2)]
        assert number(entry, 0, 2) == one["secondary-controller-identifier"]
        assert number(entry, 2, 2) == one["primary-controller-identifier"]
        assert entry[4] == one["secondary-controller-state"]
        assert number(entry, 8, 2) == one["virtual-function-number"]
        assert number(entry, 10, 2) == one["num-virtual-queues"]
        assert number(entry, 12, 2) == one["num-virtual-interrupts"]


def test_primary_capabilities_say_what_nvme_cli_reads(
    queue: PassthruQueue, pf_a: Pf, witness: Callable[..., Any]
) -> None:
    said = witness("primary-ctrl-caps", f"/dev/{pf_a.node}")
    raw = queue.submit(identify(0x14)).data
    assert number(raw, 0, 2) == said["cntlid"]
    assert number(raw, 32, 4) == said["vqfrt"]
    assert number(raw, 44, 2) == said["vqfrsm"]
    assert number(raw, 64, 4) == said["vifrt"]
    assert number(raw, 76, 2) == said["vifrsm"]


def test_a_status_of_the_controller_comes_back_as_it_is(queue: PassthruQueue) -> None:
    assert queue.submit(identify(0x7F)).status == INVALID_FIELD_DNR
    assert queue.submit(AdminCommand(name="unknown", opcode=0x5E)).status == INVALID_OPCODE_DNR


def test_a_result_comes_back_in_the_completion(queue: PassthruQueue) -> None:
    arbitration = AdminCommand(name="Get Features", opcode=0x0A, cdw10=0x07)
    completion = queue.submit(arbitration)
    assert completion.status == 0
    assert completion.result >> 32 == 0
    assert completion.result & 0xFFFF > 0
    assert completion.data == b""


def test_the_largest_transfer_the_queue_promises_is_taken_by_the_kernel(queue: PassthruQueue) -> None:
    # The error log is read-only and harmless; only its first bytes exist, the rest is the controller's zeros.
    largest = queue.max_transfer_bytes
    assert largest % 4096 == 0
    assert largest >= 508 * 1024
    completion = queue.submit(get_log(0x01, largest))
    assert completion.status == 0
    assert len(completion.data) == largest


def test_a_transfer_beyond_the_controllers_limit_is_refused_not_cut(queue: PassthruQueue, pf_a: Pf) -> None:
    mdts_bytes = 4096 << queue.submit(identify(0x01)).data[77]
    with pytest.raises(Exception, match="Get Log Page") as caught:
        queue.submit(get_log(0x01, 2 * mdts_bytes))
    assert str(queue.max_transfer_bytes) in caught.value.cause  # type: ignore[attr-defined]


def test_a_short_command_after_a_long_one_shows_nothing_of_it(queue: PassthruQueue) -> None:
    queue.submit(get_log(0x02, 64 * 1024))
    assert queue.submit(identify(0x7F)).data == bytes(4096)


def test_a_namespace_node_is_no_admin_queue(pf_a: Pf) -> None:
    namespace = medium().name
    with pytest.raises(NotSupportedError, match="is not a controller"):
        PassthruQueue(f"/dev/{namespace}", DirectorySysfs(), namespace)
    with pytest.raises(NotSupportedError, match="is not the node of controller"):
        PassthruQueue(f"/dev/{namespace}", DirectorySysfs(), pf_a.node)


def test_the_node_of_another_controller_is_refused(pf_a: Pf, pf_b: Pf) -> None:
    with pytest.raises(NotSupportedError, match="is not the node of controller"):
        PassthruQueue(f"/dev/{pf_b.node}", DirectorySysfs(), pf_a.node)


def test_a_controller_that_vanishes_between_two_commands_is_named(pf_b: Pf, scratch_host: None) -> None:
    queue = PassthruQueue(f"/dev/{pf_b.node}", DirectorySysfs(), pf_b.node)
    assert queue.submit(identify(0x01)).status == 0
    put("/sys/bus/pci/drivers/nvme/unbind", pf_b.address)
    with pytest.raises(DeviceGoneError) as caught:
        queue.submit(identify(0x01))
    assert caught.value.fix
    queue.close()
    with pytest.raises(DeviceGoneError, match="cannot open"):
        PassthruQueue(f"/dev/{pf_b.node}", DirectorySysfs(), pf_b.node)
