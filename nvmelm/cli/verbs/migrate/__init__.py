"""``nvmelm migrate``: step 6 on two hosts.

::

    verb       its options and arguments
    migration  the run: the other host, files beside the answer, progress
    moved      controllers that were moved before: nothing is left to do

The move itself is :mod:`nvmelm.migrate`.
"""
