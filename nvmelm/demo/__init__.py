"""The six steps on two emulated hosts, with a guest that does I/O from the first to the last.

::

    controller  a controller moves by ``nvmelm migrate``'s own steps, and what both demonstrations share
    vm          a whole VM moves, led by its VMM, as users will have it
"""
