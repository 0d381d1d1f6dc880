"""The planner: the safe order, nothing when nothing is to do, and a way back from everything."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.errors import NotReadyError
from nvmelm.inventory.picture import Picture, Role
from nvmelm.prepare.actions import Action, Phase, SysfsWrite, VfWrite, operation_text
from nvmelm.prepare.cells import AUTOPROBE, VFS, Cell, CellName, Cells, Value, cells_of, read_cells, written_cells
from nvmelm.prepare.plan import plan
from tests.unit.pictures import picture, secondary

READY: dict[CellName, Value] = {
    CellName.VQ: 3,
    CellName.VI: 2,
    CellName.ONLINE: True,
    CellName.MARK: "migratable",
    CellName.DRIVER: "vfio-pci",
}


def prepared(vfs: int) -> Cells:
    cells: Cells = {VFS: vfs, AUTOPROBE: False}
    return cells | {Cell(number, name): READY[name] for number in range(1, vfs + 1) for name in READY}


def phases(actions: list[Action]) -> list[str]:
    words: list[str] = []
    for action in actions:
        if not words or words[-1] != action.phase:
            words.append(action.phase)
    return words


def lines(actions: list[Action]) -> list[str]:
    return [operation_text(operation) for action in actions for operation in action.operations]


def after(start: Picture, actions: list[Action]) -> Cells:
    cells = cells_of(start)
    for action in actions:
        for change in action.changes:
            assert cells[change.cell] == change.before, "an action starts from where the one before it ended"
            cells[change.cell] = change.after
    return cells


def test_a_preparation_goes_through_the_steps_in_the_order_that_is_safe() -> None:
    assert phases(plan(picture(), prepared(2))) == [
        Phase.AUTOPROBE,
        Phase.ASSIGN,
        Phase.VFS,
        Phase.ONLINE,
        Phase.MARK,
        Phase.BIND,
    ]


def test_a_preparation_makes_exactly_these_writes_and_commands() -> None:
    assert lines(plan(picture(), prepared(1))) == [
        "echo 0 > /sys/bus/pci/devices/0000:01:00.0/sriov_drivers_autoprobe",
        (
            "admin 0x1c cdw10-15 00010008 00000003 00000000 00000000 00000000 00000000  "
            "(Virtualization Management: Secondary Assign, controller 0x0001, 3 VQ resources)"
        ),
        (
            "admin 0x1c cdw10-15 00010108 00000002 00000000 00000000 00000000 00000000  "
            "(Virtualization Management: Secondary Assign, controller 0x0001, 2 VI resources)"
        ),
        "echo 1 > /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs",
        (
            "admin 0x1c cdw10-15 00010009 00000000 00000000 00000000 00000000 00000000  "
            "(Virtualization Management: Secondary Online, controller 0x0001)"
        ),
        "mark controller 0x0001 migratable",
        "echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/virtfn0/driver_override",
        "echo $(basename $(readlink /sys/bus/pci/devices/0000:01:00.0/virtfn0)) > /sys/bus/pci/drivers_probe",
    ]


def test_wanting_what_is_there_plans_nothing() -> None:
    start = picture()
    assert plan(start, cells_of(start)) == []


def test_a_changed_count_goes_by_way_of_zero_and_says_what_it_takes_along() -> None:
    busy = secondary(1, present=True, online=True, vq=3, vi=2, driver="vfio-pci", driver_override="vfio-pci")
    actions = plan(picture(busy, secondary(2), vfs_enabled=1, drivers_autoprobe=False), {VFS: 2})
    assert [write.value for action in actions for write in action.operations if isinstance(write, SysfsWrite)] == [
        "0",
        "2",
    ]
    assert "0000:01:00.1" in actions[0].loses
    assert actions[0].needs_idle == (1,)


def test_a_resource_change_of_an_online_controller_takes_it_offline_and_brings_the_rest_back() -> None:
    start = picture(secondary(1, present=True, online=True, vq=2, vi=2), vfs_enabled=1, drivers_autoprobe=False)
    actions = plan(start, {Cell(1, CellName.VQ): 3})
    assert phases(actions) == [Phase.OFFLINE, Phase.ASSIGN, Phase.RESET, Phase.ONLINE]
    end = after(start, actions)
    assert (end[Cell(1, CellName.VQ)], end[Cell(1, CellName.VI)], end[Cell(1, CellName.ONLINE)]) == (3, 2, True)


def test_giving_a_vf_back_to_nvme_leaves_no_override_behind() -> None:
    start = picture(
        secondary(1, present=True, online=True, vq=3, vi=2, driver="vfio-pci", driver_override="vfio-pci"),
        vfs_enabled=1,
        drivers_autoprobe=False,
    )
    actions = plan(start, {Cell(1, CellName.DRIVER): "nvme", Cell(1, CellName.OVERRIDE): ""})
    assert lines(actions) == [
        "echo 0000:01:00.1 > /sys/bus/pci/devices/0000:01:00.1/driver/unbind",
        "echo nvme > /sys/bus/pci/devices/0000:01:00.1/driver_override",
        "echo 0000:01:00.1 > /sys/bus/pci/drivers_probe",
        "echo '' > /sys/bus/pci/devices/0000:01:00.1/driver_override",
    ]
    # An empty write would report success and change nothing.
    assert [write.value for write in actions[-1].operations if isinstance(write, VfWrite)][-1] == "\n"


def test_a_controller_without_a_vf_cannot_go_online() -> None:
    with pytest.raises(NotReadyError, match="has no VF") as caught:
        plan(picture(), {Cell(3, CellName.ONLINE): True})
    assert caught.value.fix == "nvmelm sriov enable nvme0 --vfs 3"


def test_a_cell_is_read_as_it_is_shown_and_nothing_else_is_one() -> None:
    cells = cells_of(picture(secondary(1), secondary(2)))
    assert read_cells(written_cells(cells)) == cells
    assert str(Cell(2, CellName.NAMESPACES)) == "0x0002/namespaces"
    for text in ("vq", "0x0001/vfs", "1/vq", "0x0001/", "/vq", "0x10000/vq", "0x0001/speed", ""):
        with pytest.raises(ValueError, match=r"is (no|not a) "):
            Cell.parse(text)


values = st.fixed_dictionaries(
    {},
    optional={
        VFS: st.integers(0, 4),
        AUTOPROBE: st.booleans(),
        **{Cell(n, CellName.VQ): st.sampled_from([0, 2, 3]) for n in range(1, 5)},
        **{Cell(n, CellName.VI): st.sampled_from([0, 1, 2]) for n in range(1, 5)},
        **{Cell(n, CellName.ONLINE): st.booleans() for n in range(1, 5)},
        **{Cell(n, CellName.DRIVER): st.sampled_from([None, "vfio-pci", "nvme"]) for n in range(1, 5)},
        **{Cell(n, CellName.MARK): st.sampled_from([None, *map(str, Role)]) for n in range(1, 5)},
    },
)


@given(values)
def test_every_plan_starts_each_action_from_where_the_last_one_ended(wanted: Cells) -> None:
    start = picture()
    try:
        actions = plan(start, wanted)
    except NotReadyError:
        return
    end = after(start, actions)
    for cell, value in wanted.items():
        if cell.name not in (CellName.AUTOPROBE, CellName.VQ, CellName.VI):
            assert end[cell] == value
    order = list(Phase)
    rest = [order.index(action.phase) for action in actions if action.phase not in (Phase.AUTOPROBE, Phase.VFS)]
    assert rest == sorted(rest)
