"""The journal of a PF: every change written down before it is made, with what was there before.

One file per PF, one line of JSON per record, appended and synced. A run of a verb looks like this::

    {"record":"run","run":"5f0c…","verb":"source prepare","boot":"…","started_at":"…","serial":"…","target":{…}}
    {"record":"begin","run":"5f0c…","phase":"sr-iov","summary":"enable 4 VFs","changes":[["vfs",0,4]]}
    {"record":"begin",…}
    {"record":"end","run":"5f0c…","outcome":"done"}

A run without its ``end`` was interrupted. Whether its last changes were made does not matter: an undo goes by the
values that were there *before*, which are all in the journal, and by what is there now, which the host tells. The
first value a cell had since the last release is the one ``release`` brings back.

The file is named after a place, and another device may be in it by now: whatever is used of the journal is used for
the device whose serial number its runs bear, and for no other.

A last line without its end was torn: the disk filled up, or the machine stopped in the middle of it. Nothing was done
on what it says; it is passed over, and cut off by the next record. Any other line that cannot be read is an error: what
it said of the values before is lost, and an undo would leave that out without a word.
"""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from nvmelm.disk import store
from nvmelm.errors import HostError, MalformedError
from nvmelm.host import Host
from nvmelm.prepare.actions import Action, Change
from nvmelm.prepare.cells import Cells, Value, read_cells, survives_boot, written_cells

_RUN_FIELDS = ("run", "verb", "boot", "started_at", "serial")

Outcome = Literal["done", "failed", "rolled back", "recovered", "superseded"]


@dataclass(slots=True)
class JournaledRun:
    """One run of a verb as the journal holds it.

    Attributes:
        wanted: the cells it wanted, so that it can be finished.
        changes: what it changed or was about to change, in order.
        phases: of each action that was begun, beside its summary; those of one phase are begun together.
        outcome: how it ended, or None when it did not.
    """

    run: str
    verb: str
    boot: str
    started_at: str
    serial: str
    wanted: Cells
    changes: list[Change] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    outcome: str | None = None

    def before(self, boot: str = "") -> Cells:
        """Return the value each cell had before the run.

        Args:
            boot: leave out what a boot since the run undid by itself, if this is another boot than the run's.
        """
        cells: Cells = {}
        for change in self.changes:
            if boot in ("", self.boot) or survives_boot(change.cell):
                cells.setdefault(change.cell, change.before)
        return cells

    @property
    def begun_last(self) -> list[str]:
        """Return the actions that were begun last, together: those of a run that was cut off may be done or not."""
        count = 0
        while count < len(self.phases) and self.phases[-1 - count] == self.phases[-1]:
            count += 1
        return self.summaries[len(self.summaries) - count :]

    def lasting(self, boot: str) -> Cells:
        """Return the cells a run wanted; after a reboot only those that outlive one."""
        return {name: value for name, value in self.wanted.items() if boot == self.boot or survives_boot(name)}


