"""Cells: what a preparation touches, each with a plain value.

::

    vfs                number of enabled VFs              autoprobe          sriov_drivers_autoprobe
    0x0001/vq, /vi     flexible resources assigned        0x0001/online      secondary controller state
    0x0001/driver      name of the bound driver or None   0x0001/override    driver_override, empty when unset
    0x0001/mark        "migratable", "resumable" or None  0x0001/namespaces  ids attached, "1,2"; "" for none
    0x0001/valid_s     for how long the mark was given, in seconds, or None for no end

Namespaces are cells only where the picture was read with them: they cost commands, and hardly a verb touches them. The
texts above are what reports show and what the journal keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import NoneType
from typing import Any, NamedTuple

from nvmelm.inventory.picture import Picture, Secondary
from nvmelm.numbers import hexadecimal

Value = int | bool | str | None


class CellName(StrEnum):
    """What a cell is about: the first two are of the PF, the others of each controlled function."""

    VFS = "vfs"
    AUTOPROBE = "autoprobe"
    VQ = "vq"
    VI = "vi"
    ONLINE = "online"
    DRIVER = "driver"
    OVERRIDE = "override"
    MARK = "mark"
    VALID_S = "valid_s"
    NAMESPACES = "namespaces"


class Cell(NamedTuple):
    """One thing that can be another: of a controlled function, or with None of the PF."""

    cntlid: int | None
    name: CellName

    def __str__(self) -> str:
        return str(self.name) if self.cntlid is None else f"{self.cntlid:#06x}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Cell:
        """Read a cell as it is shown; ValueError when it is none."""
        number, slash, name = text.rpartition("/")
        cntlid = hexadecimal(number, most=0xFFFF) if number.startswith("0x") else None
        cell = cls(cntlid, CellName(name))
        of_function = cell.name not in (CellName.VFS, CellName.AUTOPROBE)
        if of_function is not bool(slash) or (of_function and cntlid is None):
            raise ValueError(f"{text!r} is no cell")
        return cell


Cells = dict[Cell, Value]

VFS = Cell(None, CellName.VFS)
AUTOPROBE = Cell(None, CellName.AUTOPROBE)

#: What each cell's values are; a cell with others was not written by nvmelm, or was damaged.
_VALUES: dict[CellName, tuple[type, ...]] = {
    CellName.VFS: (int,),
    CellName.AUTOPROBE: (bool, NoneType),
    CellName.VQ: (int,),
    CellName.VI: (int,),
    CellName.ONLINE: (bool,),
    CellName.DRIVER: (str, NoneType),
    CellName.OVERRIDE: (str,),
    CellName.MARK: (str, NoneType),
    CellName.VALID_S: (int, NoneType),
    CellName.NAMESPACES: (str, NoneType),
}


def read_cells(body: Mapping[str, Any]) -> Cells:
    """Read cells as they were written; ValueError when one is none, or has a value that is none of its kind."""
    cells: Cells = {}
    for text, value in body.items():
        cell = Cell.parse(text)
        if type(value) not in _VALUES[cell.name]:
            raise ValueError(f"{value!r} is no value of {text}")
        cells[cell] = value
    return cells


def written_cells(cells: Mapping[Cell, Value]) -> dict[str, Value]:
    """Return cells as they are written."""
    return {str(cell): value for cell, value in cells.items()}


def cells_of(picture: Picture) -> Cells:
    """Return every cell of a picture."""
    cells: Cells = {VFS: picture.primary.vfs_enabled, AUTOPROBE: picture.primary.drivers_autoprobe}
    for secondary in picture.secondaries:
        cells |= {Cell(secondary.cntlid, name): value for name, value in _values(secondary).items()}
    return cells


def _values(secondary: Secondary) -> dict[CellName, Value]:
    mark = secondary.mark if secondary.mark and secondary.mark.holds else None
    values: dict[CellName, Value] = {
        CellName.VQ: secondary.vq,
        CellName.VI: secondary.vi,
        CellName.ONLINE: secondary.online,
        CellName.DRIVER: secondary.driver,
        CellName.OVERRIDE: secondary.driver_override,
        CellName.MARK: str(mark.role) if mark else None,
        CellName.VALID_S: mark.valid_s if mark else None,
    }
    if secondary.namespaces is not None:
        values[CellName.NAMESPACES] = namespaces_value(secondary.namespaces)
    return values


def namespaces_value(nsids: Iterable[int]) -> str:
    """Return the value of a cell ``namespaces``: the ids in order, parted by commas."""
    return ",".join(str(nsid) for nsid in sorted(set(nsids)))


def namespaces_wanted(wanted: Iterable[Cell]) -> frozenset[int]:
    """Return the controllers of whose namespaces some cells speak: the picture has to be read with these."""
    return frozenset(cell.cntlid for cell in wanted if cell.name is CellName.NAMESPACES and cell.cntlid is not None)


def survives_boot(cell: Cell) -> bool:
    """Return whether a cell is as it was after a reboot: attachments are the subsystem's and outlive every reset."""
    return cell.name is CellName.NAMESPACES
