"""``nvmelm serve``: the other end of ``migrate`` and ``recover``, started by them through ssh."""

from __future__ import annotations

import os

from nvmelm.cli.frame.callouts import CalloutDirectory, points_of
from nvmelm.cli.frame.options import group
from nvmelm.cli.frame.run import Run, verb
from nvmelm.errors import LinkLostError, NvmelmError, UncertainError, UsageError
from nvmelm.migrate import destination
from nvmelm.migrate.link.remote import standard_link
from nvmelm.process.interrupts import interruptible

app = group("The other end of a migration.")


@verb(app, "serve")
def serve(run: Run, callouts: CalloutDirectory = None) -> int:
    """Take the destination's part of one migration over standard input and output; migrate starts this by ssh."""
    if os.isatty(0) or os.isatty(1):
        raise UsageError(
            "serve speaks with another nvmelm, not with a terminal",
            fix="nvmelm migrate PF CNTLID --to ssh://HOST/PF, on the other host, starts it",
            reason="terminal",
        )
    with interruptible(), standard_link(_client()) as link:
        try:
            destination.serve(run.host(), link, points=points_of("destination", callouts), name=os.uname().nodename)
        except (UncertainError, LinkLostError):
            raise
        except NvmelmError as error:  # the other side was told, and shows it
            return int(error.exit_code)
    return 0


def _client() -> str:
    """Return what the other side is called here: the address ssh gives, as a name in messages only."""
    words = os.environ.get("SSH_CONNECTION", "").split()
    return words[0] if words and len(words[0]) <= 64 else "the source"
