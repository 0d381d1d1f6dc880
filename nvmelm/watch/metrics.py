"""What is known of a host as numbers, in Prometheus' text format, for the node exporter's textfile collector.

Source: Prometheus, Exposition formats, text-based format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from nvmelm.disk.atomic import AtomicFile
from nvmelm.harmless import harmless
from nvmelm.inventory.vm_moves import Held
from nvmelm.watch.differences import KnownPrimary
from nvmelm.watch.sessions import SessionLooks
from nvmelm.watch.survey import Looks

Row = tuple[Mapping[str, str], float]

_ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
#: Readable by the exporter, which is another user.
_MODE = 0o644


def of_host(looks: Looks) -> str:
    """Return what is known of a host."""
    return "".join(
        [
            _family("nvmelm_vfs_enabled", "gauge", "Virtual functions that are enabled.", _vfs(looks)),
            _family(
                "nvmelm_controlled_functions",
                "gauge",
                "Secondary controllers by state (suspended, where known) and driver of their VF.",
                _counted(("primary", "state", "driver"), _controllers(looks)),
            ),
            _family(
                "nvmelm_marks",
                "gauge",
                "Marks by role, and whether they hold.",
                _counted(("primary", "role", "holds"), _marks(looks)),
            ),
            *_moving(looks.vms.held),
        ]
    )


def _moving(held: Sequence[Held]) -> Iterator[str]:
    """Yield what is known of functions that move with their VMs."""
    yield _family(
        "nvmelm_vm_functions",
        "gauge",
        "Functions that a VM under nvmelm has open, by VFIO's migration state.",
        [({**_who(record), "state": record.state}, 1) for record in held],
    )
    yield _family(
        "nvmelm_vm_last_arc_seconds",
        "gauge",
        "What the last change of a function's migration state took.",
        [({**_who(record), "arc": record.arc}, record.arc_seconds) for record in held if record.arc_seconds],
    )
    yield _family(
        "nvmelm_vm_refused",
        "gauge",
        "Whether something was refused to a function's VM; nvmelm show tells what was, last.",
        [(_who(record), int(bool(record.refusal))) for record in held],
    )


def _who(held: Held) -> dict[str, str]:
    return {"primary": held.primary, "address": held.address, "vm": harmless(held.vm)}


def of_stream(sessions: SessionLooks, lines: Mapping[str, int], *, troubles: int, at: float) -> str:
    """Return what is known of the host's sessions, and what was said.

    Args:
        lines: how many lines of each kind.
        troubles: how many looks fail, or hang, at present.
        at: when the host was looked at last, seconds since the epoch; 0: not yet.
    """
    return "".join(
        [
            _family(
                "nvmelm_sessions",
                "gauge",
                "Migrations as this host wrote them down.",
                _counted(
                    ("side", "state"), ((record.side.value, record.state.value) for record in sessions.records.values())
                ),
            ),
            _family(
                "nvmelm_sessions_unfinished",
                "gauge",
                "Migrations in which something is left to be decided here.",
                [({}, sum(not record.over for record in sessions.records.values()))],
            ),
            _family("nvmelm_watch_troubles", "gauge", "Looks that fail or hang at present.", [({}, troubles)]),
            _family(
                "nvmelm_watch_lines_total",
                "counter",
                "Lines since the watch began.",
                [({"kind": kind}, count) for kind, count in sorted(lines.items())],
            ),
            _family("nvmelm_watch_timestamp_seconds", "gauge", "When the host was looked at last.", [({}, at)]),
        ]
    )


def write(path: Path, text: str) -> None:
    """Replace the file as a whole.

    Raises:
        HostError: it cannot be written; what was there still is.
    """
    with AtomicFile(path, mode=_MODE, replace=True) as file:
        file.write(text.encode())
        file.commit()


def _vfs(looks: Looks) -> list[Row]:
    return [({"primary": address}, known.picture.primary.vfs_enabled) for address, known in _sorted(looks)]


def _controllers(looks: Looks) -> Iterable[tuple[str, ...]]:
    for address, known in _sorted(looks):
        yield from ((address, secondary.standing, secondary.driver or "") for secondary in known.picture.secondaries)


def _marks(looks: Looks) -> Iterable[tuple[str, ...]]:
    for address, known in _sorted(looks):
        for secondary in known.picture.secondaries:
            if secondary.mark:
                yield address, secondary.mark.role.value, str(secondary.mark.holds).lower()


def _sorted(looks: Looks) -> Iterable[tuple[str, KnownPrimary]]:
    return sorted(looks.functions.items())


def _counted(names: tuple[str, ...], keys: Iterable[tuple[str, ...]]) -> list[Row]:
    return [(dict(zip(names, key, strict=True)), count) for key, count in sorted(Counter(keys).items())]


def _family(name: str, kind: str, about: str, rows: Iterable[Row]) -> str:
    lines = [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{_labels(labels)} {_number(value)}" for labels, value in rows]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{key}="{value.translate(_ESCAPED)}"' for key, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.6f}".rstrip("0")
