"""``nvmelm host check``: can this host do it?"""

from __future__ import annotations

from typing import Annotated

import typer

from nvmelm.cli.frame.options import group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.views import changes
from nvmelm.errors import ExitCode
from nvmelm.prepare.check import check as operation

app = group("This host.")


@verb(app, "check")
def check(
    run: Run,
    pf: Annotated[str | None, typer.Argument(metavar="[PF]", help="Check this controlling function too.")] = None,
) -> Answer:
    """Check IOMMU, vfio, SR-IOV and the controllers; every problem comes with its fix. Exit 3: not ready."""
    checked = operation(run.host(), pf)
    code = ExitCode.DONE if checked.ready else ExitCode.NOT_SUPPORTED
    return Answer(checked, lambda: changes.host_check(checked), exit_code=code)
