"""Eight emulated hosts, an inventory of them, and the real ansible-playbook over it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nvmelm
from nvmelm.emulator.host import create

PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
NVMELM = Path(sys.executable).with_name("nvmelm")
COLLECTIONS = Path(nvmelm.__file__).parent / "share" / "ansible"
PLAYBOOKS = COLLECTIONS / "ansible_collections" / "nvmelm" / "fleet" / "playbooks"
PF = "0000:01:00.0"


class Fleet:
    """Four sources and four destinations, and an inventory of them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        groups: dict[str, Any] = {"nvmelm_sources": {"hosts": {}}, "nvmelm_destinations": {"hosts": {}}}
        for number in range(4):
            for group, name in (("nvmelm_sources", f"s{number}"), ("nvmelm_destinations", f"d{number}")):
                create(place / name, ("nvme-2.1",), storage=place / f"media{number}").close()
                variables = {"nvmelm_host": f"emulated:{place / name}", "nvmelm_to": f"ssh://d{number}/{PF}"}
                groups[group]["hosts"][name] = variables
        shared = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "nvmelm_executable": str(NVMELM),
            "nvmelm_rsh": f"{NVMELM} emulate rsh {place}",
            "nvmelm_program": str(NVMELM),
            "nvmelm_pf": PF,
            "nvmelm_vfs": 2,
            "nvmelm_vq": 2,
            "nvmelm_vi": 1,
            "nvmelm_batch": 2,
        }
        inventory = {"all": {"vars": shared, "children": groups}}
        (place / "inventory.json").write_text(json.dumps(inventory))

    @staticmethod
    def environment(place: Path) -> dict[str, str]:
        """Return the variables of a run that keeps what Ansible writes below a directory."""
        return {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_LOCAL_TEMP": str(place / "tmp"),
            "ANSIBLE_REMOTE_TEMP": str(place / "tmp"),
            "ANSIBLE_HOME": str(place / "home"),
            "ANSIBLE_FORKS": "2",
            "LC_ALL": "C.UTF-8",
        }

    def play(self, book: str | Path, *more: str) -> tuple[int, dict[str, dict[str, int]], str]:
        """Run a playbook, of the collection or by its path; return its exit code, each host's counts and the output."""
        words = [str(PLAYBOOK), "-i", str(self.place / "inventory.json"), str(PLAYBOOKS / book), *more]
        done = subprocess.run(words, env=self.environment(self.place), capture_output=True, text=True, timeout=280)
        told = done.stdout + done.stderr
        rows = re.findall(r"^(\w+)\s+: (ok=.*)$", told[told.rfind("PLAY RECAP") :], re.MULTILINE)
        stats = {name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", row)} for name, row in rows}
        return done.returncode, stats, told
