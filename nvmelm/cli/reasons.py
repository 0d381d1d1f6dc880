"""Every word the ``reason`` field of an error can hold, with what it means and what to do about it.

Grouped by where an operator meets them. A test proves that no word the code can say is missing and that none is left
over.
"""

from __future__ import annotations

_CHECK = "nvmelm host check"
_WHO = "nvmelm secondary list PF names who has a VF in use"
_AGAIN = "save the state again, or use another copy of the image"
_PORT = "start the VM with one more pcie-root-port for each VF, then nvmelm vm attach --bus"

REASONS: dict[str, tuple[str, str]] = {
    # the command line
    "arguments": ("the command line could not be read", "the verb's --help"),
    "bug": ("nvmelm met something its authors did not expect", "report it, with a recording made by --record"),
    "confirmation": ("a loss must be confirmed and nobody could be asked", "--yes, when that is meant"),
    "declined": ("the operator answered no; nothing was changed", "run it again and answer yes, or --yes"),
    "host-unknown": ("--host names no world", "--host local, --host emulated:DIR or --host replay:FILE"),
    "interrupted": ("Ctrl-C", "nvmelm recover lists what is unfinished"),
    "locked": ("another nvmelm process works on this controller", "wait until it has ended"),
    "state-directory-not-private": ("others could put false marks into nvmelm's directory", "chmod 0700 and chown it"),
    # a controller's admin queue
    "admin-timeout": ("the driver gave up on a command and reset the primary: every VF is offline", "nvmelm recover"),
    "controller-gone": ("the controller is dead or was removed", "nvmelm list; dmesg tells what the driver saw"),
    "no-admin64": ("this kernel lacks NVME_IOCTL_ADMIN64_CMD", "use Linux 5.5 or newer"),
    "not-a-controller": ("the node is not a controller's", "nvmelm list shows the controllers"),
    "unmappable": ("the driver cannot map so long a buffer", "report it: nvmelm asks the kernel for its limit first"),
    # sysfs: SR-IOV
    "capability-inconsistent": ("the device's InitialVFs and TotalVFs disagree", "update its firmware; see dmesg"),
    "dependent-function": ("its SR-IOV depends on a function that cannot have it", "look at dep_link of the device"),
    "no-pci-resources": ("the firmware left no room for the VFs", "enable SR-IOV in the firmware; pci=realloc"),
    "no-sriov": ("the device has no SR-IOV capability, or the kernel lacks CONFIG_PCI_IOV", "nvmelm list"),
    "no-sriov-driver": ("no driver that can configure SR-IOV is bound to the PF", "bind the PF to the nvme driver"),
    "not-a-count": ("the kernel takes a number from 0 to 65535 here", "give a number of VFs"),
    "not-a-pf": ("the device is not an SR-IOV physical function", "nvmelm show PF"),
    "too-many-vfs": ("more than the device's sriov_totalvfs", "nvmelm show PF prints how many it can have"),
    "vfs-assigned": ("a VF is flagged as assigned to a VM", "stop that VM, or detach the VF from it"),
    "vfs-enabled": ("another number of VFs is enabled, and the kernel goes by way of 0", "nvmelm sriov disable PF"),
    # sysfs: drivers, groups and other attributes
    "already-bound": ("the device has a driver already, or is a PF whose VFs are enabled", "nvmelm vfio unbind VF"),
    "driver-not-loaded": ("the driver is not loaded", "load it with modprobe"),
    "empty-write": (
        "the kernel takes a write of no bytes as success and changes nothing",
        "write a newline to clear it",
    ),
    "known-id": ("the driver knows this id already", "nothing to do"),
    "no-iommu": ("the function is in no IOMMU group: nothing would keep a VM's DMA apart", _CHECK),
    "no-match": ("no driver takes the device: override, id or autoprobe forbid it", "nvmelm vfio bind VF"),
    "no-modprobe": ("this system has no modprobe", "install kmod, or load the module another way"),
    "no-module": ("the kernel has no such module", "install the kernel's module package"),
    "no-reset-method": ("no reset method works for this function", "read reset_method of the device"),
    "no-such-attribute": ("the device, or this attribute of it, is not there", "nvmelm list"),
    "no-such-device": ("there is no PCI device of that address", "nvmelm secondary list PF"),
    "no-such-method": ("the function does not support that reset method", "write default"),
    "not-a-boolean": ("the kernel takes 0 or 1 here", "write 0 or 1"),
    "not-an-id": ("the kernel takes two hexadecimal numbers here", "write VENDOR DEVICE"),
    "not-one": ("the kernel takes only 1 here", "write 1"),
    "probe-deferred": ("the driver waits for another device", "try again when that one is there"),
    "probe-refused": ("the driver refused the device; vfio-pci does without an IOMMU group", _CHECK),
    "short-write": ("the kernel took only a part of the value", "dmesg may tell more"),
    "too-long": ("a driver's name is shorter than a page", "name a driver of this kernel"),
    "unknown-id": ("the driver was never given this id", "nothing to do"),
    # step 3: marks
    "mark-broken": ("the facts the mark rests on changed, or it expired", "nvmelm secondary allow-migration PF CNTLID"),
    "no-live-migration": ("the PF has no Host Managed Live Migration", "use another controller, or --unmarked"),
    "unmarked": ("step 3 was not done for this VF", "nvmelm secondary allow-migration, or allow-resume, PF CNTLID"),
    "wrong-mark": (
        "the VF is marked for the other side",
        "nvmelm secondary allow-migration, or allow-resume, PF CNTLID",
    ),
    # step 5: virtual machines
    "bad-id": ("QEMU's names begin with a letter and hold letters, digits, - . and _", "choose another --id"),
    "bus-taken": ("the VM's port has a device", _PORT),
    "group-not-viable": ("a VM gets a whole IOMMU group, and a driver has another member", "bind that to vfio-pci too"),
    "id-taken": ("the VM has another device of this name", "choose another --id"),
    "in-use": ("somebody has the function", _WHO),
    "locked-memory": ("the VMM may not lock the guest's memory", "raise its limit of locked memory"),
    "no-hotplug-bus": ("a running VM takes the VF below a root port only", _PORT),
    "no-interrupt-remapping": ("the platform cannot keep a VM's interrupts apart", _CHECK),
    "no-iommu-type1": ("vfio_iommu_type1 is not loaded", "modprobe vfio_iommu_type1"),
    "no-qmp-package": ("talking to QEMU needs the package qemu.qmp", "pip install 'nvmelm[qmp]'"),
    "no-such-bus": ("the VM has no bus of this name", "leave --bus out"),
    "no-such-qmp-command": ("the VMM does not know the command", "use QEMU"),
    "no-such-vf": ("the VMM's host has no such function", "nvmelm secondary list PF"),
    "no-vf": ("SR-IOV has not enabled this VF", "nvmelm sriov enable PF --vfs N"),
    "no-vfio-in-vmm": ("this VMM has no vfio-pci", "install the VMM's full system emulator package"),
    "no-vfio-node": ("the VF's group has no node where the VMM runs", "nvmelm secondary list PF shows driver and node"),
    "not-bound": ("the function is not bound to the driver this needs", "nvmelm vfio bind VF"),
    "offline": ("the controller is offline; a guest would wait in vain", "nvmelm secondary online PF CNTLID"),
    "other-device-id": ("the VM has the VF under another name", "leave --id out"),
    "qmp-error": ("the VMM refused the command, for a reason of its own", "read its words in the message"),
    "qmp-garbage": ("what the VMM answers means nothing", "check that the socket is the VM's own QMP monitor"),
    "qmp-libvirt": ("libvirt owns the VM's monitor", "nvmelm vm attach VF --print, then virsh attach-device"),
    "qmp-lost": ("the VMM hung up", "look at its log"),
    "qmp-no-socket": ("there is no such socket", "start the VM with -qmp unix:SOCKET,server=on,wait=off"),
    "qmp-not-qmp": ("what listens at the socket does not speak QMP", "name the VM's QMP socket"),
    "qmp-refused": ("nobody listens at the socket, or it may not be opened", "start the VM; run nvmelm as root"),
    "qmp-silent": ("the VMM does not answer in time; another client may have its monitor", "end that client"),
    "replay-has-no-vm": ("a recording holds no VM", "use --print, or --host emulated:DIR"),
    "unplug-pending": ("the guest has not given the VF back yet", "let the guest run, or end the VM"),
    "unplug-refused": ("the guest refused to give the VF back", "unmount what is on it inside the guest"),
    "vfio-permission": ("the VMM's user may not open the VF's group", "chown the node to that user"),
    "vm-migrating": ("the VM is being migrated", "wait until that has ended"),
    "vm-preconfig": ("the VM waits for its configuration", "let it leave the preconfig state"),
    # step 6: states and images
    "image-altered": ("the image's digest or structure is wrong", _AGAIN),
    "image-foreign": ("the file is not a state image", "name an image made by nvmelm state save"),
    "image-newer": ("a newer nvmelm wrote the image", "use that version to read it"),
    "image-not-suspended": ("the controller was not suspended throughout", "nvmelm state suspend PF CNTLID, then save"),
    "image-sizes-disagree": ("the image's parts do not add up", _AGAIN),
    "image-torn": ("the state changed while it was read", "nvmelm state suspend PF CNTLID, then save again"),
    "image-trailing-data": ("something follows the image in the file", _AGAIN),
    "image-truncated": ("the image ends early", _AGAIN),
    "kernel-owned": ("the kernel's nvme driver owns the VF", "nvmelm vfio bind VF"),
    "model-differs": ("source and target are different models", "use a target of the source's model"),
    "one-part-only": ("the target takes a state in one command only, and this one is longer", "use another target"),
    "restore-not-verified": ("the target does not hold what it was sent", "nvmelm secondary offline PF CNTLID"),
    "state-version-unknown": ("the device does not know this version of the NVMe state", "nvmelm show PF lists them"),
    "terminal": ("a state image is binary and goes to no terminal", "name a file, or use a pipe"),
    "vendor-differs": ("source and target are of different vendors", "use a target of the source's vendor"),
    "vendor-uuid-ambiguous": ("the device has several formats of vendor state", "nvmelm show PF lists them"),
    "vendor-uuid-unknown": ("the device does not know this format of vendor state", "nvmelm show PF lists them"),
    # recordings
    "recording-too-large": ("the session was too long to be recorded", "record a shorter one"),
    "recording-without-state": ("recordings leave a controller's state out", "use the emulated host"),
    "replay-mismatch": ("the verb asked something the recording does not hold", "replay the verb that was recorded"),
}
