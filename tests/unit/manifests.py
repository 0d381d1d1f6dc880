"""Manifests as tests need them: one whole set of facts, changes by name, and manifests that hypothesis makes up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from nvmelm.compat.facts import FACTS
from nvmelm.compat.manifest import Manifest
from nvmelm.compat.rules import Fact, FactValue, Kind, Rule

#: A function that may migrate, with two namespaces; typed, not read.
WHOLE: Mapping[str, FactValue] = {
    "identity.vendor_id": 0x1E4C,
    "identity.subsystem_vendor_id": 0x1E4C,
    "identity.vf_device_id": 0x2101,
    "identity.model": "a controller",
    "identity.firmware": "2.1.0",
    "identity.nvme_version": "2.1.0",
    "capabilities.live_migration": True,
    "capabilities.state_versions": [0],
    "capabilities.vendor_formats": ["6f0d1c1e-4a3b-5c2d-9e8f-0a1b2c3d4e5f"],
    "capabilities.nvm_commands": [0, 2, 3],
    "capabilities.attributes": [9],
    "capabilities.events": [8],
    "capabilities.sgl": 1,
    "capabilities.write_cache": 7,
    "limits.max_transfer_bytes": 2 * 1024 * 1024,
    "limits.sq_entry_bytes": [64, 64],
    "limits.cq_entry_bytes": [16, 16],
    "limits.queue_entries": 1024,
    "limits.page_bytes": 4096,
    "limits.outstanding_commands": 256,
    "limits.largest_nsid": 256,
    "limits.vf_bar_bytes": [16384, 0, 0, 0, 0, 0],
    "resources.vq": 4,
    "resources.vi": 4,
    "tracking.memory": True,
    "tracking.user_data": False,
    "tracking.memory_ranges": 64,
    "tracking.smallest_granularity_bytes": 4096,
    "namespaces.ids": [1, 7],
    "namespaces.blocks": [131072, 4096],
    "namespaces.block_bytes": [512, 4096],
    "namespaces.metadata_bytes": [0, 8],
    "namespaces.metadata_extended": [0, 1],
    "namespaces.protection": [0, 1],
    "namespaces.features": [0, 0],
    "namespaces.shared": [1, 1],
    "namespaces.write_protected": [0, 0],
    "namespaces.nguid": ["0" * 32, "0123456789abcdef0123456789abcdef"],
    "namespaces.eui64": ["0" * 15 + "1", "0123456789abcdef"],
    "namespaces.uuid": ["00000000-0000-0000-0000-000000000000", "3f2504e0-4f89-41d3-9a0c-0305e82c3301"],
    "namespaces.identified": True,
    "features.host_memory_buffer": False,
    "features.doorbell_buffer": False,
    "features.controller_memory_buffer": False,
    "features.persistent_memory_region": False,
    "host.vfio_driver": "vfio-pci",
    "host.iommu": True,
    "host.kernel": "6.1.0-56-amd64",
}

#: A value of each fact that does not go with the one above.
OTHER: Mapping[str, FactValue] = {
    "identity.vendor_id": 0x1B36,
    "identity.subsystem_vendor_id": 0x1AF4,
    "identity.vf_device_id": 0x0010,
    "identity.model": "another controller",
    "identity.firmware": "2.1.1",
    "identity.nvme_version": "2.0.0",
    "capabilities.live_migration": False,
    "capabilities.state_versions": [1],
    "capabilities.vendor_formats": [],
    "capabilities.nvm_commands": [0],
    "capabilities.attributes": [],
    "capabilities.events": [],
    "capabilities.sgl": 0,
    "capabilities.write_cache": 0,
    "limits.max_transfer_bytes": 4096,
    "limits.sq_entry_bytes": [64, 128],
    "limits.cq_entry_bytes": [16, 32],
    "limits.queue_entries": 64,
    "limits.page_bytes": 8192,
    "limits.outstanding_commands": 2,
    "limits.largest_nsid": 8,
    "limits.vf_bar_bytes": [32768, 0, 0, 0, 0, 0],
    "resources.vq": 3,
    "resources.vi": 3,
    "tracking.memory": False,
    "tracking.user_data": True,
    "tracking.memory_ranges": 8,
    "tracking.smallest_granularity_bytes": 8192,
    "namespaces.ids": [1, 8],
    "namespaces.blocks": [131072, 8192],
    "namespaces.block_bytes": [512, 512],
    "namespaces.metadata_bytes": [0, 0],
    "namespaces.metadata_extended": [0, 0],
    "namespaces.protection": [0, 0],
    "namespaces.features": [0, 1],
    "namespaces.shared": [0, 1],
    "namespaces.write_protected": [0, 1],
    "namespaces.nguid": ["0" * 32, "f" * 32],
    "namespaces.eui64": ["0" * 15 + "1", "f" * 16],
    "namespaces.uuid": ["00000000-0000-0000-0000-000000000000", "f" * 8 + "-ffff-4fff-bfff-" + "f" * 12],
    "namespaces.identified": False,
    "features.host_memory_buffer": True,
    "features.doorbell_buffer": True,
    "features.controller_memory_buffer": True,
    "features.persistent_memory_region": True,
    "host.vfio_driver": "nvmevf_vfio_pci",
    "host.iommu": False,
    "host.kernel": "6.12.1",
}


def manifest(changes: Mapping[str, Any] | None = None, *, without: str = "", **rest: Any) -> Manifest:
    """Return a whole manifest with changed facts."""
    facts = {name: value for name, value in {**WHOLE, **(changes or {})}.items() if name != without}
    return Manifest(rest.pop("level", "device"), facts, **rest)


def other_pair(name: str) -> tuple[Manifest, Manifest]:
    """Return a source and a destination that differ in one fact, in the direction that matters."""
    changed = manifest({name: OTHER[name]})
    return (changed, manifest()) if name == "tracking.user_data" else (manifest(), changed)


_NUMBERS = st.integers(0, 2**64 - 1)
_WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
_VERSIONS = st.builds("{}.{}.{}".format, st.integers(0, 3), st.integers(0, 4), st.integers(0, 9))


def values(fact: Fact) -> st.SearchStrategy[FactValue]:
    """Return values the fact can have; those of namespaces are two long."""
    if fact.name == "namespaces.ids":
        return st.lists(st.integers(1, 2**32 - 2), min_size=2, max_size=2, unique=True).map(sorted)
    if fact.rule is Rule.ALLOWED:
        return st.sampled_from((*fact.allowed, "none", "another"))
    length = {"min_size": 2, "max_size": 2} if fact.section == "namespaces" else {"max_size": 4}
    strategies: Mapping[Kind, st.SearchStrategy[Any]] = {
        Kind.INT: _NUMBERS,
        Kind.TEXT: st.text(st.characters(codec="utf-8"), max_size=20),
        Kind.BOOL: st.booleans(),
        Kind.VERSION: _VERSIONS,
        Kind.INTS: st.lists(_NUMBERS, **length),
        Kind.TEXTS: st.lists(_WORDS, **length),
    }
    return strategies[fact.kind]


def truthful(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts that do not claim identifiers which are not there: such a manifest is none."""
    kinds = (facts[f"namespaces.{kind}"] for kind in ("nguid", "eui64", "uuid"))
    identified = all(any(word.strip("0-") for word in words) for words in zip(*kinds, strict=True))
    return {**facts, "namespaces.identified": facts["namespaces.identified"] and identified}


