"""What Linux shows of the emulated machine, in the kernel's order and with its errnos.

::

    tree                sysfs, built where somebody looks
    function_directory  the directory of one function, and of its controller: a new sysfs attribute is shown here
    sysfs               reads and writes of it
    functions           SR-IOV on and off, function resets, VFIO opens
    drivers             match, probe, bind, unbind
    ioctl               the nvme driver's ioctl before an admin queue
    vfio                a function that a virtual machine has open
    bar                 BAR0 and Command register of a function that is open through VFIO
    disks               the block devices of an emulated host

"""
