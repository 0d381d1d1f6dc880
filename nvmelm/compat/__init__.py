"""Can the state of one controlled function be set in another? Answered from outside, before anything stops.

A :class:`~nvmelm.compat.manifest.Manifest` describes a function by facts, :func:`~nvmelm.compat.verdict.judge` compares
two of them by the one table of facts, and a site's policy may pin, relax or add rules:

::

    facts      the table: every fact, its rule, and what to do when it is not kept; a new fact is a row here
    rules      the rules facts can have
    manifest   a function, described by its facts
    describe   asks a function for them; the only module here that talks to a device
    reasons    what is wrong with one fact of a pair
    policy     the site's own rules
    verdict    all of it on one pair
    dialects/  the same in the words of those who ask
    fleet/     many sources, many destinations

Nothing here starts a process or changes a device. The gate before a migration is :mod:`nvmelm.migrate.gate`.
"""
