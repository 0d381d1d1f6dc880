"""Steps 1, 3 and 4 of both sequences, and their undo; step 2 changes nothing, and is :mod:`nvmelm.inventory`.

==== ============================ ======================================================
step source / destination         cells
==== ============================ ======================================================
1    enable SR-IOV                autoprobe, vfs
2    list the secondaries         none; the picture
3    allow migration / resume     vq, vi, online, then the mark
4    bind to VFIO                 override, driver
==== ============================ ======================================================

Every verb says which cells it wants and refuses what cannot be; one planner finds the actions from what is to what
should be, and one engine carries them out:

::

    sriov        step 1: virtual functions enabled and disabled
    secondaries  resources, online and offline
    allow        step 3: the permission, given and taken back
    binding      step 4: vfio-pci and back
    sequence     steps 1 to 4 in one run
    release      their undo
    check        can this host do it?
    recover      what was left unfinished on this host
    resources    VQ and VI resources, shared out
    guards       what sessions between hosts forbid every other verb
    cells        what a preparation touches, each with a plain value
    plan         the one order of actions between two sets of cells
    apply        a plan carried out: confirmed, journaled, verified, put back when it fails
    journal      every change written down before it is made
    actions      the words of a plan: writes, commands and changes of marks, and the action that holds them
    executor     do the operations of one phase of a plan on a host, and check that each took effect
    kept         what nvmelm keeps on a host while it works: whether the files are still those that it began with
    parameters   give a controlled function the parameters another one has: resources and namespaces, in one change
    sanity       do the lists and counts of a device agree with each other? What does not is never acted on

Step 5 is :mod:`nvmelm.vm`, step 6 is :mod:`nvmelm.state` and :mod:`nvmelm.migrate`.
"""
