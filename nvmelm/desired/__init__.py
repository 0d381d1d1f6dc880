"""Desired state: what ``/etc/nvmelm.toml`` wants of this host, and how the host is brought there.

::

    config    the files, and what may stand in them
    converge  every function brought to what is wanted of it; a function that fails does not stop the others

Each function is prepared by :mod:`nvmelm.prepare`, as by the verbs.
"""
