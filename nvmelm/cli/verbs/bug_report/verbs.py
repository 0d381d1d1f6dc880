"""``nvmelm bug-report``: what somebody needs who looks into a problem, in one archive, without secrets."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from nvmelm.cli.frame import render
from nvmelm.cli.frame.options import group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.verbs.bug_report.archive import BugReport, Missing, Secrets, enclosed, readme, scratch, write
from nvmelm.disk.atomic import require_free
from nvmelm.errors import NvmelmError
from nvmelm.host import Host
from nvmelm.hosts import open_host
from nvmelm.inventory.find import PrimaryRef, find_primary, primaries
from nvmelm.inventory.opened import open_primary
from nvmelm.ownership.sessions import Sessions
from nvmelm.prepare.check import check
from nvmelm.prepare.journal import journals

app = group("For a bug report.")

Which = Annotated[str | None, typer.Argument(metavar="[PF]", help="Only this controlling function; all without it.")]
Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="The archive, a .tar.gz file.")]


@verb(app, "bug-report")
def bug_report(run: Run, pf: Which = None, output: Output = None) -> Answer:
    """Write one archive for a bug report: recordings, versions, host check; no serials, never a controller's state."""
    path = output or Path(f"nvmelm-bug-report-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar.gz")
    require_free(path, replace=run.settings.force)
    collection = Collection(run.host())
    refs = _chosen(run.host(), pf)
    for ref in refs:
        collection.secrets.add(ref.serial)
    for ref in refs:
        collection.record(run, ref)
    collection.add("host-check.json", "nvmelm host check", lambda: _host_check(run.host(), refs if pf else []))
    collection.add("versions.json", "versions of nvmelm, Python, the kernel and the packages", lambda: _versions(run))
    collection.add("runs.json", "verbs that changed something, and how they ended", lambda: _runs(collection))
    collection.add("sessions.json", "migrations with other hosts, and their states", lambda: _sessions(collection))
    texts, missing = collection.texts(), tuple(collection.missing())
    files = enclosed(texts)
    contents = {"README": readme(files, missing)} | {name: text for name, (text, _) in texts.items()}
    size = write(path, contents, replace=run.settings.force)
    report = BugReport(path=str(path), size_bytes=size, redacted=True, files=files, missing=missing)
    return Answer(report, lambda: _lines(report))


class Collection:
    """The files to come, and what could not be had; nothing that fails keeps the rest out."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.secrets: Secrets = Secrets()
        self._texts: dict[str, tuple[str, str]] = {}
        self._missing: dict[str, str] = {}

    def add(self, name: str, about: str, make: Callable[[], Any]) -> None:
        """Add a file with the JSON of what ``make`` returns."""
        try:
            self._texts[name] = (json.dumps(make(), indent=2) + "\n", about)
        except NvmelmError as error:
            self._missing[name] = f"{error.message}; {error.cause}" if error.cause else error.message

    def record(self, run: Run, ref: PrimaryRef) -> None:
        """Add a recording of ``show``; one that fails is worth most, so it is kept as far as it went."""
        address = str(ref.address)
        name = f"show-{address.replace(':', '-')}.json"
        with scratch() as place:
            file = place / name
            try:
                about = f"nvmelm show {address}"
                with (
                    open_host(run.settings.host, record=file, redact=True, about=about) as host,
                    open_primary(host, address) as pf,
                ):
                    self.secrets.add(pf.picture().primary.nqn)
            except NvmelmError as error:
                self._missing[f"{name}, the end of it"] = f"nvmelm show {address}: {error.message}"
            if file.exists():
                self._texts[name] = (file.read_text(encoding="utf-8"), f"a recording of nvmelm show {address}")

    def texts(self) -> dict[str, tuple[str, str]]:
        """Return each file's text, without secrets, and what it is about."""
        return {name: (self.secrets.without(text), about) for name, (text, about) in self._texts.items()}

    def missing(self) -> Iterator[Any]:
        """Return what could not be had."""
        for name, why in self._missing.items():
            yield Missing(name=name, why=render.plain(self.secrets.without(why)))


def _chosen(host: Host, pf: str | None) -> list[PrimaryRef]:
    return [find_primary(host, pf)] if pf else primaries(host)


def _host_check(host: Host, refs: list[PrimaryRef]) -> dict[str, Any]:
    return check(host, str(refs[0].address) if refs else None).to_json()


def _versions(run: Run) -> dict[str, Any]:
    return {
        "nvmelm": _version("nvmelm"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "kernel_of_host": run.host().facts().kernel_release,
        "host": run.host().kind,
        "system": _system(),
        "packages": {name: _version(name) for name in _packages()},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _packages() -> list[str]:
    """Return the packages nvmelm uses, those of its extras included."""
    try:
        wanted = metadata.requires("nvmelm") or []
    except metadata.PackageNotFoundError:  # run from a directory, not installed
        return []
    used = [requirement for requirement in wanted if not re.search(r"extra == .(dev|lab)\b", requirement)]
    return sorted({re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0] for requirement in used})


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:  # there is no os-release file
        return ""


def _runs(collection: Collection) -> list[dict[str, Any]]:
    """Return the runs of each PF's journal, field by field; the serial number is not among them."""
    rows = []
    for journal in journals(collection.host):
        for entry in journal.runs():
            collection.secrets.add(entry.serial)
            changes = [[str(change.cell), change.before, change.after] for change in entry.changes]
            about: dict[str, Any] = {
                "primary": journal.address,
                "run": entry.run,
                "verb": entry.verb,
                "started_at": entry.started_at,
            }
            rows.append(about | {"outcome": entry.outcome, "summaries": entry.summaries, "changes": changes})
    return rows


def _sessions(collection: Collection) -> list[dict[str, Any]]:
    """Return the sessions, field by field; where the other host is reached is not among them."""
    rows = []
    with Sessions(collection.host) as sessions:
        known = sessions.all()
    for record in known:
        collection.secrets.add(record.serial)
        about = {
            "session": record.id,
            "side": record.side.value,
            "state": record.state.value,
            "primary": record.primary,
        }
        controllers = [[controller.cntlid, controller.peer_cntlid] for controller in record.controllers]
        when = {
            "opened_at": record.opened_at,
            "changed_at": record.changed_at,
            "history": [list(row) for row in record.history],
        }
        rows.append(about | when | {"controllers": controllers, "note": _without_peer(record.note, record.peer)})
    return rows


def _without_peer(note: str, peer: str) -> str:
    """Return a note without the other host's name, which may be as short as a word, and without the account on it."""
    account = peer.removeprefix("ssh://").partition("/")[0]
    user, _, place = account.rpartition("@")
    host = place.rpartition(":")[0] if place.rpartition(":")[2].isdecimal() else place
    for name in filter(None, (account, place, host, user)):
        note = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", "REDACTED", note)
    return note


def _lines(report: BugReport) -> Iterator[str]:
    yield render.plain(f"{report.path}: {render.size(report.size_bytes)}, for its owner's eyes only")
    yield from render.facts((f"  {file.name}", file.about) for file in report.files)
    for gap in report.missing:
        yield render.plain(f"  missing, {gap.name}: {gap.why}")
    yield "serial numbers, NQNs and names of other hosts were replaced; no state of a controller is in it"
