"""nvmelm: the NVMe controlling-function live-migration manager.

The controlled function (a secondary controller, an SR-IOV VF) takes no part in its own migration; everything is asked
of the controlling function (the primary controller, the PF) through its admin queue, on stock Linux drivers. The rooms,
from what is typed down to bytes; ``docs/contributing.md`` says where a new line goes:

::

    cli/         parse, call one operation, render
    demo/        two emulated hosts, the six steps on both, and a guest doing I/O throughout
    hosts        which of the three worlds --host names
    watch/       what changes on a host, line by line
    desired/     what a configuration wants of a host, and how the host is brought there
    interposer/  what a VMM asks of VFIO, answered in its place
    vfio/        VFIO's migration interface for one controlled function
    migrate/     step 6 between two hosts
    state/       step 6 on one host
    vm/          step 5
    prepare/     steps 1, 3 and 4, with the plan, the journal and the undo that they share
    compat/      can the state of one function be set in another?
    documents    what every JSON document is made of
    inventory/   step 2: what is there
    ownership/   who owns a controller that is on its way between two hosts
    commands/    one pure builder per admin command
    emulator/    an emulated host: the third form of the seam
    host/        the seam between nvmelm and the world; this machine, and a recording
    disk/        files that must survive
    process/     this process: signals, threads, waits, programs it starts
    wire/        bytes and their meaning
    errors       every error, with the exit code it ends the program with
    reasons      every reason word, with what it means and what to do
    share/       files for others: units, rules, snippets, the Ansible collection
    harmless     texts that others wrote, as they may be shown
    numbers      numbers in texts that others wrote: the kernel, a device, a configuration, a peer

A room imports from rooms below it in this list, never from one above.
"""

__version__ = "0.1.0"
