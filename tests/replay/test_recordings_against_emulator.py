"""The emulated controllers answer every recorded command as the recorded controllers did.

Every exchange of `fixtures/recordings/` is replayed into the generation of its name, prepared as the recording was:
two VFs enabled just before the exchange that shows them, and a guest with one I/O queue pair on 0x0001 just before
the first command that looks at its state. The guest's queues lie where the recorded guest put them; everything else
is the emulator's own. `DIFFERENCES` lists the exchanges that may differ, with the clause that says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nvmelm.emulator.guest.driver import CC, Driver, SubmittedCommand
from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.emulator.kernel.vfio import VfioFunction
from nvmelm.emulator.machine.generations import STOCK_QEMU_7_2, TP4159, DeviceGeneration
from nvmelm.emulator.machine.state import CompletionQueue, SubmissionQueue
from nvmelm.host import AdminCommand, AdminQueue, Completion
from nvmelm.wire.opcodes import IoOpcode, Opcode
from tests.unit.golden import Exchange, queue_entries, recording

PF = "0000:01:00.0"
VF = "0000:01:00.1"

#: (recording, what it is about): the clause that allows another answer. Empty, and meant to stay so.
DIFFERENCES: dict[tuple[str, str], str] = {}

# The queue pair of the recorded guest, read off the bytes of "the whole controller state in one command".
GUEST_SQ = SubmissionQueue(prp1=0x0517_0000, size=0x3FF, cqid=1, attributes=1, head=0, tail=0)
GUEST_CQ = CompletionQueue(prp1=0x045D_4000, size=0x3FF, attributes=0x0001_0003, head=0, tail=0, phase=1)


def bind(host: EmulatedHost, bdf: str) -> None:
    host.load_module("vfio-pci")
    host.sysfs.write(f"bus/pci/devices/{bdf}/driver_override", "vfio-pci")
    host.sysfs.write("bus/pci/drivers_probe", bdf)


def guest_with_one_queue_pair(host: EmulatedHost) -> None:
    """Let a virtual machine hold VF 1 and its driver create the recorded queues."""
    bind(host, VF)
    memory = host.machine.new_memory(0x1000)
    function = VfioFunction(host.machine, VF, memory=memory, name="qemu-system-x86")
    with function.port() as port:
        assert port is not None
        assert port.write_cc(CC) == 1
        assert port.io is not None
        port.io["sqs"]["1"], port.io["cqs"]["1"] = GUEST_SQ.copy(), GUEST_CQ.copy()


def prepare(host: EmulatedHost, exchange: Exchange) -> None:
    """Do what happened on the recorded machine before this exchange."""
    if exchange.about.startswith("Identify Controller List") and "2 VFs enabled" in exchange.about:
        host.sysfs.write(f"bus/pci/devices/{PF}/sriov_drivers_autoprobe", "0")
        host.sysfs.write(f"bus/pci/devices/{PF}/sriov_numvfs", "2")
    if exchange.about == "Migration Receive, header only, controller running":
        guest_with_one_queue_pair(host)


def replay(host: EmulatedHost, name: str) -> Iterator[tuple[Exchange, Completion]]:
    with closing(host.open_queue("nvme0")) as queue:
        for exchange in recording(name):
            prepare(host, exchange)
            numbers = zip(range(10, 16), exchange.words, strict=True)
            command = AdminCommand(
                name=exchange.about,
                opcode=exchange.opcode,
                nsid=exchange.nsid,
                **{f"cdw{number}": word for number, word in numbers},
                data_out=exchange.data_out,
                data_in_length=0 if exchange.data_out else exchange.data_length,
            )
            yield exchange, queue.submit(command)


def recorded_device(generation: DeviceGeneration) -> DeviceGeneration:
    """The device as it was named on the recorded machine."""
    # What a namespace is called is its own, not its device's: the recorded one had no identifier.
    return generation.with_(serial="LAB000a", subnqn="nqn.2019-08.org.qemu:nqn.2026-11.lab:a", namespace_ids=False)


@pytest.mark.parametrize(
    ("name", "generation"),
    [("stock-qemu-7.2", STOCK_QEMU_7_2), ("tp4159-controller", TP4159)],
    ids=["stock-qemu-7.2", "tp4159-controller"],
)
def test_every_recorded_exchange_gets_the_recorded_answer(
    tmp_path: Path, name: str, generation: DeviceGeneration
) -> None:
    different = []
    with create(tmp_path / "host", [recorded_device(generation)]) as host:
        for exchange, completion in replay(host, name):
            expected = (exchange.status, exchange.result, exchange.data_in if exchange.status == 0 else b"")
            answer = (completion.status, completion.result, completion.data if exchange.status == 0 else b"")
            if answer != expected:
                different.append((name, exchange.about))
    assert different == list(DIFFERENCES)


def submit(queue: AdminQueue, opcode: int, cdw10: int = 0, cdw11: int = 0, **more: object) -> Completion:
    completion = queue.submit(AdminCommand(name="prepare", opcode=opcode, cdw10=cdw10, cdw11=cdw11, **more))
    assert completion.status == 0
    return completion


def test_the_recorded_entries_of_a_migration_queue_are_posted_byte_for_byte(tmp_path: Path) -> None:
    with create(tmp_path / "host", [TP4159]) as host:
        queue = host.open_queue("nvme0")
        host.sysfs.write(f"bus/pci/devices/{PF}/sriov_drivers_autoprobe", "0")
        host.sysfs.write(f"bus/pci/devices/{PF}/sriov_numvfs", "2")
        for cdw10, count in ((0x0001_0008, 2), (0x0001_0108, 1), (0x0001_0009, 0)):
            submit(queue, Opcode.VIRTUALIZATION_MANAGEMENT, cdw10, count)
        bind(host, VF)
        name = host.machine.new_memory(Driver.memory_needed(8192, 4))
        function, driver = VfioFunction(host.machine, VF, memory=name, name="vm"), Driver(8192, 4)
        entries = host.allocate(4096)
        with function.port() as port:
            assert port is not None
            assert driver.start(port, queues=1, entries=16) == ""
        number = submit(queue, Opcode.CONTROLLER_DATA_QUEUE, 0, 0x0001_0001, cdw12=1024, data_out=entries).result
        submit(queue, Opcode.TRACK_SEND, 0x0001_0000, number)
        with function.port() as port:
            assert port is not None
            for cid, (first, blocks) in enumerate(((10, 1), (100, 8), (4000, 16))):
                sent = SubmittedCommand(1, cid, IoOpcode.WRITE, 0, 0, driver.free.pop())
                driver.submit(function.memory, driver.rings[0], IoOpcode.WRITE, 1, first, blocks, sent)
            port.ring_sq(1, driver.rings[0].sq_tail)
            assert port.fetch(3) == 3
            assert port.complete(3) == 3
        submit(queue, Opcode.MIGRATION_SEND, 0, 0x0001_0001)
        posted = [bytes(entries[at : at + 32]) for at in range(0, 5 * 32, 32)]
        assert posted == queue_entries()
        assert not any(entries[5 * 32 :])
        entries.release()
