"""VFIO's migration interface for one controlled function, answered by driving its controlling function.

A VMM migrates a VM with a PCI function in it when the function's VFIO device answers ``VFIO_DEVICE_FEATURE`` for
migration (version 2). What is here knows arcs, streams and one controlled function, and nothing of how a VMM's calls
arrive: that is :mod:`nvmelm.interposer`, which knows descriptors and callers, and nothing of NVMe.

::
    seam         what the two say to each other
    options      what an operator may choose
    functions    which functions are answered for
    function     one of them: what each arc does
    logged       how it is reached, what is recorded of it, and its DMA logging
    arcs         the table of states
    departure    into STOP_COPY
    passport     what travels beside the state: who it is, and what it needs
    stream       both as bytes
    arrival      into RESUMING
    loading      out of it: registers, admin queue, Set State, resume
    habits       which kinds of devices restore their admin queue by themselves
    registers    CC, AQA, ASQ, ACQ and CSTS
    admin_queue  the arithmetic of the admin queue's position
    winding      a fresh controller brought to that position
    dirty        the log that is behind DMA logging
    journal      what is written of a move on this host
    refusals     errors of ours as errnos and sentences
    view         a stream as people see it
    emulated     a function of an emulated host, opened

Not here: opening or binding a VFIO device, which is step 4 (:mod:`nvmelm.inventory.pci`).
"""
