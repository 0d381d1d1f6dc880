"""Which destinations of a fleet can take which sources, and who goes where.

::

    index       all pairs, by what differs among them: 10,000 times 10,000 in seconds
    fact_index  one fact of all functions, compared at once
    assignment  a proposal: everybody has a place, or it is said who has none
    report      the answer as a document of bounded size

The answer for one pair is that of :mod:`nvmelm.compat.verdict`, always; this room only is quicker at many.
"""
