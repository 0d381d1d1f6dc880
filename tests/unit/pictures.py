"""Pictures of controlling functions, as tests need them: one maker, values by keyword."""

from __future__ import annotations

from typing import Any

from nvmelm.inventory.picture import Picture, Primary, Resources, Secondary, StateFormats, Tracking


def resources(**values: Any) -> Resources:
    return Resources(
        **{
            "supported": True,
            "flexible_total": 12,
            "assigned_to_secondaries": 0,
            "allocated_to_primary": 0,
            "private_to_primary": 5,
            "secondary_maximum": 3,
            "granularity": 1,
            **values,
        }
    )


def secondary(number: int, **values: Any) -> Secondary:
    return Secondary(
        **{
            "cntlid": number,
            "primary_cntlid": 0,
            "vf_number": number,
            "state": "online" if values.get("online") else "offline",
            "online": False,
            "vq": 0,
            "vi": 0,
            "address": f"0000:01:00.{number}",
            "present": False,
            "driver": None,
            "driver_override": "",
            "iommu_group": None,
            "vfio_node": None,
            "vfio_device": None,
            "controller_node": None,
            "incarnation": 0,
            "used_by": (),
            **values,
        }
    )


def primary(**values: Any) -> Primary:
    return Primary(
        **{
            "node": "nvme0",
            "address": "0000:01:00.0",
            "serial": "LAB0001",
            "model": "a controller",
            "firmware": "1.0",
            "nqn": "nqn.2026-11.lab:a",
            "vendor_id": 0x1B36,
            "subsystem_vendor_id": 0x1AF4,
            "cntlid": 0,
            "nvme_version": "2.1.0",
            "live_migration": True,
            "virtualization_management": True,
            "max_transfer_bytes": 512 * 1024,
            "state_formats": StateFormats(versions=(0,), vendor_uuids=()),
            "tracking": Tracking(
                memory=False,
                user_data=False,
                memory_ranges=0,
                smallest_granularity_bytes=0,
                largest_granularity_bytes=0,
                power_of_two_lengths=False,
                user_data_queues=0,
            ),
            "vq": resources(),
            "vi": resources(flexible_total=8, secondary_maximum=2),
            "vfs_total": 4,
            "vfs_enabled": 0,
            "drivers_autoprobe": True,
            **values,
        }
    )


def picture(*secondaries: Secondary, **values: Any) -> Picture:
    return Picture(primary=primary(**values), secondaries=secondaries or tuple(secondary(n) for n in range(1, 5)))
