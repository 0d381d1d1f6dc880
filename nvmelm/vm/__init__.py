"""Step 5: hand a virtual function to a virtual machine, and take it back.

::

    verbs      attach and detach, with what is checked before and waited for after
    handover   whether a VF may be handed over, and the arguments that do it by hand
    machine    what is asked of a virtual machine, whoever runs it: a new VMM fulfils this protocol
    report     the documents of step 5
    uncertain  contact was lost after a change was asked for
    qemu/      QEMU behind its own monitor
    libvirt/   a domain of libvirt
    check      whether a VM can migrate with its VFs as it runs now, and every reason why not, all at once
    presence   which VMMs are supervised on this host, for everybody who asks

A new VMM gets a folder beside ``qemu/``, a class that fulfils ``machine``, and a choice in ``verbs``. The VMM of an
emulated host is :mod:`nvmelm.emulator.guest`.
"""
