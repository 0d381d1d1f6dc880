"""Step 6 on one host: suspend, save, restore and resume one controlled function through its primary's admin queue.

::

    verbs       the gates in front of each, and what each leaves to be remembered
    running     suspend and resume, and what the device says of a controller's state
    save        the state out of a suspended controller, proven to be one state
    read_ahead  its parts, one read while the one before it is used
    restore     the state into a controller, all of it proven before
    image/      the file or pipe that a state travels in

Marks are asked in ``verbs`` alone; what is below it only talks to the device. Two hosts are :mod:`nvmelm.migrate`.
"""
