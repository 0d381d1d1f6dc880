"""What nvmelm reads from its environment, and the files it keeps; the man page and the reference print these tables."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """A variable or a file, and what it is."""

    name: str
    about: str


ENVIRONMENT: tuple[Place, ...] = (
    Place("NVMELM_HOST", "Where a verb works when no --host is given: local, emulated:DIR or replay:FILE."),
    Place("NVMELM_STATE_DIR", "The directory for what nvmelm remembers on this machine, instead of /var/lib/nvmelm."),
    Place("NVMELM_CONFIG", "The directory of nvmelm.toml and nvmelm.d, instead of /etc."),
    Place("NVMELM_CALLOUTS", "The directory of the callouts that always run, instead of /etc/nvmelm/callouts.d."),
    Place("NVMELM_DEBUG", "1 prints the traceback of an exception that nobody expected."),
    Place("NO_COLOR", "Anything but the empty text switches colours off."),
    Place("JOURNAL_STREAM", "Set by systemd; when it names stderr, errors and changes go to the journal with fields."),
    Place("SSH_CONNECTION", "Set by sshd; nvmelm serve takes the other host's address from it."),
    Place("SUDO_USER", "Set by sudo; a mark says who gave it."),
    Place("NOTIFY_SOCKET", "Set by systemd; nvmelm vm agent says there that it is ready, and leaves listeners."),
    Place("LISTEN_PID", "Set by systemd: for whom the sockets and listeners are that LISTEN_FDS passes."),
    Place("LISTEN_FDS", "Set by systemd: how many there are."),
    Place("LISTEN_FDNAMES", "Set by systemd: what each is."),
)

FILES: tuple[Place, ...] = (
    Place("/etc/nvmelm.toml", "What nvmelm apply makes of this host."),
    Place("/etc/nvmelm.d/", "More of that, in files whose names end in .toml."),
    Place("/etc/nvmelm/callouts.d/", "Programs that run at the named points of every migration."),
    Place("/etc/nvmelm/launcher.conf", "How nvmelm-vmm starts a VMM: socket, required, memory."),
    Place("/run/nvmelm/agent.sock", "Where nvmelm vm agent listens for nvmelm-vmm."),
    Place("/var/lib/nvmelm/", "What nvmelm remembers; mode 0700, its owner root."),
    Place("/var/lib/nvmelm/marks/", "The marks of step 3, one file a controlled function."),
    Place("/var/lib/nvmelm/journal/", "What was changed on each controlling function, and what was there before."),
    Place(
        "/var/lib/nvmelm/saved/", "Which state was saved last from each controlled function; never the state itself."
    ),
    Place("/var/lib/nvmelm/sessions.db", "Who owns the controllers that move between two hosts."),
    Place("/var/lib/nvmelm/vms/", "Which VMMs are answered, and what the agent must know of them after a restart."),
    Place("/var/lib/nvmelm/locks/", "Locks that keep two runs apart; empty files."),
)
