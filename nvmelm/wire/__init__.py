"""Bytes and their meaning; no I/O, standard library only.

::

    layout        declare a structure as the specification's table, and read or build its bytes
    opcodes       the numbers commands are made of
    queue_entry   submission and completion queue entries
    status        what a completed command's status means, and what to type next
    status_table  every status a verb can meet: a new one is a row here
    identify      what Identify returns
    formats       which formats of state a controller knows
    migration     the state of a suspended controller
    tracking      what changed while a controller ran: memory, blocks
    data_queue    the ring that a controller posts changes to
    extents       ranges of bytes
    namespace_id  the Namespace Identification Descriptor list (CNS 03h)

Building commands out of these is :mod:`nvmelm.commands`; sending them is :mod:`nvmelm.host`.
"""