#: Whole manifests of any values: most pairs of them do not fit.
ANY = st.fixed_dictionaries({name: values(fact) for name, fact in FACTS.items()}).map(
    lambda facts: manifest(truthful(facts))
)


@st.composite
def near(draw: st.DrawFn, base: Manifest | None = None) -> Manifest:
    """Return a manifest that differs from another in a few facts."""
    start = base or manifest()
    names = draw(st.lists(st.sampled_from(sorted(FACTS)), max_size=3, unique=True))
    return manifest(truthful({**start.facts, **{name: draw(values(FACTS[name])) for name in names}}))


@st.composite
def richer(draw: st.DrawFn, base: Manifest) -> Manifest:
    """Return a manifest that offers all that another does, and more of what can be more."""
    changes: dict[str, Any] = {}
    for name, fact in FACTS.items():
        value: Any = base.facts[name]
        if fact.rule is Rule.AT_LEAST:
            changes[name] = draw(st.integers(value, 2**64 - 1))
        elif fact.rule is Rule.LIMIT:
            changes[name] = 0 if value == 0 else draw(st.just(0) | st.integers(value, 2**64 - 1))
        elif fact.rule is Rule.SUPERSET:
            item = _NUMBERS if fact.kind is Kind.INTS else _WORDS
            changes[name] = value + [one for one in draw(st.lists(item, max_size=2)) if one not in value]
        elif fact.rule is Rule.KEEPS:
            changes[name] = value or draw(st.booleans())
        elif fact.rule is Rule.SAME_MAJOR:
            major, minor, _ = (int(part) for part in value.split("."))
            changes[name] = f"{major}.{draw(st.integers(minor, minor + 9))}.0"
    return manifest({**base.facts, **changes})
