"""``nvmelm emulate``: emulated hosts, to practise on and to test with.

::

    verbs  the words
    hosts  what they do
    shell  what stands for ssh between emulated hosts

The hosts are :mod:`nvmelm.emulator`.
"""
