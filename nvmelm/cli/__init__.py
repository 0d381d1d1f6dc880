"""The command line: parse, call one operation, render.

::

    frame/      what every verb is run by: parsing, the host, errors, rendering
    verbs/      a module for each word that is typed
    views/      how answers read
    reference/  what is made from the verbs: pages, man pages, completions, schemas

A verb is a function in one of the modules of ``verbs``, registered with :func:`nvmelm.cli.frame.run.verb`. No decision
about a device is made here: management layers and Ansible get everything from the operations below.

This module imports next to nothing, so that ``nvmelm --help`` costs what its help text costs.
"""

from __future__ import annotations

import gc
import os

#: A verb lives for a moment and makes few cycles; collecting during its imports costs 7 % of its start.
_OBJECTS_BETWEEN_COLLECTIONS = 100_000


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code; the console script ``nvmelm``.

    Args:
        arguments: the words after the program's name; ``sys.argv`` when left out.
    """
    # nvmelm has no use for plugins of pydantic: looking for them costs 10 ms, and one would run as root with the rest.
    _keep_standard_numbers()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    try:
        from nvmelm.cli.frame.app import run  # here, so that Ctrl-C during the imports ends as quietly as later

        return run(arguments)
    except KeyboardInterrupt:
        return 130


def _keep_standard_numbers() -> None:
    """Take the numbers 0 to 2 where they were closed, or the next file opened gets what somebody prints there.

    The null device is opened the wrong way round, so that reading and writing fail as on what is closed.
    """
    for number, mode in enumerate((os.O_WRONLY, os.O_RDONLY, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # the lowest number that is free, which is this one
