"""What nvmelm reads from its environment, and the files it keeps; the man page and the reference print these tables."""

from __future__ import annotations

from typing import NamedTuple


class PlaceRow(NamedTuple):
    """A variable or a file, and what it is."""

    name: str
    about: str


ENVIRONMENT: tuple[PlaceRow, ...] = (
    PlaceRow("NVMELM_HOST", "Where a verb works when no --host is given: local, emulated:DIR or replay:FILE."),
    PlaceRow(
        "NVMELM_STATE_DIR", "The directory for what nvmelm remembers on this machine, instead of /var/lib/nvmelm."
    ),
    PlaceRow("NVMELM_CONFIG", "The directory of nvmelm.toml and nvmelm.d, instead of /etc."),
    PlaceRow("NVMELM_CALLOUTS", "The directory of the callouts that always run, instead of /etc/nvmelm/callouts.d."),
    PlaceRow("NVMELM_DEBUG", "1 prints the traceback of an exception that nobody expected."),
    PlaceRow("NO_COLOR", "Anything but the empty text switches colours off."),
    PlaceRow("SHELL", "The shell of --show-completion when none is named."),
    PlaceRow(
        "JOURNAL_STREAM", "Set by systemd; when it names stderr, errors and changes go to the journal with fields."
    ),
    PlaceRow("SSH_CONNECTION", "Set by sshd; nvmelm serve takes the other host's address from it."),
    PlaceRow("SUDO_USER", "Set by sudo; a mark says who gave it."),
    PlaceRow("NOTIFY_SOCKET", "Set by systemd; nvmelm vm agent says there that it is ready, and leaves listeners."),
    PlaceRow("LISTEN_PID", "Set by systemd: for whom the sockets and listeners are that LISTEN_FDS passes."),
    PlaceRow("LISTEN_FDS", "Set by systemd: how many there are."),
    PlaceRow("LISTEN_FDNAMES", "Set by systemd: what each is."),
)

FILES: tuple[PlaceRow, ...] = (
    PlaceRow("/etc/nvmelm.toml", "What nvmelm apply makes of this host."),
    PlaceRow("/etc/nvmelm.d/", "More of that, in files whose names end in .toml."),
    PlaceRow("/etc/nvmelm/callouts.d/", "Programs that run at the named points of every migration."),
    PlaceRow("/etc/nvmelm/launcher.conf", "How nvmelm-vmm starts a VMM: socket, required, memory."),
    PlaceRow("/run/nvmelm/agent.sock", "Where nvmelm vm agent listens for nvmelm-vmm."),
    PlaceRow("/var/lib/nvmelm/", "What nvmelm remembers; mode 0700, its owner root."),
    PlaceRow("/var/lib/nvmelm/marks/", "The marks of step 3, one file a controlled function."),
    PlaceRow("/var/lib/nvmelm/journal/", "What was changed on each controlling function, and what was there before."),
    PlaceRow(
        "/var/lib/nvmelm/saved/", "Which state was saved last from each controlled function; never the state itself."
    ),
    PlaceRow("/var/lib/nvmelm/sessions.db", "Who owns the controllers that move between two hosts."),
    PlaceRow("/var/lib/nvmelm/ownership/", "How far sessions.db has come: one that is gone, or older, is noticed."),
    PlaceRow("/var/lib/nvmelm/vms/", "Which VMMs are answered, and what the agent must know of them after a restart."),
    PlaceRow("/var/lib/nvmelm/locks/", "Locks that keep two runs apart; empty files."),
)
