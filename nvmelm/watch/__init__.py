"""Watch a host: what the kernel says, what changes without its saying so, and what is lost of either.

::

    lines        the lines of the stream
    differences  what is known of one controlling function, and how it differs from what was known before
    survey       looks at a host's functions
    sessions     looks at its sessions
    vms          looks at what moves with its VM
    stamps       whether files are others than when that was asked last
    troubles     which looks fail
    schedule     when it is looked, in a thread of its own: no uevent waits for a slow controller
    stream       uevents and looks become one stream with numbers
    waking       what wakes it: looks that are done, signals
    metrics      the same as numbers for Prometheus
    programs     a program for each line

Nothing is changed here. How a host is brought to what somebody wants is :mod:`nvmelm.desired`.
"""
