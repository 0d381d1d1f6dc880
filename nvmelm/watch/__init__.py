"""Watch a host: what the kernel says, what changes without its saying so, and what is lost of either.

:mod:`~nvmelm.watch.lines`    the lines of the stream
:mod:`~nvmelm.watch.differences`    what is known of one controlling function, and how it differs from what was known
before
:mod:`~nvmelm.watch.survey`     looks at a host's functions
:mod:`~nvmelm.watch.sessions` looks at its sessions
:mod:`~nvmelm.watch.troubles` which looks fail
:mod:`~nvmelm.watch.schedule`  when it is looked, in a thread of its own, so that no uevent waits for a slow controller
:mod:`~nvmelm.watch.stream`   uevents and looks become one stream with numbers
:mod:`~nvmelm.watch.waking`   what wakes it: looks that are done, signals
:mod:`~nvmelm.watch.metrics`  the same as numbers for Prometheus
:mod:`~nvmelm.watch.programs` a program for each line
"""
