"""Which world a verb works in: this machine, an emulated host or a recording, and whether the session is recorded."""

from __future__ import annotations

import shlex
from pathlib import Path

from nvmelm.errors import UsageError
from nvmelm.host import Host


def open_host(
    spec: str,
    *,
    record: Path | None = None,
    redact: bool = False,
    keep_state: bool = False,
    replace: bool = False,
    about: str = "",
) -> Host:
    """Open the host that ``--host`` names; the caller closes it.

    Args:
        spec: ``local``, ``emulated:DIR`` or ``replay:FILE``.
        record: write the session to this file.
        redact: replace serial numbers and NQNs in the recording.
        keep_state: keep controller state in the recording; only for devices that hold nobody's data.
        replace: a recording that is there may be replaced.
        about: one sentence for the head of the recording.

    Raises:
        UsageError: the argument has none of the three forms.
        NotReadyError: there is a file of the recording's name.
        HostError: a directory or file cannot be read or written.
        MalformedError: a file has not the format it should have.
    """
    host = _open(spec)
    if record is None:
        return host
    from nvmelm.host.recording.record import RecordingHost  # the models of the format: only when they are needed

    try:
        return RecordingHost(host, record, about=about, redact=redact, keep_state=keep_state, replace=replace)
    except BaseException:
        host.close()
        raise


def _require_a_host(directory: Path) -> None:
    """Refuse a directory that holds something else: it would become a host. A missing or empty one becomes a new host.

    Raises:
        UsageError: it is no emulated host, or its own directory is not there.
    """
    if (directory / "state.json").exists():
        return
    try:
        empty = next(directory.iterdir(), None) is None
    except FileNotFoundError:
        empty = directory.absolute().parent.is_dir()
    except OSError:  # said by who opens it
        return
    if not empty:
        raise UsageError(
            f"{directory} is no emulated host",
            cause="it holds something else, or the directory it would be in is not there",
            fix=f"nvmelm emulate create {shlex.quote(str(directory))} makes one",
            reason="not-an-emulated-host",
        )


def _open(spec: str) -> Host:
    """Import what the spec needs, and nothing else: every verb pays for what stands here."""
    kind, _, rest = spec.partition(":")
    if spec == "local":
        from nvmelm.host.local.machine import LocalHost

        return LocalHost()
    if kind == "emulated" and rest:
        from nvmelm.emulator.host import EmulatedHost

        _require_a_host(Path(rest))
        return EmulatedHost(Path(rest))
    if kind == "replay" and rest:
        from nvmelm.host.recording.replay import ReplayHost

        return ReplayHost(Path(rest))
    raise UsageError(
        f"{spec!r} names no host",
        cause="a host is this machine, an emulated host, or a recording",
        fix="--host local, --host emulated:DIR or --host replay:FILE",
        reason="host-unknown",
    )
