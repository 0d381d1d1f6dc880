"""An emulated virtual machine, and the guest in it.

::

    vmm      takes functions through QMP, holds them, runs a guest
    qmp      the server's side of QMP
    monitor  what the monitor says, in QEMU's shape
    guest    does I/O on a function, and notices everything that goes wrong
    driver   the guest's NVMe driver: rings in its memory
    report   what the guest has seen
    admin_driver  the admin queue as a guest's driver uses it: rings in the guest's memory, and what it remembers of them
    migrating_vm  a virtual machine with one assigned function that migrates as QEMU's does, over VFIO's migration interface

"""
