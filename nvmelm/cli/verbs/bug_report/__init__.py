"""``nvmelm bug-report``: what somebody needs who looks into a problem.

::

    verbs    the word, and what is gathered
    archive  the archive, without secrets
"""
