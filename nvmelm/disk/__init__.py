"""Files that must survive a crash, or come from somebody else: written whole, locked, read within bounds.

::

    private  directories that only their owner can enter
    store    the small files of marks, journals and saves: root-only, durable before the call returns
    atomic   a file somebody named: under its name complete, or not at all
    own      what stands where nvmelm keeps something, when it is not that
    locks    one process at a time, by name
    bounded  bytes of unknown origin: no more is read than was asked for
    toml     TOML of unknown origin: what it costs to read is bounded before it is read

What the files say belongs to those who write them: marks to :mod:`nvmelm.inventory`, journals to
:mod:`nvmelm.prepare`, sessions to :mod:`nvmelm.ownership`, states to :mod:`nvmelm.state.image`. Sysfs is not a disk: it
is behind :mod:`nvmelm.host`.
"""
