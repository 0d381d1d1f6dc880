"""Which drivers leave a function to nvmelm."""

from __future__ import annotations

from nvmelm.errors import NotSupportedError
from nvmelm.inventory import pci
from nvmelm.inventory.picture import Secondary


def require_no_other_manager(secondary: Secondary, message: str, *, reason: str = "") -> None:
    """Refuse a function whose driver may migrate it by itself: every VFIO driver but vfio-pci.

    Such are the variant drivers below drivers/vfio/pci of Linux: mlx5_vfio_pci and hisi_acc_vfio_pci (both 5.18), and
    pds_vfio_pci (6.6). The kernel's own NVMe driver is another matter, and not refused here.

    Raises:
        NotSupportedError: with this message.
    """
    driver = secondary.driver
    if driver not in (None, pci.NVME_DRIVER, pci.VFIO_DRIVER):
        cause = f"the driver {driver} may migrate the function itself; two managers would overwrite each other"
        fix = f"nvmelm vfio unbind {secondary.address}, or leave the migration to {driver}"
        raise NotSupportedError(message, cause=cause, fix=fix, reason=reason)
