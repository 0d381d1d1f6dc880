"""``make fixtures``: boot the lab's guest, record the sessions in it, and put them where the replay tests read them."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.lab.guest import Guest, LabError, run

FIXTURES = Path(__file__).parents[2] / "fixtures"
MACHINE = "lab-linux-6.1-qemu-7.2"


def main() -> int:
    """Replace the recordings and answers of the lab's machine."""
    with tempfile.TemporaryDirectory(prefix="nvmelm-lab-") as name:
        out = Path(name) / "out"
        try:
            status = run([sys.executable, "-m", "tests.lab.record", str(out)], Guest(), scratch=Path(name))
        except LabError as error:
            print(f"lab: {error}", file=sys.stderr)
            return 1
        if status == 0:
            for kind in ("transcripts", "output"):
                for path in (out / kind).iterdir():
                    shutil.copyfile(path, FIXTURES / kind / MACHINE / path.name)
        return status


if __name__ == "__main__":
    sys.exit(main())
