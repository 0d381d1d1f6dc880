"""What the emulated machine remembers.

::

    state        its state: plain JSON values, typed
    store        the same on disk, changed under a lock, shared by several processes
    files        the files large states lie in
    memory       memory that a device does DMA to
    machine      all of it during one transaction
    generations  the devices it can be: a new kind of device is a row here
    faults       what is to go wrong, and where
    uevents      what the kernel says when devices come, go and change
    pipes        how that reaches those who listen
    nodes        what the emulated sysfs is made of: directories, links, attributes
"""
