"""Whole VMs move with their functions: a stock QEMU as the VMM, a real kernel, controllers with live migration.

The guest is driven by the test (:mod:`tests.lab.mailbox`): the driver's rings, its event request and its commands under
way move in the VM's memory, and it goes on at the destination where it was.
"""

from __future__ import annotations

import pytest

from tests.lab.machine import Pf, wait_for
from tests.lab.moves import Two, order_failure, prepared, runs
from tests.lab.vms import VECTORS, Vms, begun, busy, goes_on

#: A VM starts in seconds and moves in seconds, in an emulated machine in an emulated machine.
pytestmark = pytest.mark.timeout(1200)


def test_a_vm_moves_there_and_back_while_it_writes_and_its_guest_notices_nothing(
    two: Two, vms: Vms, pf_a: Pf, pf_b: Pf
) -> None:
    prepared(two.here, "source", pf_a, vectors=VECTORS)
    prepared(two.there, "destination", pf_b, vectors=VECTORS)
    here, there = vms.start(two.here, pf_a.vfs), vms.start(two.there, pf_b.vfs, arriving=True)
    driver, pair = begun(here.processor)
    busy(driver, pair, 1000)
    here.move(there)
    assert not here.processor.runs(), "the guest runs at the source as well"
    driver.follow(there.processor)
    goes_on(driver, pair, 2000)
    assert here.quit() == 0

    two.here("release", pf_a.address, "--yes", check=True)
    prepared(two.here, "destination", pf_a, vectors=VECTORS)
    back = vms.start(two.here, pf_a.vfs, arriving=True)
    busy(driver, pair, 3000)
    there.move(back)
    driver.follow(back.processor)
    goes_on(driver, pair, 4000)


def test_two_functions_of_one_vm_move_with_it(two: Two, vms: Vms, pf_a: Pf, pf_b: Pf) -> None:
    prepared(two.here, "source", pf_a, 2, VECTORS)
    prepared(two.there, "destination", pf_b, 2, VECTORS)
    here, there = vms.start(two.here, pf_a.vfs[:2]), vms.start(two.there, pf_b.vfs[:2], arriving=True)
    functions = [begun(here.processor, number) for number in (1, 2)]
    for number, (driver, pair) in enumerate(functions):
        busy(driver, pair, 5000 + 500 * number)
    here.move(there)
    for number, (driver, pair) in enumerate(functions):
        driver.follow(there.processor)
        goes_on(driver, pair, 6000 + 500 * number)


def test_a_move_that_is_cancelled_or_cut_off_when_the_vm_stands_still_leaves_it_running_where_it_was(
    two: Two, vms: Vms, pf_a: Pf, pf_b: Pf
) -> None:
    prepared(two.here, "source", pf_a, vectors=VECTORS)
    prepared(two.there, "destination", pf_b, vectors=VECTORS)
    here = vms.start(two.here, pf_a.vfs)
    driver, pair = begun(here.processor)

    busy(driver, pair, 7000)
    there = vms.start(two.there, pf_b.vfs, arriving=True)
    here.stop_for_move(there)
    assert not runs(pf_a)
    here.ask("migrate_cancel")
    assert here.end_of_move()["status"] == "cancelled"
    goes_on(driver, pair, 7500)
    there.process.wait(timeout=180)

    busy(driver, pair, 8000)
    there = vms.start(two.there, pf_b.vfs, arriving=True)
    here.stop_for_move(there)
    there.kill()
    here.ask("migrate-continue", state="pre-switchover")
    assert here.end_of_move()["status"] == "failed"
    goes_on(driver, pair, 8500)
    assert (runs(pf_a), pf_b.secondaries()[0]["secondary-controller-state"]) == (True, 1)


def test_a_vm_that_is_refused_goes_on_at_the_source_and_nothing_is_left_at_the_destination(
    two: Two, vms: Vms, pf_a: Pf, pf_b: Pf
) -> None:
    """By a function with fewer queues, which the journal names, and by one that no mark lets it arrive at."""
    prepared(two.here, "source", pf_a, vectors=VECTORS, queues=4)
    marked, _ = prepared(two.there, "destination", pf_b, 2, VECTORS, "--unmarked")
    two.there("secondary", "allow-resume", pf_b.address, marked, check=True)
    here = vms.start(two.here, pf_a.vfs)
    driver, pair = begun(here.processor)
    for number, (address, why) in enumerate(zip(pf_b.vfs, ("does not fit", "mark"), strict=True)):
        busy(driver, pair, 9000 + 1000 * number)
        there = vms.start(two.there, [address], arriving=True)
        here.begin_move(there)
        assert here.end_of_move()["status"] == "failed"
        goes_on(driver, pair, 9500 + 1000 * number)
        assert there.process.wait(timeout=180) != 0
        assert why in there.said()
    secondaries = two.there("show", pf_b.address, "--json", check=True).json["secondaries"]
    assert [secondary["used_by"] for secondary in secondaries[:2]] == [[], []]
    assert runs(pf_a)


@pytest.mark.parametrize("select", [2, 1], ids=["Set Controller State", "Resume"])
def test_a_device_that_fails_when_the_vm_starts_ends_the_vmm_there_and_the_vm_runs_on_at_the_source(
    two: Two, vms: Vms, pf_a: Pf, pf_b: Pf, select: int
) -> None:
    prepared(two.here, "source", pf_a, vectors=VECTORS)
    prepared(two.there, "destination", pf_b, vectors=VECTORS)
    here, there = vms.start(two.here, pf_a.vfs), vms.start(two.there, pf_b.vfs, arriving=True)
    driver, pair = begun(here.processor)
    busy(driver, pair, 1000)
    order_failure(pf_b, (0x41, select), status=0x006)
    here.begin_move(there)
    assert here.end_of_move()["status"] == "failed"
    assert there.process.wait(timeout=180) == 137
    assert "its VMM is ended" in there.said()
    assert here.ask("query-status")["running"]
    assert runs(pf_a)
    goes_on(driver, pair, 2000)


def test_a_function_that_is_unplugged_from_a_running_vm_is_free_again(two: Two, vms: Vms, pf_a: Pf) -> None:
    prepared(two.here, "source", pf_a, vectors=VECTORS)
    here = vms.start(two.here, pf_a.vfs)
    driver, _ = begun(here.processor)
    here.ask("device_del", id="vf1")
    driver.let_go()
    wait_for(lambda: "vf1" not in names(here.ask("qom-list", path="/machine/peripheral")), "the VM to give it back")
    two.here("vfio", "unbind", pf_a.vfs[0], check=True)
    assert here.processor.runs()


def names(rows: list[dict[str, str]]) -> list[str]:
    """Return the names of what a VMM lists."""
    return [row["name"] for row in rows]
