"""``nvmelm vm``: step 5, and VMs that move whole.

::

    verbs       attach and detach, and the group of all of them
    supervised  run, agent and check: VMs whose functions migrate with them

Handing a function over is :mod:`nvmelm.vm`; answering a VMM's calls is :mod:`nvmelm.interposer`.
"""
