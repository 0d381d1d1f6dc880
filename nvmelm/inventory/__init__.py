"""Step 2: what is there, and what nvmelm has marked of it. Reads only; the marks are its own files.

::

    find          the controlling functions of a host, by name
    paths         functions by the paths the kernel shows them at
    opened        one of them found, locked and opened: what every verb works on
    pci           PCI functions as sysfs shows them: a new sysfs attribute of a function is read here
    read          the picture below a controlling function: resources, controlled functions, what they can
    picture       the same as plain records: what operators see
    namespaces    which namespaces a controlled function sees
    state_reader  a controller's state as it is read: how much one command carries, and what Migration Receive proves
    marks         nvmelm's own permission for a controlled function
    address       a function of another host: ssh://HOST/PF/CNTLID
    disks         the disks behind a controller that the kernel drives, and what the kernel has built on them
    groups        IOMMU groups
    drivers       which drivers leave a function to nvmelm
    suspension    which controllers stand still
    vm_moves      what this host knows of controlled functions that move with their VMs
    departed      which controllers were in a session between two hosts, and which left by one
    glance        a host at a glance: all of it, the sessions and the VMs

Whether a host can do all of it is :mod:`nvmelm.prepare.check`; changes are planned in :mod:`nvmelm.prepare`.
"""
