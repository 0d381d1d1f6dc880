"""An emulated host: admin queues and sysfs over one persistent state, obeying the specification and nothing else.

::

    host      the host: what it hands out to those above the seam
    creation  what a new emulated host is made of
    machine/  what the machine remembers, and what is to go wrong
    device/   what a controller does with a command
    kernel/   what Linux shows of it, and refuses
    guest/    a virtual machine, and a guest that notices what goes wrong

It may see the seam, bytes, errors and files, and nothing else of nvmelm: it must not agree with our mistakes.
"""
