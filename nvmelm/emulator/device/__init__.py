"""What an emulated controller does, as the specification has it.

::

    request           one admin command on its way, and the statuses that refuse it
    command_words     the dwords of the commands, bit range by bit range
    dispatch          the table from opcodes to what answers them
    identify          Identify, and log pages
    features          Set Features and Get Features
    attachment        Namespace Attachment
    virtualization    Virtualization Management
    tracking          Track Send and Track Receive
    migration         Migration Send and Migration Receive
    controller_state  a controller's state as bytes
    vendor            the part of it that only the device reads
    data_queue        Controller Data Queues
    registers         the register file, as the owner of a function uses it
    engine            fetches I/O commands, and completes them
    media             the blocks of namespaces
    resets            resets, and what each undoes
    admin_commands    what a secondary controller does with the commands on its own admin queue
    admin_rings       the admin queue pair of a controller in its owner's memory: what a doorbell sets off

"""
