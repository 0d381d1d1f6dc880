"""Who owns a controller that is on its way between two hosts: never both of them, and never nobody.

::

    record        a session, and the states it may go through on either side
    decisions     what becomes of a session that was cut off: a table
    sessions      the sessions of this host, in a database that is on the disk before a call returns
    file          the file of that database, held for one transaction at a time
    database      its tables: how they are made, read and counted
    witness       what is known of the database without it: one that was removed, or is an older copy, is noticed
    anew          begin with new sessions, on an operator's word
    sessions_log  whether the log of the database of sessions holds on the disk what the processes that use it believe

What becomes of a session that was cut off is :mod:`nvmelm.migrate.recovery`; what sessions forbid other verbs is
:mod:`nvmelm.prepare.guards`.
"""
