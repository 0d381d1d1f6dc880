"""``nvmelm source``: prepare the host that gives the controlled function away."""

from __future__ import annotations

from nvmelm.cli.frame.domain import Connect, Libvirt, domain
from nvmelm.cli.frame.options import Expires, Pf, Unmarked, Vfs, Vi, Vq, group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.verbs.prepare import Qmp, Wish, prepare
from nvmelm.inventory.picture import Role

app = group("The host that gives the controlled function away.")


@verb(app, "prepare", changes=True)
def prepare_source(
    run: Run,
    pf: Pf,
    vfs: Vfs,
    vq: Vq = None,
    vi: Vi = None,
    unmarked: Unmarked = False,
    expires: Expires = None,
    qmp: Qmp = None,
    libvirt: Libvirt = None,
    connect: Connect = None,
) -> Answer:
    """Steps 1 to 4: enable VFs, share out resources, bring controllers online, mark them, bind them to vfio-pci."""
    named = domain(libvirt, connect)
    return prepare(run, pf, Wish(Role.MIGRATABLE, vfs, vq, vi, unmarked, expires, qmp, named))
