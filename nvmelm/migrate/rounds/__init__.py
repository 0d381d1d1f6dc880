"""Rounds before the suspend: what controllers write while they run, until little of it is left.

::

    memory     the guest's memory: dirty tracking
    user_data  blocks of namespaces: the log of user data
    tracks     all that was begun for one migration, together

What the device reports is read in :mod:`nvmelm.wire.tracking`; that memory is copied is the VMM's work, never ours.
"""
