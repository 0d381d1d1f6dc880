"""What a new emulated host is made of."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from nvmelm.emulator.kernel import drivers
from nvmelm.emulator.kernel.functions import add_function
from nvmelm.emulator.machine.generations import DEFAULT, GENERATIONS, DeviceGeneration
from nvmelm.emulator.machine.machine import Machine, write_generation
from nvmelm.emulator.machine.state import FORMAT, EmulatedPrimary, HostOptions, HostState, new_controller, new_options
from nvmelm.errors import UsageError

_FIRST_INODE = 0x4000
_FIRST_BUS = 1


def generation_named(name: str | DeviceGeneration) -> DeviceGeneration:
    """Return a generation by its name.

    Raises:
        UsageError: there is none of that name.
    """
    if isinstance(name, DeviceGeneration):
        return name
    row = GENERATIONS.get(name)
    if row is None:
        raise UsageError(f"no device generation {name!r}", cause=f"there are {', '.join(GENERATIONS)}")
    return row


def new_host(directory: Path, options: Mapping[str, Any], storage: Path | None) -> HostState:
    """Return a host without devices."""
    known = new_options()
    change_options(known, options)
    return HostState(
        format=FORMAT,
        boot_id=str(uuid.uuid4()),
        storage=os.fspath((storage or directory / "namespaces").absolute()),
        next_inode=_FIRST_INODE,
        modules=["nvme_core", "nvme"],
        new_ids={},
        options=known,
        functions={},
        primaries={},
        holders=[],
        mounts=[],
        block_holders={},
        bus_autoprobe=True,
        faults=[],
    )


def change_options(options: HostOptions, changes: Mapping[str, Any]) -> None:
    """Change options of a host; all of them or none.

    Raises:
        UsageError: there is no such option, or its value is of another kind.
    """
    before: dict[str, Any] = dict(options)
    after = {name: _option(name, before.get(name), value) for name, value in changes.items()}
    options.update(after)  # type: ignore[typeddict-item]  # names and kinds were checked above


def _option(name: str, present: Any, value: Any) -> Any:
    if present is None:
        raise UsageError(f"no such option of an emulated host: {name}")
    if isinstance(present, str):
        return str(value)
    fits = isinstance(value, bool) == isinstance(present, bool) and isinstance(value, (int, type(present)))
    if not fits:
        raise UsageError(f"{name}={value!r} is not like {present!r}")
    return type(present)(value)


def add_device(
    machine: Machine, row: DeviceGeneration, *, serial: str | None = None, medium: Literal["own", "shared"] = "own"
) -> EmulatedPrimary:
    """Put a device into the next free slot; the kernel's nvme driver takes its physical function.

    Args:
        serial: its serial number; by default the generation's, with the slot's number behind it after the first.
        medium: ``shared`` lets all such devices of hosts that share a storage directory see the same namespaces.
    """
    primaries = machine.state["primaries"]
    number = len(primaries)
    bdf = f"0000:{_FIRST_BUS + number:02x}:00.0"
    primary = primaries[bdf] = EmulatedPrimary(
        bdf=bdf,
        generation=write_generation(machine.directory, row),
        serial=serial or (row.serial if number == 0 else f"{row.serial}-{number}"),
        medium="shared" if medium == "shared" else f"pf{number}",
        first_cntlid=row.first_cntlid,
        numvfs=0,
        autoprobe=True,
        gone=False,
        vq_primary=0,
        vi_primary=0,
        vq_pending=0,
        vi_pending=0,
        own=new_controller(row.first_cntlid, 0),
        secondaries={},
        attached={str(spec.nsid): _attached(row) for spec in row.namespaces},
        queues={},
        next_queue=1,
        resets=0,
    )
    drivers.attach(machine, add_function(machine, bdf, bdf, -1))
    return primary


def _attached(row: DeviceGeneration) -> list[int]:
    last = row.max_vfs if row.attached_to_secondaries else 0
    return list(range(row.first_cntlid, row.first_cntlid + last + 1))


def default_devices() -> Sequence[DeviceGeneration]:
    """Return what a host has when nobody said otherwise."""
    return [DEFAULT]
