"""``nvmelm-vmm``: what starts a VMM under the agent's supervision, as libvirt's ``<emulator>`` for one.

    nvmelm-vmm VMM ARGS…                   starts VMM
    nvmelm-qemu-system-x86_64 ARGS…        a link to nvmelm-vmm: starts the qemu-system-x86_64 of the usual places
    NAME ARGS…                             a link in a VMM's own place: starts what vmm.NAME in the settings says

It needs no privileges. It asks the agent, puts the filter on itself with ``no_new_privs``, hands the listener over, and
becomes the VMM: the process, the arguments, the environment, and whatever is open stay as they were. Without an agent
the VMM starts as it would without us, and the journal says that its VM cannot migrate; ``required=yes`` in
:data:`SETTINGS` makes that a refusal.

Standard library only, and little of it: libvirt starts its emulators to ask them what they can, and waits.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

TYPE_CHECKING = False  # typing takes as long to import as all of this
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

#: KEY=VALUE lines: ``socket``, ``required`` (yes or no), ``memory`` (yes or no), ``vmm.NAME`` (a path).
SETTINGS = "/etc/nvmelm/launcher.conf"
SOCKET = "/run/nvmelm/agent.sock"
JOURNAL = "/run/systemd/journal/socket"

#: The agent's answers; anything else is a refusal in words.
WELCOME, SUPERVISED = b"welcome", b"supervised"

_PREFIX = "nvmelm-"
_OWN_NAME = "nvmelm-vmm"
_PLACES = "/usr/local/bin:/usr/bin:/usr/libexec:/bin"
#: An agent answers in milliseconds; libvirt gives an emulator some seconds to say what it can.
_DEADLINE_S = 5.0


class _UnsupervisedError(Exception):
    """The VMM cannot be supervised; the text says why. The filter is not on yet."""


def main() -> NoReturn:
    """Become the VMM that the command line names, supervised where that can be."""
    launch(sys.argv)


def launch(words: Sequence[str], settings_file: str = SETTINGS) -> NoReturn:
    """Become the VMM.

    Args:
        words: as of ``sys.argv``.
    """
    settings = _settings(settings_file)
    program, arguments = _vmm(words, settings)
    try:
        _be_supervised(settings)
    except _UnsupervisedError as error:
        why = f"{os.path.basename(program)}: this VM cannot migrate with its NVMe functions: {error}"  # noqa: PTH119
        _log(why)
        if settings.get("required") == "yes":
            _end(f"{why}\nfix: systemctl start nvmelm-agent, or required=no in {settings_file}")
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and a program begins with what it is handed
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(program, [program, *arguments], _environment())  # noqa: S606 (no shell is asked for)
    except OSError as error:
        from nvmelm.process.executable import obstacle  # for whom it starts, it is not needed

        why = obstacle(program)
        _end(f"cannot start {program}: {error.strerror}{f': {why}' if why else ''}", 2)


def _end(sentence: str, status: int = 1) -> NoReturn:
    print(f"nvmelm-vmm: {sentence}", file=sys.stderr)  # noqa: T201
    os._exit(status)


def _settings(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 (pathlib takes as long to import as all of this)
            pairs = [line.split("#")[0].partition("=") for line in file]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def _vmm(words: Sequence[str], settings: dict[str, str]) -> tuple[str, list[str]]:
    """Return the program to become, and its arguments."""
    name = os.path.basename(words[0])  # noqa: PTH119
    if f"vmm.{name}" in settings:
        return settings[f"vmm.{name}"], list(words[1:])
    if name.startswith(_PREFIX) and name != _OWN_NAME:
        return _find(name.removeprefix(_PREFIX)), list(words[1:])
    if len(words) < 2:
        _end("say which VMM: nvmelm-vmm VMM ARGS, or a link called nvmelm-NAME for the VMM called NAME")
    return (words[1] if "/" in words[1] else _find(words[1])), list(words[2:])


def _find(name: str) -> str:
    """Return a program's path in the usual places; libvirt's PATH is its own."""
    for place in _PLACES.split(":"):
        path = f"{place}/{name}"
        if os.access(path, os.X_OK):
            return path
    _end(f"there is no {name} in {_PLACES}")


def _environment() -> dict[bytes, bytes]:
    """Return the environment this process was started with: Python adds to a copy of it (LC_CTYPE, PEP 538)."""
    try:
        with open("/proc/self/environ", "rb") as file:  # noqa: PTH123
            pairs = [pair.partition(b"=") for pair in file.read().split(b"\0")]
    except OSError:
        return dict(os.environb)
    return {key: value for key, equals, value in pairs if equals}


def _be_supervised(settings: dict[str, str]) -> None:
    """Ask the agent, put the filter on, and hand the listener over."""
    place = settings.get("socket", SOCKET)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as agent:
        agent.settimeout(_DEADLINE_S)
        try:
            agent.connect(place)
            answer = agent.recv(256)
        except OSError as error:
            raise _UnsupervisedError(f"no agent answers at {place}: {error.strerror or error}") from error
        if answer != WELCOME:
            raise _UnsupervisedError(f"the agent refuses: {answer.decode(errors='replace') or 'it hung up'}")
        listener = _filtered(memory=settings.get("memory") != "no")
        try:
            socket.send_fds(agent, [b"listener"], [listener])
            os.close(listener)
            answer = agent.recv(256)
        except OSError:
            answer = b""
    if answer != SUPERVISED:  # the filter is on for ever: without an answer, the VMM could not even open its devices
        _end("the agent went away while the VMM was started; start it again")


def _filtered(*, memory: bool) -> int:
    from nvmelm.interposer import filter as filter_program  # after the agent's answer: most starts need no more
    from nvmelm.interposer import syscalls

    architecture = syscalls.architecture()
    if architecture is None:
        raise _UnsupervisedError("the system calls of this processor are not known")
    try:
        syscalls.set_no_new_privs()
        return syscalls.install_filter(filter_program.program(architecture, memory=memory))
    except OSError as error:
        raise _UnsupervisedError(f"the kernel takes no listener: {error.strerror}") from error


def _log(sentence: str) -> None:
    """Say it in the journal, or on stderr where that is out of reach."""
    entry = f"MESSAGE={sentence}\nPRIORITY=4\nSYSLOG_IDENTIFIER=nvmelm-vmm\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as journal:
            journal.settimeout(1.0)
            journal.sendto(entry.encode("utf-8", "backslashreplace"), JOURNAL)
    except OSError:
        print(f"nvmelm-vmm: {sentence}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
