"""``nvmelm vm run`` and ``nvmelm vm agent``: what answers a VMM's migration calls, put together for one host."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

from nvmelm.cli.frame import logs, render
from nvmelm.cli.frame.run import Run
from nvmelm.errors import HostError, NotSupportedError, UsageError
from nvmelm.host import Host
from nvmelm.host.local import confinement
from nvmelm.host.local.processes import vm_name
from nvmelm.interposer import launch, service, systemd
from nvmelm.interposer.kernel import Vfio
from nvmelm.interposer.launch import StartedVmm
from nvmelm.interposer.supervisor import Supervisor
from nvmelm.inventory.opened import require_privilege
from nvmelm.vfio.functions import HostFunctions
from nvmelm.vfio.options import Options
from nvmelm.vm.presence import announce, forget


def say(sentence: str, *, address: str = "") -> None:
    """Write a sentence to the journal, with the function it is about, or to stderr where that is not the journal."""
    line = render.plain(sentence)
    entry = [("MESSAGE", line), ("PRIORITY", str(logs.NOTICE)), ("SYSLOG_IDENTIFIER", "nvmelm")]
    entry += [("NVMELM_VF", address)] * bool(address)
    if not (logs.is_journal(sys.stderr) and logs.send([entry])):
        render.tell([line])


def run_vmm(run: Run, words: list[str], options: Options, *, memory: bool) -> int:
    """Start a VMM and answer it until it has ended; return its exit status."""
    if not words:
        raise UsageError("say which VMM to start", fix="nvmelm vm run -- VMM ARGS", reason="arguments")
    host = _supervising(run)
    functions = HostFunctions(host, options)
    pids: list[int] = []

    def supervise(started: StartedVmm) -> Supervisor:
        try:
            announce(host.state_dir, started.pid, vm_name, "run")
        except HostError as error:  # a full disk is no reason to leave a VM alone
            say(f"vm check will not know of this VM: {error.message}")
        pids.append(started.pid)
        return Supervisor(started.listener, functions, Vfio(), say, vm_name)

    try:
        return launch.run(words, launch.program(memory=memory), supervise)
    finally:
        for pid in pids:
            forget(host.state_dir, pid)


def serve(run: Run, path: Path, users: list[str], options: Options) -> int:
    """Answer the VMMs of launchers until a signal ends this."""
    numbers = service.user_numbers(users)
    host = _supervising(run)
    launch.require_kernel()  # what a launcher finds out after it has put the filter on comes too late
    passed = systemd.passed(dict(os.environ))
    sockets = [number for name, number in passed if not name.startswith(service.STORED)]
    listening = socket.socket(fileno=sockets[0]) if sockets else service.listen(path)
    agent = service.Agent(
        HostFunctions(host, options),
        Vfio(),
        users=numbers,
        state_dir=host.state_dir,
        notifier=systemd.Notifier(os.environ.get("NOTIFY_SOCKET")),
        say=say,
        name=vm_name,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_about: agent.end())
    for gap in confinement.gaps():
        say(f"{gap.message}; fix: {gap.fix}")
    agent.adopt([(name, number) for name, number in passed if name.startswith(service.STORED)])
    with listening:
        agent.serve(listening)
    return 0


def _supervising(run: Run) -> Host:
    """Open the host, and refuse one that has no VMs of its own."""
    if run.settings.record is not None or run.settings.host.startswith("replay:"):
        cause = "a recording holds what a host answered, not what a VM did"
        raise NotSupportedError(
            "a replayed host has no VMs", cause=cause, fix="leave it out", reason="replay-has-no-vm"
        )
    host = run.host()
    require_privilege(host)
    return host
