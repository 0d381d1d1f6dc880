"""An emulated virtual machine as a process of its own: ``python -m nvmelm.emulator.guest DIR --socket PATH``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from nvmelm.emulator.guest.vmm import EmulatedVmm
from nvmelm.emulator.host import EmulatedHost


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a virtual machine until it is told to quit."""
    parser = argparse.ArgumentParser(prog="python -m nvmelm.emulator.guest", description=main.__doc__)
    parser.add_argument("directory", type=Path, help="the emulated host")
    parser.add_argument("--socket", type=Path, required=True, help="the QMP socket to make")
    parser.add_argument("--name", default="qemu-system-x86", help="the process name that the host shows")
    parser.add_argument("--paused", action="store_true", help="wait for cont, as -S does")
    parser.add_argument("--incoming", action="store_true", help="wait for a guest from elsewhere")
    parser.add_argument("--refuse-unplug", action="store_true", help="the guest refuses device_del")
    parser.add_argument("--memory", type=int, default=1 << 20, help="bytes of the guest's memory")
    values = parser.parse_args(arguments)
    with (
        EmulatedHost(values.directory) as host,
        EmulatedVmm(
            host,
            socket=values.socket,
            name=values.name,
            running=not values.paused,
            incoming=values.incoming,
            refuse_unplug=values.refuse_unplug,
            guest={"memory_bytes": values.memory},
        ) as vmm,
    ):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        vmm.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
