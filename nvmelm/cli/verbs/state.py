"""``nvmelm state``: step 6 on one host, the state of a controlled function."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from nvmelm.cli.frame import render
from nvmelm.cli.frame.functions import Function, opened
from nvmelm.cli.frame.options import group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.views import images
from nvmelm.state import verbs
from nvmelm.state.image import view as image_view
from nvmelm.state.image.reader import open_image

app = group("Step 6 on one host: the state of a controlled function.")

Output = Annotated[Path, typer.Argument(metavar="FILE", help="The image; - for standard output.", allow_dash=True)]
Input = Annotated[Path, typer.Argument(metavar="FILE", help="The image; - for standard input.", allow_dash=True)]
Notify = Annotated[bool, typer.Option("--notify", help="Announce a suspend to come, and stop nothing.")]


@verb(app, "suspend", changes=True)
def suspend(run: Run, function: Function, notify: Notify = False) -> Answer:
    """Stop a controlled function; it finishes the commands it has fetched."""
    with opened(run, function, change=True) as (primary, cntlid):
        return _answer(verbs.suspend(primary, cntlid, notify=notify, confirm=run.confirm, dry_run=run.dry_run))


@verb(app, "resume", changes=True)
def resume(run: Run, function: Function) -> Answer:
    """Let a suspended controlled function go on."""
    with opened(run, function, change=True) as (primary, cntlid):
        return _answer(verbs.resume(primary, cntlid, confirm=run.confirm, dry_run=run.dry_run))


@verb(app, "save", changes=True)
def save(run: Run, function: Function, file: Output) -> Answer:
    """Save the state of a suspended controlled function to a checksummed image."""
    run.aside = str(file) == "-"
    with opened(run, function, change=True) as (primary, cntlid):
        bar = run.progress(f"saving {render.cntlid(cntlid)}")
        return _answer(verbs.save(primary, cntlid, file, replace=run.settings.force, progress=bar, dry_run=run.dry_run))


@verb(app, "restore", changes=True)
def restore(run: Run, function: Function, file: Input) -> Answer:
    """Put a saved state into a controlled function, and leave it suspended."""
    with opened(run, function, change=True) as (primary, cntlid):
        bar = run.progress(f"restoring {render.cntlid(cntlid)}")
        report = verbs.restore(primary, cntlid, file, progress=bar, confirm=run.confirm, dry_run=run.dry_run)
    return _answer(report)


@verb(app, "show")
def show(_: Run, file: Input) -> Answer:
    """Verify an image, or the file of a VM's stream, and show what it holds: sizes, queues, digests; never data."""
    from nvmelm.vfio import view  # the answering of VMs: 60 ms, which no other verb of state needs

    if view.is_stream(file):
        with tempfile.TemporaryDirectory(prefix="nvmelm-") as spool:
            described = view.describe(file, Path(spool))
        return Answer(described, lambda: images.stream(described))
    with tempfile.TemporaryDirectory(prefix="nvmelm-") as spool, open_image(file, spool_directory=Path(spool)) as image:
        description = image_view.show(image)
    return Answer(description, lambda: images.description(description))


def _answer(report: verbs.StateReport) -> Answer:
    return Answer(report, lambda: images.report(report))
