"""What SOURCE and DESTINATION can be: a manifest's file, a tree, a function of this host, or one behind ssh."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nvmelm.compat.manifest import MAX_BYTES, Manifest, load
from nvmelm.disk.bounded import parsed, what_is
from nvmelm.errors import (
    BusyError,
    ExitCode,
    MalformedError,
    NotSupportedError,
    NvmelmError,
    TimedOutError,
    UsageError,
)
from nvmelm.inventory.address import Address

if TYPE_CHECKING:
    from nvmelm.cli.frame.run import Run
    from nvmelm.inventory.find import PrimaryRef
    from nvmelm.inventory.pci import Bdf
    from nvmelm.process.child import Printed

_ERRORS: Mapping[int, type[NvmelmError]] = {
    ExitCode.USAGE: UsageError,
    ExitCode.NOT_SUPPORTED: NotSupportedError,
    ExitCode.BUSY: BusyError,
    ExitCode.TIMED_OUT: TimedOutError,
}
_ENDED = {
    255: "it could not connect, or the connection broke",
    127: "nvmelm is not installed there, or not in the path of a login without a terminal",
    126: "nvmelm may not be executed there",
}
_MAX_SENTENCE = 500


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the operator said besides the ends.

    Attributes:
        vq, vi, namespaces: what a function that is not there yet would get; None: what it can get.
        rsh: replaces ssh. program: what to run on the other host.
    """

    vq: int | None = None
    vi: int | None = None
    namespaces: tuple[int, ...] | None = None
    rsh: str = ""
    program: str = "nvmelm"
    timeout_s: float = 60.0

    @property
    def prospective(self) -> bool:
        """Return whether something was said of a function that is not there yet."""
        return (self.vq, self.vi, self.namespaces) != (None, None, None)

    def words(self) -> list[str]:
        """Return the options of ``compat export`` that say the same."""
        words = [] if self.vq is None else ["--vq", str(self.vq)]
        words += [] if self.vi is None else ["--vi", str(self.vi)]
        for nsid in self.namespaces or ():
            words += ["--nsid", str(nsid)]
        return words


def manifest_of(run: Run, text: str, wanted: Wanted) -> Manifest:
    """Return the manifest that a word of the command line stands for.

    Raises:
        UsageError: it stands for nothing.
        MalformedError: what it names is no manifest.
        NvmelmError: it cannot be read.
    """
    if text.startswith("ssh://"):
        return _remote(Address.parse(text), wanted)
    kind = "nothing" if text.startswith("/sys/") else what_is(text)
    if kind == "file":
        return parsed(text, MAX_BYTES, Manifest.parse)
    if kind == "directory":
        from nvmelm.compat.dialects.tree import read_tree  # 9 ms, for trees alone

        return read_tree(Path(text))
    return _local(run, text, wanted)


def _local(run: Run, text: str, wanted: Wanted) -> Manifest:
    try:
        ref, which = _function_named(run, text)
    except UsageError as error:
        raise UsageError(
            f"{text!r} is neither a manifest nor a function of this host",
            cause=error.message,
            fix="name a file, a directory, PF, PF/CNTLID or ssh://HOST/PF/CNTLID",
            reason="no-such-end",
        ) from error
    return _read(run, ref, which, wanted)


def of_function(run: Run, text: str, wanted: Wanted) -> Manifest:
    """Return the manifest of a function of this host, or with a PF's name of one to come."""
    ref, which = _function_named(run, text)
    if which is not None and wanted.prospective:
        raise UsageError(
            f"--vq, --vi and --nsid speak of a function to come, and {text} names one that is there",
            fix="name its PF alone, or leave the options out",
            reason="arguments",
        )
    return _read(run, ref, which, wanted)


def _function_named(run: Run, text: str) -> tuple[PrimaryRef, Bdf | int | None]:
    from nvmelm.inventory.find import find_either  # 16 ms: a file needs no device

    return find_either(run.host(), text)


def _read(run: Run, pf: PrimaryRef, which: Bdf | int | None, wanted: Wanted) -> Manifest:
    """Read the manifest of a controlled function of the run's host, or of a prospective one when ``which`` is None."""
    from nvmelm.compat import describe as reader  # 38 ms: a file's manifest needs no device
    from nvmelm.inventory.read import resolve

    with run.primary(pf) as primary:
        picture = primary.picture()
        if which is not None:
            return reader.of_function(primary.host, primary.queue, picture, resolve(picture, which))
        return reader.prospective(
            primary.host, primary.queue, picture, vq=wanted.vq, vi=wanted.vi, namespaces=wanted.namespaces
        )


def labelled(manifest: Manifest, labels: Mapping[str, str]) -> Manifest:
    """Return a manifest with labels; its digest stays the same."""
    return replace(manifest, labels={**manifest.labels, **labels})


def write(path: Path, manifest: Manifest, *, replace: bool = False) -> None:
    """Write a manifest to a file that appears whole or not at all.

    Raises:
        NotReadyError: a file has the name, and may not be replaced.
        HostError: the directory cannot be written.
    """
    from nvmelm.disk.atomic import AtomicFile  # 7 ms, where one is written

    with AtomicFile(path, replace=replace) as file:
        file.write(f"{manifest.dumps()}\n".encode())
        file.commit()


def _remote(address: Address, wanted: Wanted) -> Manifest:
    """Ask another host for a manifest; what it answers is checked as if an enemy had sent it."""
    from nvmelm.process.child import run_program  # what compares two files starts nothing

    if not address.pf or len(address.cntlids) > 1:
        raise UsageError(
            f"{address} names no function",
            cause="one PF, or one PF and one CNTLID, can be compared",
            fix="write it as ssh://HOST/PF/CNTLID, or ssh://HOST/PF for a function that is not there yet",
            reason="no-such-end",
        )
    which = [f"{cntlid:#06x}" for cntlid in address.cntlids]
    options = ["--json", *([] if which else wanted.words())]
    # ssh hands the far side one line, which its shell takes apart: so each word is quoted for that shell.
    line = f"{wanted.program} {shlex.join(['compat', 'export', *options, '--', address.pf, *which])}"
    words = address.command(line, rsh=wanted.rsh)
    printed = run_program(words, limit=MAX_BYTES, timeout_s=wanted.timeout_s, named=bool(wanted.rsh))
    if printed.status:
        raise _refused(address, words, printed)
    return Manifest.parse(printed.output)


def _refused(address: Address, words: Sequence[str], printed: Printed) -> NvmelmError:
    document = _error_document(printed.output)
    kind = _ERRORS.get(printed.status, NvmelmError)
    if document:
        message, cause, fix = (document.get(key) for key in ("message", "cause", "fix"))
        return kind(f"{address.name}: {_sentence(message)}", cause=_sentence(cause), fix=_sentence(fix))
    last = _last_line(printed.messages)
    cause = ": ".join(part for part in (_ENDED.get(printed.status, ""), last) if part)
    return NvmelmError(
        f"{words[0]} ended with {printed.status} and brought no manifest of {address}",
        cause=cause,
        fix=f"try it by hand: {shlex.join(words)}",
        reason="remote-export",
    )


def _error_document(output: bytes) -> dict[str, Any]:
    try:
        document = load(output)
    except MalformedError:
        return {}
    fits = isinstance(document, dict) and document.get("schema") == "nvmelm.error"
    return document if fits and isinstance(document, dict) else {}


def _sentence(value: object) -> str:
    return value[:_MAX_SENTENCE] if isinstance(value, str) else ""


def _last_line(messages: bytes) -> str:
    lines = messages.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:_MAX_SENTENCE] if lines else ""
