"""The facts of a manifest: one table that says what each means and how a source's and a destination's compare.

The verdict, the site's policy, the four dialects and the fleet all read this table, and so does ``docs/facts.md``. A
fact has one value; a namespace's attribute is a list that runs along ``namespaces.ids``. A fact that could not be
known has no value at all: there is no default, and a missing fact is never taken for a harmless one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nvmelm.compat.rules import (
    Fact,
    Kind,
    Rule,
    Severity,
)

_MODEL = "use a destination of the source's model"
_LIKE = "use a destination that offers what the source offers: the same model and firmware does"
_UPDATE = "bring both to one firmware, or allow the pair in a policy when it was tested"
_NAMESPACE = "make the namespace anew at the destination as it is at the source, then copy its data"
_WITHOUT = "use a controller, or a firmware set-up of it, that does not offer it"
_BLOCKS, _WARNS, _INFORMS = Severity.BLOCKS, Severity.WARNS, Severity.INFORMS

# A table reads as a table: which fact and how it compares, then what it is and what to do about a difference.
# fmt: off
_IDENTITY = (
    Fact("identity.vendor_id", Kind.INT, Rule.EQUAL, _BLOCKS, "vendor-differs", "PCI Vendor ID (VID)", _MODEL),
    Fact("identity.subsystem_vendor_id", Kind.INT, Rule.EQUAL, _BLOCKS, "subsystem-vendor-differs",
         "PCI Subsystem Vendor ID (SSVID)", _MODEL),
    Fact("identity.vf_device_id", Kind.INT, Rule.EQUAL, _BLOCKS, "device-id-differs",
         "PCI device id of the VFs, which a guest has bound its driver to (SR-IOV capability)", _MODEL),
    Fact("identity.model", Kind.TEXT, Rule.EQUAL, _BLOCKS, "model-differs", "Model Number (MN)", _MODEL),
    Fact("identity.firmware", Kind.TEXT, Rule.EQUAL, _BLOCKS, "firmware-differs", "Firmware Revision (FR)", _UPDATE),
    Fact("identity.nvme_version", Kind.VERSION, Rule.SAME_MAJOR, _BLOCKS, "nvme-version-differs",
         "version of the NVMe specification (VER)", _UPDATE),
)

_CAPABILITIES = (
    Fact("capabilities.live_migration", Kind.BOOL, Rule.REQUIRED, _BLOCKS, "no-live-migration",
         "Host Managed Live Migration of the controlling function (OACS bit 11), with a state format listed (CNS 20h)",
         "use controllers with NVMe 2.1 live migration on both sides", fixed=True),
    Fact("capabilities.state_versions", Kind.INTS, Rule.SUPERSET, _BLOCKS, "state-version-missing",
         "versions of the NVMe Controller State it gives and takes (CNS 20h), by value", _UPDATE, fixed=True),
    Fact("capabilities.vendor_formats", Kind.TEXTS, Rule.SUPERSET, _BLOCKS, "vendor-format-missing",
         "UUIDs of its vendor specific state formats (CNS 20h), by value", _UPDATE, fixed=True),
    Fact("capabilities.nvm_commands", Kind.INTS, Rule.SUPERSET, _BLOCKS, "nvm-commands-missing",
         "bits set in Optional NVM Command Support (ONCS)", _LIKE),
    Fact("capabilities.attributes", Kind.INTS, Rule.SUPERSET, _WARNS, "attributes-missing",
         "bits set in Controller Attributes (CTRATT)", _LIKE),
    Fact("capabilities.events", Kind.INTS, Rule.SUPERSET, _WARNS, "events-missing",
         "bits set in Optional Asynchronous Events Supported (OAES)", _LIKE),
    Fact("capabilities.sgl", Kind.INT, Rule.EQUAL, _BLOCKS, "sgl-support-differs", "SGL Support (SGLS)", _LIKE),
    Fact("capabilities.write_cache", Kind.INT, Rule.EQUAL, _BLOCKS, "write-cache-differs",
         "Volatile Write Cache (VWC); a guest that was told of none does not flush", _LIKE),
)

_LIMITS = (
    Fact("limits.max_transfer_bytes", Kind.INT, Rule.LIMIT, _BLOCKS, "max-transfer-smaller",
         "largest data transfer of one command (MDTS), 0: no limit", _LIKE, unit="bytes"),
    Fact("limits.sq_entry_bytes", Kind.INTS, Rule.EQUAL, _BLOCKS, "sq-entry-size-differs",
         "required and largest size of a submission queue entry (SQES)", _LIKE, unit="bytes"),
    Fact("limits.cq_entry_bytes", Kind.INTS, Rule.EQUAL, _BLOCKS, "cq-entry-size-differs",
         "required and largest size of a completion queue entry (CQES)", _LIKE, unit="bytes"),
    Fact("limits.queue_entries", Kind.INT, Rule.AT_LEAST, _BLOCKS, "queue-entries-fewer",
         "entries of a queue (CAP.MQES + 1) as far as the kernel's driver uses them",
         "give both hosts the same io_queue_depth of the nvme module, or use a destination like the source",
         unit="entries"),
    Fact("limits.page_bytes", Kind.INT, Rule.EQUAL, _BLOCKS, "page-size-differs",
         "smallest memory page (CAP.MPSMIN); the kernel's driver drives only controllers that take 4 KiB", _LIKE,
         unit="bytes"),
    Fact("limits.outstanding_commands", Kind.INT, Rule.LIMIT, _WARNS, "outstanding-commands-fewer",
         "commands it can have outstanding (MAXCMD), 0: not reported", _LIKE, unit="commands"),
    Fact("limits.largest_nsid", Kind.INT, Rule.AT_LEAST, _BLOCKS, "namespace-ids-fewer", "largest namespace id (NN)",
         _LIKE),
    Fact("limits.vf_bar_bytes", Kind.INTS, Rule.EQUAL, _BLOCKS, "bars-differ",
         "sizes of the VF's six BARs; 0 for one that is not there, or is the upper half of the one before", _MODEL,
         unit="bytes"),
)

_RESOURCES = (
    Fact("resources.vq", Kind.INT, Rule.AT_LEAST, _BLOCKS, "vq-fewer",
         "VQ resources (queue pairs, the admin queue's included)",
         "nvmelm secondary assign PF CNTLID --vq N at the destination", unit="queue pairs", settable=True),
    Fact("resources.vi", Kind.INT, Rule.AT_LEAST, _BLOCKS, "vi-fewer", "VI resources (interrupt vectors)",
         "nvmelm secondary assign PF CNTLID --vi N at the destination", unit="vectors", settable=True),
)

_AGAIN = "the move itself works; moving on from there has to do without"
_TRACKING = (
    Fact("tracking.memory", Kind.BOOL, Rule.KEEPS, _WARNS, "memory-tracking-missing",
         "Track Memory Changes (TRATTR bit 0); moving on from the destination would need it", _AGAIN),
    Fact("tracking.user_data", Kind.BOOL, Rule.KEEPS, _WARNS, "user-data-tracking-missing",
         "Log User Data Changes (TRATTR bit 1); moving on from the destination would need it", _AGAIN),
    Fact("tracking.memory_ranges", Kind.INT, Rule.AT_LEAST, _INFORMS, "tracked-ranges-fewer",
         "memory ranges it can track at a time (CMMRTD)", _AGAIN, unit="ranges"),
    Fact("tracking.smallest_granularity_bytes", Kind.INT, Rule.EQUAL, _INFORMS, "tracking-granularity-differs",
         "smallest granularity of tracked memory (MINMRTG), 0 without tracking", _AGAIN, unit="bytes"),
)


# fmt: on
def _namespace(
    name: str,
    kind: Kind,
    code: str,
    meaning: str,
    *,
    unit: str = "",
    severity: Severity = _BLOCKS,
    runtime: bool = False,
) -> Fact:
    return Fact(f"namespaces.{name}", kind, Rule.EQUAL, severity, code, meaning, _NAMESPACE, unit=unit, runtime=runtime)


# fmt: off
_NAMESPACES = (
    Fact("namespaces.ids", Kind.INTS, Rule.EQUAL, _BLOCKS, "namespaces-differ",
         "ids of the namespaces attached to it, ascending",
         "attach the source's namespaces, and no others, to the destination (nvme attach-ns)", settable=True,
         runtime=True),
    _namespace("blocks", Kind.INTS, "namespace-size-differs", "size (NSZE) of each", unit="blocks", runtime=True),
    _namespace("block_bytes", Kind.INTS, "block-size-differs", "block size (LBADS) of each", unit="bytes"),
    _namespace("metadata_bytes", Kind.INTS, "metadata-differs", "metadata of a block (MS) of each", unit="bytes"),
    _namespace("metadata_extended", Kind.INTS, "metadata-place-differs",
               "1: the metadata of each follows the block's data, 0: it is apart (FLBAS bit 4)"),
    _namespace("protection", Kind.INTS, "protection-differs", "Data Protection Type Settings (DPS) of each"),
    _namespace("features", Kind.INTS, "namespace-features-differ", "Namespace Features (NSFEAT) of each"),
    _namespace("shared", Kind.INTS, "namespace-sharing-differs",
               "1: each may be attached to several controllers (NMIC bit 0)", severity=_WARNS),
    _namespace("write_protected", Kind.INTS, "write-protection-differs",
               "1: each is write protected now (NSATTR bit 0)", runtime=True),
    _namespace("nguid", Kind.TEXTS, "nguid-differs",
               "NGUID of each, zeros: none; a guest that finds another one gives the namespace up"),
    _namespace("eui64", Kind.TEXTS, "eui64-differs",
               "EUI64 of each, zeros: none; a guest that finds another one gives the namespace up"),
    _namespace("uuid", Kind.TEXTS, "uuid-differs",
               "UUID of each (CNS 03h), zeros: none, or the controlling function does not tell"),
    Fact("namespaces.identified", Kind.BOOL, Rule.REQUIRED, _BLOCKS, "namespace-unidentified",
         "each has an NGUID, an EUI64 or a UUID; without one nobody can tell whether both ends have one medium",
         "give the namespaces identifiers; where you know that it is one medium, or a whole copy, allow "
         "namespaces.identified in a policy"),
)

_FEATURES = (
    Fact("features.host_memory_buffer", Kind.BOOL, Rule.FORBIDDEN, _BLOCKS, "host-memory-buffer",
         "the controlling function asks for a host memory buffer (HMPRE is not 0); no controller of a subsystem that "
         "migrates may use one", _WITHOUT),
    Fact("features.doorbell_buffer", Kind.BOOL, Rule.FORBIDDEN, _BLOCKS, "doorbell-buffer",
         "Doorbell Buffer Config is offered (OACS bit 8); its addresses are in no NVMe state, and Linux guests use it "
         "wherever it is offered", _WITHOUT),
    Fact("features.controller_memory_buffer", Kind.BOOL, Rule.FORBIDDEN, _BLOCKS, "controller-memory-buffer",
         "a Controller Memory Buffer, as the kernel shows one of the controlling function; what is in it is in no NVMe "
         "state", _WITHOUT),
    Fact("features.persistent_memory_region", Kind.BOOL, Rule.FORBIDDEN, _BLOCKS, "persistent-memory-region",
         "a Persistent Memory Region; it stands in BAR 2 to 5, so a VF that has none of these has none",
         "ask the vendor; if there is none, allow features.persistent_memory_region to be missing in a policy"),
)

_HOST = (
    Fact("host.vfio_driver", Kind.TEXT, Rule.ALLOWED, _BLOCKS, "vfio-driver-unsuitable",
         "driver the VF is bound to, none: no driver; any other VFIO driver may migrate the function itself",
         "nvmelm vfio bind VF", runtime=True, fixed=True, allowed=("vfio-pci",)),
    Fact("host.iommu", Kind.BOOL, Rule.REQUIRED, _BLOCKS, "no-iommu", "the function is in an IOMMU group",
         "nvmelm host check", fixed=True),
    Fact("host.kernel", Kind.TEXT, Rule.EQUAL, _INFORMS, "kernel-differs", "release of the host's kernel",
         "nothing to do: the guest does not see it"),
)

# fmt: on

#: Every fact by its name, in the order in which they are shown.
FACTS: Mapping[str, Fact] = {
    fact.name: fact
    for fact in (
        *_IDENTITY,
        *_CAPABILITIES,
        *_LIMITS,
        *_RESOURCES,
        *_TRACKING,
        *_NAMESPACES,
        *_FEATURES,
        *_HOST,
    )
}


def missing(names: Iterable[str]) -> list[str]:
    """Return the facts of the table that are not among some names, in the table's order."""
    have = set(names)
    return [name for name in FACTS if name not in have]
