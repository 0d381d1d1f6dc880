"""What a host remembers between two verbs, as a recording holds it: the small files of marks, journals and saves.

A verb's answers depend on them as much as on the device's, so a recording begins with them and a replay starts from
them. They hold no state of a controller.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import StringConstraints

from nvmelm.errors import host_error
from nvmelm.host.recording.events import clean

#: At most so many files, and so many bytes of one; more than 2000 VFs with marks is not a recording but an accident.
MAX_REMEMBERED = 4096
_MAX_BYTES = 1 << 20
_DIRECTORIES = ("journal", "marks", "saved")

#: The name of such a file below the state directory; nothing else can be named, least of all a way out of it.
Remembered = Annotated[
    str, StringConstraints(pattern=r"^(journal|marks|saved)(/[0-9A-Za-z][0-9A-Za-z:._-]{0,63}){1,2}$")
]


def remembered(state_dir: Path) -> dict[str, list[str]]:
    """Return the lines of each file a host remembers by; nothing of what cannot be read."""
    contents = {}
    for directory in _DIRECTORIES:
        try:
            paths = sorted(path for path in (state_dir / directory).rglob("*.json*") if path.is_file())
            for path in paths[:MAX_REMEMBERED]:
                if path.name.startswith(".") or path.stat().st_size > _MAX_BYTES:
                    continue
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                contents[path.relative_to(state_dir).as_posix()] = [clean(line) for line in lines]
        except OSError:
            continue  # without the right to read them the verb cannot depend on them either
    return contents


def put_back(state_dir: Path, files: dict[str, list[str]]) -> None:
    """Make the files of a recording in a replay's own directory.

    Raises:
        HostError: the directory is full.
    """
    for name, lines in files.items():
        path = state_dir / name
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        except OSError as error:
            raise host_error("cannot write", str(path), error) from error
