"""A virtual machine behind QEMU's own monitor.

::

    machine   the virtual machine, as step 5 talks to it
    monitor   QMP, step by step and with deadlines
    view      what the machine has: state, host functions, free ports
    refusals  what QEMU means when it refuses: a new refusal is a row here
"""
