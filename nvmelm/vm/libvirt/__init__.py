"""A virtual machine that libvirt runs.

::

    machine     the domain, as step 5 talks to it
    client      the calls that step 5 needs, through libvirt-python
    domain_xml  what a domain's XML says of host functions
    hook        what libvirt's hook script does before a domain starts and after it has ended
    refusals    what libvirt means when it refuses
"""
