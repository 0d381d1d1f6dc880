"""``recover`` between two hosts: what becomes of sessions that were cut off.

::

    sessions  every session of this host that is not over, what it means, and its end
    asking    both hosts say what they have written
    settle    what that decides, and the acts
    standing  does the copy still stand? As the device says: what a record can only claim

A failure while both hosts still talk is :mod:`nvmelm.migrate.rollback`; runs of verbs that were left unfinished on one
host are :mod:`nvmelm.prepare.recover`.
"""
