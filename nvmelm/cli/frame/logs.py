"""What a verb under systemd writes to the journal: entries with fields, instead of lines.

When stderr is the journal (``JOURNAL_STREAM`` names it, as systemd.exec(5) says), an error and each change of a
changing verb become entries of their own, sent by the journal's native protocol::

    journalctl NVMELM_DEVICE=0000:01:00.0 NVMELM_CNTLID=0x0042

===================== ==================================================================
``NVMELM_VERB``       ``sriov enable``
``NVMELM_DEVICE``     PCI address of the controlling function; one field for each
``NVMELM_VF``         PCI address of a VM's function, of an entry about its VM's calls
``NVMELM_CNTLID``     controller identifier, ``0x0042``; one field for each
``NVMELM_SESSION``    the migration, 32 hexadecimal digits
``NVMELM_STEP``       the step of a change, of an entry about a change
``NVMELM_KIND``       the kind of an error, of an entry about an error
``NVMELM_REASON``     its reason, when it has one
``NVMELM_EXIT_CODE``  0, or what the error ends the program with
===================== ==================================================================

Nothing of a state image is in them. Values are sent with their length where they are more than one line, so no text
from a device, a file or a peer can begin a field or an entry of its own.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from nvmelm.cli.frame import render
from nvmelm.errors import NvmelmError

SOCKET = Path("/run/systemd/journal/socket")

#: syslog(3)'s numbers.
ERROR, NOTICE, INFO = 3, 5, 6

#: Longer values are cut: a datagram must fit into the socket's buffer.
_MAX_CHARACTERS = 8192
#: A controller in the sentence of a change, as nvmelm's own plans write it.
_CONTROLLER = re.compile(r"\b0x[0-9a-f]{4}\b")
_SESSION = re.compile(r"\b[0-9a-f]{32}\b")
_DEVICES = ("primary", "source_primary")
_CNTLIDS = ("cntlid", "source_cntlid")

Field = tuple[str, str]


def is_journal(stream: TextIO | None) -> bool:
    """Return whether a stream is the one that systemd connected with the journal."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        about = os.fstat(stream.fileno()) if stream is not None else None
    except (OSError, ValueError):  # closed, or no file at all
        return False
    return about is not None and (device, inode) == (str(about.st_dev), str(about.st_ino))


def error_entry(error: NvmelmError, command: str, fields: Iterable[Field] = ()) -> list[Field]:
    """Return the entry of an error: its lines as the message, its words as fields."""
    notes = [f"note: {note}" for note in getattr(error, "__notes__", ())]
    rest = [f"cause: {error.cause}"] * bool(error.cause) + [f"fix: {error.fix}"] * bool(error.fix)
    lines = [render.plain(line) for line in (error.message, *rest, *notes)]
    known = [("NVMELM_VERB", command), *fields]
    known += [("NVMELM_SESSION", session) for session in dict.fromkeys(_SESSION.findall(" ".join(lines)))]
    known += [("NVMELM_KIND", error.kind), ("NVMELM_REASON", error.word)]
    return _entry(ERROR, "\n".join(lines), [*known, ("NVMELM_EXIT_CODE", str(int(error.exit_code)))])


def change_entries(document: dict[str, Any], command: str, fields: Iterable[Field] = ()) -> Iterator[list[Field]]:
    """Return the entries of a changing verb's answer: one for each change, and one for the whole. A plan has none.

    Args:
        fields: what is known of the verb besides.
    """
    if document.get("dry_run"):
        return
    verb = [("NVMELM_VERB", command)]
    for report in _reports(document):
        for action in report.get("actions", ()):
            summary = action["summary"]
            controllers = [("NVMELM_CNTLID", cntlid) for cntlid in dict.fromkeys(_CONTROLLER.findall(summary))]
            about = [*verb, *subjects(report), *controllers, ("NVMELM_STEP", action["step"])]
            yield _entry(INFO, f"{command}: {summary}", about)
    changed = bool(document.get("changed"))
    message = f"{command}: {'done' if changed else 'nothing to do'}"
    about = list(dict.fromkeys([*verb, *subjects(document), *fields]))
    yield _entry(NOTICE if changed else INFO, message, [*about, ("NVMELM_EXIT_CODE", "0")])


def subjects(document: dict[str, Any]) -> list[Field]:
    """Return what a document is about, as fields: its devices, controllers and sessions, each once."""
    return list(dict.fromkeys(_subjects(document)))


def _subjects(document: dict[str, Any]) -> Iterator[Field]:
    for name, value in document.items():
        if name in _DEVICES and isinstance(value, str):
            yield "NVMELM_DEVICE", value
        elif name in _CNTLIDS and isinstance(value, int):
            yield "NVMELM_CNTLID", render.cntlid(value)
        elif name == "cntlids":
            yield from (("NVMELM_CNTLID", render.cntlid(cntlid)) for cntlid in value)
        elif name == "session" and isinstance(value, str):
            yield "NVMELM_SESSION", value
    for below in _below(document):
        yield from _subjects(below)


def _below(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the documents in a document, but not a picture: it shows every controller, whatever was done."""
    for name, value in document.items():
        if name != "picture":
            yield from (item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict))


def _reports(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the reports with actions: the document itself, or those in it."""
    if "actions" in document:
        yield document
    for below in _below(document):
        yield from _reports(below)


def _entry(priority: int, message: str, fields: list[Field]) -> list[Field]:
    head = [("MESSAGE", message), ("PRIORITY", str(priority)), ("SYSLOG_IDENTIFIER", "nvmelm")]
    return [*head, *(field for field in fields if field[1])]


def encode(fields: Iterable[Field]) -> bytes:
    r"""Return an entry as the journal's native protocol has it.

    >>> encode([("MESSAGE", "done")])
    b'MESSAGE=done\n'
    >>> encode([("MESSAGE", "a\nb")])
    b'MESSAGE\n\x03\x00\x00\x00\x00\x00\x00\x00a\nb\n'
    """
    return b"".join(_field(name, value) for name, value in fields)


def _field(name: str, value: str) -> bytes:
    data = value[:_MAX_CHARACTERS].encode("utf-8", "backslashreplace")
    if value.isprintable():
        return name.encode("ascii") + b"=" + data + b"\n"
    return name.encode("ascii") + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def send(entries: Iterable[list[Field]], path: Path | None = None) -> bool:
    """Send entries to the journal; return False when it does not take them, so that they are printed instead."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as journal:
            journal.settimeout(1.0)  # a journal that has stopped must not stop a migration
            journal.connect(str(path or SOCKET))
            for entry in entries:
                journal.sendall(encode(entry))
    except OSError:
        return False
    return True


def log_error(error: NvmelmError, command: str, fields: Iterable[Field] = ()) -> bool:
    """Send an error to the journal when stderr is the journal; return whether it has it."""
    return is_journal(sys.stderr) and send([error_entry(error, command, fields)])


def log_changes(document: dict[str, Any], command: str, fields: Iterable[Field] = ()) -> bool:
    """Send a changing verb's answer to the journal when stderr is the journal.

    Returns:
        Whether stdout is the journal too, so that printing the answer would say everything twice.
    """
    return is_journal(sys.stderr) and send(change_entries(document, command, fields)) and is_journal(sys.stdout)
