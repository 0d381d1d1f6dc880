"""``nvmelm compat``: know before anything stops.

::

    verbs     all of them together, in the order of the help
    check     export and check, and the group and the options that all of them share
    dialects  token, steps and parameters
    match     whole fleets
    wanted    the options of every verb that compares
    ends      what SOURCE and DESTINATION can be: a file, a tree, a function here, or one behind ssh

The verdict itself is :mod:`nvmelm.compat`.
"""
