"""VFIO's migration interface for one controlled function, answered by driving its controlling function.

A VMM migrates a VM with a PCI function in it when the function's VFIO device answers ``VFIO_DEVICE_FEATURE`` for
migration (version 2). What is here knows arcs, streams and one controlled function, and nothing of how a VMM's calls
arrive: that is :mod:`nvmelm.interposer`, which knows descriptors and callers, and nothing of NVMe.

:mod:`~nvmelm.vfio.seam`  what the two say to each other

Not here: opening or binding a VFIO device, which is step 4 (:mod:`nvmelm.pci`).
"""
