"""This machine: the real form of the seam.

::

    machine    the host: what it hands out, and the locks it keeps
    passthru   admin commands through the kernel's nvme driver
    sysfs      sysfs as files below a root; what an errno means of an attribute
    processes  who has a node open, what is mounted, what this process may do
    uevents    the kernel's uevents, through netlink
    confinement  what a security module keeps a VMM or an agent from
    claims     who else binds functions: driverctl, libvirt
"""
