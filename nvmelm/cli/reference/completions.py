"""Shell completion for packages: ``python -m nvmelm.cli.reference.completions DIR``.

The scripts are those of the command-line library, which ask nvmelm itself at each Tab; so they know every verb, also
one that was added after they were written. A single user needs none of this: ``nvmelm --install-completion``.

===== ======================= ==========================================================
shell written to               a package puts it into
===== ======================= ==========================================================
bash  ``bash/nvmelm``         ``/usr/share/bash-completion/completions``
zsh   ``zsh/_nvmelm``         ``/usr/share/zsh/vendor-completions``, or ``site-functions``
fish  ``fish/nvmelm.fish``    ``/usr/share/fish/vendor_completions.d``
===== ======================= ==========================================================
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nvmelm.cli.frame.completion import FILES

#: zsh reads the file at the first Tab and calls what it holds; the library's script only defines a function then.
_ZSH_FIRST_TAB = """
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _nvmelm_completion "$@"
fi"""


def script(shell: str) -> str:
    """Return the completion script for a shell, as the library answers a shell that asks for it."""
    done = subprocess.run(
        [sys.executable, "-m", "nvmelm"],
        env={**os.environ, "_NVMELM_COMPLETE": f"source_{shell}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    text = done.stdout.strip()
    return f"{text}{_ZSH_FIRST_TAB if shell == 'zsh' else ''}\n"


def write(directory: Path) -> None:
    """Write the script for each shell."""
    for shell, name in FILES.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(script(shell), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