class Journal:
    """The journal of one PF on one host.

    Args:
        serial: the serial number of the device whose runs are meant; None: of every device that was ever in the place.
    """

    def __init__(self, host: Host, address: str, serial: str | None = None) -> None:
        self.address = address
        self.serial = serial
        self.path = journal_path(host, address)
        self._host = host
        self._run = ""

    def begin(self, verb: str, serial: str, wanted: Cells) -> None:
        """Open a run; what it changes is appended by :meth:`intend`.

        Raises:
            MalformedError: the journal cannot be read, so nothing that was changed could be put back.
            HostError: it cannot be written.
        """
        self.runs()
        self._run = uuid.uuid4().hex
        self._append(
            {
                "record": "run",
                "run": self._run,
                "verb": verb,
                "boot": self._host.facts().boot_id,
                "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "serial": serial,
                "target": written_cells(wanted),
            }
        )

    def intend(self, actions: Iterable[Action]) -> None:
        """Write down changes about to be made; they may be made once this returns.

        Raises:
            HostError: the journal cannot be written; nothing may be changed then.
        """
        lines = []
        for action in actions:
            changes = [[str(change.cell), change.before, change.after] for change in action.changes]
            body = {"phase": action.phase, "summary": action.summary, "changes": changes}
            lines.append({"record": "begin", "run": self._run, **body})
        self._append(*lines)

    def end(self, outcome: Outcome, run: str = "") -> None:
        """Close the run that was begun, or another one by its id."""
        self._append({"record": "end", "run": run or self._run, "outcome": outcome})

    def try_end(self, outcome: Outcome, run: str = "") -> None:
        """Close a run where the disk lets us; an unclosed run is found by ``recover``, which loses nothing."""
        try:
            self.end(outcome, run)
        except HostError:
            return

    def supersede(self, wanted: Cells, *, anew: bool = False) -> None:
        """Close earlier runs that were cut off and have nothing left to be undone by now.

        Everything they wanted or changed is as a later run wanted it; :meth:`original` still has what was before them.

        Args:
            wanted: the cells that are as they are wanted now.
            anew: all VFs were removed on the way, so that nothing is left of what was done to them.
        """
        for run in self.unfinished():
            cells = run.wanted.keys() | run.before().keys()
            lasting = {name for name in cells if survives_boot(name)}
            if self._ours(run) and ((anew and lasting <= wanted.keys()) or (cells and cells <= wanted.keys())):
                self.try_end("superseded", run.run)

    def runs(self) -> list[JournaledRun]:
        """Return every run since the last release, oldest first.

        Raises:
            MalformedError: a line is not what nvmelm wrote; it is named.
        """
        runs: dict[str, JournaledRun] = {}
        for number, record in self._records():
            try:
                _take(runs, record)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise self._damaged(number) from error
        return list(runs.values())

    def _records(self) -> Iterator[tuple[int, Any]]:
        """Return each record with the number of its line, from 1; a torn last line is none."""
        *lines, _ = (store.read(self.path) or "").split("\n")
        for number, line in enumerate(lines, 1):
            try:
                if line:
                    yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise self._damaged(number) from error

    def _damaged(self, number: int) -> MalformedError:
        path = shlex.quote(str(self.path))
        return MalformedError(
            f"{self.path}, line {number}: it is not what nvmelm wrote",
            cause=f"it says what was there before a change of {self.address}; an undo without it leaves something out",
            fix=f"bring a whole copy back; or look at the line (sed -n {number}p {path}), undo by hand what it names, "
            f"and take it out: sed -i {number}d {path}",
            reason="journal-damaged",
        )

    def unfinished(self) -> list[JournaledRun]:
        """Return the runs that did not end."""
        return [run for run in self.runs() if run.outcome is None]

    def original(self) -> Cells:
        """Return the first known value of every cell of a device that was touched since the last release.

        Of what an earlier boot touched only that is left which outlives a reboot.
        """
        boot = self._host.facts().boot_id
        cells: Cells = {}
        for run in self.runs():
            if self._ours(run):
                for name, value in run.before(boot).items():
                    cells.setdefault(name, value)
        return cells

    def forget(self) -> None:
        """Remove what the journal holds of the device: everything of it was undone."""
        others = {run.run for run in self.runs() if not self._ours(run)}
        if not others:
            store.remove(self.path)
            return
        records = [record for _, record in self._records() if record["run"] in others]
        store.write(self.path, "".join(f"{_line(record)}\n" for record in records))

    def _ours(self, run: JournaledRun) -> bool:
        return self.serial is None or run.serial == self.serial

    def _append(self, *records: dict[str, Any]) -> None:
        store.append(self.path, "".join(f"{_line(record)}\n" for record in records), whole_lines=True)


def journal_path(host: Host, address: str) -> Path:
    """Return the file of a PF's journal."""
    return host.state_dir / "journal" / f"{address}.jsonl"


def journals(host: Host) -> list[Journal]:
    """Return the journals of every PF that has one."""
    names = store.names(host.state_dir / "journal")
    return [Journal(host, name.removesuffix(".jsonl")) for name in names if name.endswith(".jsonl")]


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, separators=(",", ":"))


def _change(name: str, before: Value, after: Value) -> Change:
    (cell,) = read_cells({name: before})
    read_cells({name: after})
    return Change(cell, before, after)


def _take(runs: dict[str, JournaledRun], record: Any) -> None:
    """Add one record to the runs.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: it is not of our shape, or of a run that has no beginning.
    """
    if record["record"] == "run":
        run_id, verb, boot, started_at, serial = (_text(record[name]) for name in _RUN_FIELDS)
        runs[run_id] = JournaledRun(run_id, verb, boot, started_at, serial, read_cells(record["target"]))
    elif record["record"] == "begin":
        run = runs[record["run"]]
        changes = [_change(name, before, after) for name, before, after in record["changes"]]
        summary, phase = _text(record["summary"]), _text(record["phase"])
        run.changes += changes
        run.summaries.append(summary)
        run.phases.append(phase)
    elif record["record"] == "end":
        runs[record["run"]].outcome = _text(record["outcome"])
    else:
        raise ValueError("a record of another kind")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value
