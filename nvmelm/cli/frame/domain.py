"""A domain of libvirt on the command line: the options of every verb that takes one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from nvmelm.errors import UsageError

if TYPE_CHECKING:
    from nvmelm.vm.libvirt.client import DomainRef

Libvirt = Annotated[str | None, typer.Option("--libvirt", metavar="DOMAIN", help="The VM as libvirt's domain.")]
Connect = Annotated[str | None, typer.Option("--connect", metavar="URI", help="The libvirt that has it, as for virsh.")]
Taint = Annotated[
    bool, typer.Option("--may-taint", help="Ask QEMU through libvirt if it would migrate; this taints the domain.")
]


def domain(name: str | None, connect: str | None, *, may_taint: bool = False) -> DomainRef | None:
    """Return the domain that the options name, or None.

    Raises:
        UsageError: options of a domain without a domain.
    """
    if name is None:
        if connect is not None or may_taint:
            raise UsageError("--connect and --may-taint are for a domain of libvirt", fix="--libvirt DOMAIN")
        return None
    from nvmelm.vm.libvirt.client import DomainRef  # here: most runs talk to no libvirt

    return DomainRef(name, connect, may_taint)
