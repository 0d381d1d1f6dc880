"""What ``nvmelm explain`` knows besides NVMe status codes: exit codes, errnos as they are met here, and outcomes."""

from __future__ import annotations

from typing import NamedTuple

from nvmelm.errors import ExitCode


class Row(NamedTuple):
    """What a code means, and what to do about it."""

    meaning: str
    fix: str


EXIT_CODES: dict[ExitCode, Row] = {
    ExitCode.DONE: Row("done, or there was nothing to do", "nothing; the answer's `changed` tells which"),
    ExitCode.FAILED: Row(
        "it failed for a reason no other code names: not root, a host not reached, a full disk, an image not usable",
        "read the error's cause and fix",
    ),
    ExitCode.USAGE: Row(
        "what was typed, or a file of settings, cannot be meant or names nothing that exists",
        "the verb's --help; nvmelm list",
    ),
    ExitCode.NOT_SUPPORTED: Row("the device or this host cannot do it", "nvmelm host check PF; nvmelm show PF"),
    ExitCode.INCOMPATIBLE: Row("a state and its target do not fit", "use a target like the source; nvmelm show PF"),
    ExitCode.BUSY: Row("another process, driver or VM holds it; the message names it", "let it go, then run it again"),
    ExitCode.REFUSED: Row("the controller completed a command with an error", "nvmelm explain with the status it gave"),
    ExitCode.TIMED_OUT: Row("a deadline passed; the message says what was waited for", "dmesg | tail; nvmelm recover"),
    ExitCode.ROLLED_BACK: Row("it failed, and every change was undone", "mend the cause, then run it again"),
    ExitCode.UNCERTAIN: Row(
        "the outcome cannot be known from here; two running copies are ruled out, two stopped ones are not",
        "look at both sides before anything else: nvmelm recover --dry-run",
    ),
    ExitCode.NOT_READY: Row(
        "something has to be done first: it is not marked, not online, not bound, or a loss is not confirmed",
        "what the fix says, then run it again; --yes confirms",
    ),
    ExitCode.INTERRUPTED: Row("Ctrl-C ended it; the message says what was undone", "nvmelm recover, then run it again"),
}

#: What the kernel means by an errno where nvmelm meets it.
ERRNOS: dict[str, Row] = {
    "EPERM": Row(
        "the kernel wants root, or the platform has no interrupt remapping", "run it with sudo; nvmelm host check"
    ),
    "EACCES": Row("the kernel wants root", "run it with sudo"),
    "ENOENT": Row(
        "there is no such file; for sriov_numvfs: no driver with SR-IOV support is bound to the PF",
        "bind the PF to the nvme driver; nvmelm list",
    ),
    "ENODEV": Row(
        "the device is gone, or the driver does not take it: driver_override names another one, or autoprobe is off",
        "nvmelm show PF; nvmelm vfio bind sets the override and probes in one step",
    ),
    "ENXIO": Row("the device is not there any more", "nvmelm list"),
    "EBUSY": Row(
        "somebody holds it: a VM has the VF open, it is bound already, or VFs are enabled with another count",
        "nvmelm secondary list PF names who has a VF in use",
    ),
    "EINVAL": Row(
        "the kernel cannot take the value; when binding to vfio-pci: the function is in no IOMMU group",
        "nvmelm host check",
    ),
    "ERANGE": Row("more VFs than the PF can have", "nvmelm show PF tells how many it can have"),
    "ENOMEM": Row(
        "the platform's firmware left no room for the VFs: no memory window or bus number below the bridge",
        "enable SR-IOV (and large BARs) in the firmware set-up, or boot with pci=realloc",
    ),
    "EIO": Row("the controller is dead or being reset", "dmesg | tail; nvmelm list"),
    "EINTR": Row(
        "the driver gave up on the command and reset the controller: every VF is offline now", "nvmelm recover"
    ),
    "ENOTTY": Row("the device node does not know the request; it is not a controller's", "nvmelm list names the nodes"),
    "ENOSPC": Row("the disk is full", "make room, then run it again"),
    "EPIPE": Row("the reader of a pipe has gone", "run the whole pipe again"),
}

_FLEET = "nvmelm compat check says all that is against one pair"

#: Words of an answer that are no errors: what became of an entry (``apply``), why a source has no place (``compat
#: match``).
OUTCOMES: dict[str, Row] = {
    "done": Row("apply: the function was brought to what its entry wants", "nothing"),
    "unchanged": Row("apply: the function is as its entry wants it", "nothing"),
    "planned": Row("apply --dry-run: the entry wants changes, and none was made", "run it without --dry-run"),
    "absent": Row(
        "apply: no controlling function of this host has the name that the entry gives",
        "nvmelm list shows what is here; correct the file, or plug it in",
    ),
    "left-alone": Row(
        "apply: driverctl or libvirt binds the function or one of its VFs; two managers would undo each other's work",
        "nothing, or remove the override (driverctl), or managed='yes' (virsh edit); docs/apply.md",
    ),
    "failed": Row("apply: the entry could not be reached; the others were tried all the same", "the entry's own fix"),
    "nothing-fits": Row("compat match: no destination can take the source's state", _FLEET),
    "labels": Row(
        "compat match: a destination fits, but not where --same and --differ let the source go",
        "relax --same or --differ, or correct the labels of the manifests",
    ),
    "no-room": Row(
        "compat match: what fits is taken by other sources", "prepare more VFs at the destinations, or move fewer"
    ),
}
