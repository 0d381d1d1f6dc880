"""A VMM's migration calls, taken from it by a seccomp filter and answered from here.

A VMM is started under a filter that hands some ioctls of VFIO to a supervisor (seccomp user notification); every other
system call, and all I/O, runs as if nobody were there. The supervisor finds out which function a call is about, asks
the seam's :class:`~nvmelm.vfio.seam.Function` what to answer, and knows nothing of NVMe. In the order of a call's way::

    filter         which calls are handed over: a program for the kernel, as data
    launch         a VMM started under the filter by us (``vm run``)
    launcher       the same for a VMM that others start (``nvmelm-vmm``), which sends the listener to
    service        the agent (``vm agent``)
    notification   one call: received, answered, let run
    caller         the process that made it: its memory and its descriptors
    descriptors    which function a descriptor is
    device         one open function: its calls in order, its stream
    features       what VFIO_DEVICE_FEATURE asks, and its answers
    memory         the VM's memory, by the addresses it was mapped at for DMA
    streams        data_fd
    job            a device's call on its way to the answer
    supervisor     one VMM: receive, dispatch, let run
    record         what an agent must know again after a restart, and
    adoption       how it takes up the VMs then
    kernel         structures and numbers of seccomp and VFIO
    syscalls       the two system calls that Python does not have
    systemd        sockets handed over, descriptors kept

Nothing is decided about safety from what a caller's memory says: it can change after the look.
"""
