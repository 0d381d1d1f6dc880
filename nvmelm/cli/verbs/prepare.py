"""What ``source prepare`` and ``destination prepare`` share: steps 1 to 4 in one run, and 5 when a VM is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from nvmelm.cli.frame.run import Answer, Run
from nvmelm.cli.views.answers import changed
from nvmelm.errors import UsageError
from nvmelm.inventory.picture import Role
from nvmelm.prepare import sequence

if TYPE_CHECKING:
    from nvmelm.vm.libvirt.client import DomainRef

Qmp = Annotated[
    str | None,
    typer.Option("--qmp", metavar="SOCKET", help="Step 5 too: pass the VFs to the QEMU with this QMP socket."),
]


class Wish(NamedTuple):
    """What a preparation is asked for; see :func:`nvmelm.prepare.sequence.prepare`."""

    role: Role
    vfs: int
    vq: int | None
    vi: int | None
    unmarked: bool
    expires: int | None
    qmp: str | None
    libvirt: DomainRef | None


def prepare(run: Run, pf: str, wish: Wish) -> Answer:
    """Prepare a controlling function for one role."""
    if wish.qmp is not None and wish.libvirt is not None:
        raise UsageError("the VFs go to one VM", fix="--qmp SOCKET, or --libvirt DOMAIN")
    with run.primary(pf, change=True) as primary:
        report = sequence.prepare(
            primary,
            wish.role,
            wish.vfs,
            vq=wish.vq,
            vi=wish.vi,
            unmarked=wish.unmarked,
            valid_s=wish.expires,
            confirm=run.confirm,
            dry_run=run.dry_run,
        )
        if wish.qmp is None and wish.libvirt is None:
            return changed(report)
        from nvmelm.cli.verbs.prepared import go_on  # step 5 imports what talks to QEMU

        return go_on(run, primary, report, vfs=wish.vfs, qmp=wish.qmp, libvirt=wish.libvirt, unmarked=wish.unmarked)
