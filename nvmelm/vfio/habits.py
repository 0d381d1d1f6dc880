"""Which kinds of devices restore their admin queue by themselves: found out once for each, while a VM waits.

What was found out is kept in ``vm/habits.json`` below the state directory, so that neither another agent nor another
``vm run`` lets a VM wait for it again. A kind is a vendor, a model and its firmware, and the format of its state.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from nvmelm.disk import store
from nvmelm.errors import HostError
from nvmelm.host import Host
from nvmelm.state.image.format import ImageHeader
from nvmelm.state.restore import Target

_FORMAT = 1


class Habits:
    """What is known of the kinds of devices that this host has met."""

    def __init__(self, host: Host) -> None:
        self._path = host.state_dir / "vm" / "habits.json"
        self._known = _read(self._path)

    def may_restore(self, image: ImageHeader, target: Target) -> bool:
        """Return whether a state of this kind may bring the admin queue with it."""
        return bool(image.vendor_bytes) and self._known.get(_kind(image, target), True)

    def learn(self, image: ImageHeader, target: Target, *, restores: bool) -> None:
        """Remember what a device of this kind did; without room on the disk, for as long as this process lives."""
        kind = _kind(image, target)
        if self._known.get(kind) is restores:
            return
        self._known = {**_read(self._path), **self._known, kind: restores}
        with suppress(HostError):
            text = json.dumps({"format": _FORMAT, "restores_admin_queue": self._known}, indent=1, sort_keys=True)
            store.write(self._path, text + "\n", durable=False)  # a VM waits


def _kind(image: ImageHeader, target: Target) -> str:
    return json.dumps([target.vendor_id, target.model, target.firmware, str(image.vendor_uuid)])


def _read(path: Path) -> dict[str, bool]:
    """Return what was found out; of a file that makes no sense, nothing: it is found out again."""
    with suppress(HostError, ValueError, TypeError):
        document = json.loads(store.read(path) or "{}")
        if isinstance(document, dict) and document.get("format") == _FORMAT:
            rows = document.get("restores_admin_queue")
            return (
                {kind: known for kind, known in rows.items() if isinstance(known, bool)}
                if isinstance(rows, dict)
                else {}
            )
    return {}
