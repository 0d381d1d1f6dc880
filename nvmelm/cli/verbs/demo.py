"""``nvmelm demo``: two emulated hosts, the six steps on both, and a guest doing I/O throughout."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from nvmelm.cli.frame import render
from nvmelm.cli.frame.options import group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.demo import controller as demo
from nvmelm.demo.controller import DemoReport, DemoStep
from nvmelm.demo.vm import VmDemo

app = group("Two emulated hosts, the six steps on both, and a guest doing I/O throughout.")


Controller = Annotated[
    bool, typer.Option("--controller", help="Move a controller alone, its VMM led by hand, as migrate does it.")
]


@verb(app, "demo")
def show(run: Run, controller: Controller = False) -> Answer:
    """Move a VM with its controller between two emulated hosts, and prove that its guest did not notice.

    Needs no hardware and no root; everything happens in a temporary directory that is removed again.
    """
    say = _silent if run.settings.json else _print_step
    with tempfile.TemporaryDirectory(prefix="nvmelm-demo-") as directory:
        report = demo.run(Path(directory), say, demo.Demo if controller else VmDemo)
    return Answer(report, lambda: _summary(report))


def _silent(step: DemoStep) -> None:
    """Say nothing: the document holds every step."""


def _print_step(step: DemoStep) -> None:
    paint = render.Paint(sys.stdout)
    line = f"{step.host:<11}  {paint.bold(str(step.step))}  {step.name:<30}  {paint.dim(step.result)}"
    render.print_lines([line], sys.stdout)
    sys.stdout.flush()


def _summary(report: DemoReport) -> Iterator[str]:
    paint = render.Paint(sys.stdout)
    yield ""
    parts = ("suspend", "save", "memory", "restore", "resume")
    times = ", ".join(f"{name} {getattr(report, f'{name}_ms'):.1f}" for name in parts)
    yield f"downtime  {report.downtime_ms:.1f} ms ({times})"
    flight = f"{render.count(report.in_flight, 'command')} in flight at the suspend"
    yield f"state     {render.count(report.state_bytes, 'byte')}, with {flight}"
    done = f"{render.count(report.submitted, 'command')} submitted, {report.completed} completed"
    yield f"guest     {done}, {render.count(report.verified, 'block')} verified"
    lost = f"{render.count(report.lost, 'completion')} lost, {report.doubled} doubled, {report.misdirected} misdirected"
    yield paint.good(f"          {lost}")
    yield "hosts     both released, and as they were found"
