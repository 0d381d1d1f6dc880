"""``python -m tests.lab.record OUT``: run the sessions inside the lab's guest, and keep recordings and answers.

``make fixtures`` boots the guest and calls this. Serial numbers and NQNs are redacted; the answers are those of the
real machine, so the replay tests compare with what a kernel and a device said, not with what our code said of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.lab import guest, machine
from tests.lab.sessions import SESSIONS


def main(out: Path) -> int:
    """Record every session; end with 1 when one did not end as it should."""
    (out / "transcripts").mkdir(parents=True)
    (out / "output").mkdir()
    nvmelm = machine.Cli(out / "state")
    failed = 0
    for session in SESSIONS:
        address = machine.find_pf(guest.SERIAL_A).address
        words = [address if word == "PF" else word for word in session.words]
        file = out / "transcripts" / f"{session.name}.json"
        done = nvmelm("--record", str(file), "--redact", *words, "--json")
        print(f"{session.name}: exit {done.code}, {done.seconds:.1f} s", flush=True)
        if done.code != session.code:
            print(done.stderr, flush=True)
            failed = 1
        (out / "output" / f"{session.name}.json").write_text(json.dumps(done.json, indent=1) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
