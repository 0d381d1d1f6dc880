"""An emulated virtual machine, and the guest in it.

::

    vmm      takes functions through QMP, holds them, runs a guest
    qmp      the server's side of QMP
    monitor  what the monitor says, in QEMU's shape
    guest    does I/O on a function, and notices everything that goes wrong
    driver   the guest's NVMe driver: rings in its memory
    report   what the guest has seen
    admin_driver  the admin queue as a guest's driver uses it
    migrating_vm  a VM with a function in it that migrates as QEMU's does

"""
