"""VFIO's migration interface for one controlled function, answered by driving its controlling function.

A VMM migrates a VM with a PCI function in it when the function's VFIO device answers ``VFIO_DEVICE_FEATURE`` for
migration (version 2). What is here knows arcs, streams and one controlled function, and nothing of how a VMM's calls
arrive: that is :mod:`nvmelm.interposer`, which knows descriptors and callers, and nothing of NVMe.

:mod:`~nvmelm.vfio.seam`         what the two say to each other
:mod:`~nvmelm.vfio.functions`    which functions are answered for
:mod:`~nvmelm.vfio.function`     one of them: what each arc does, over the table of :mod:`~nvmelm.vfio.arcs`
:mod:`~nvmelm.vfio.departure`    into STOP_COPY, as a :mod:`~nvmelm.vfio.stream`
:mod:`~nvmelm.vfio.arrival`      into RESUMING
:mod:`~nvmelm.vfio.loading`      out of it: :mod:`~nvmelm.vfio.registers`, :mod:`~nvmelm.vfio.winding`, Set State
:mod:`~nvmelm.vfio.admin_queue`  the arithmetic of the admin queue's position
:mod:`~nvmelm.vfio.dirty`        DMA logging

Not here: opening or binding a VFIO device, which is step 4 (:mod:`nvmelm.inventory.pci`).
"""
