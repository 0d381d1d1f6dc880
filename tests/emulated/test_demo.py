"""The demonstration moves a VM or a controller alone, and would notice if something went wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvmelm.demo import controller as demo
from nvmelm.demo.controller import Demo
from nvmelm.demo.vm import VmDemo
from nvmelm.errors import DemoFailedError
from nvmelm.vfio import loading


@pytest.mark.parametrize("kind", [Demo, VmDemo])
def test_the_guest_loses_nothing_and_both_hosts_are_as_they_were(tmp_path: Path, kind: type[Demo]) -> None:
    said: list[str] = []
    report = demo.run(tmp_path, lambda step: said.append(f"{step.host} {step.step}"), kind)
    assert said == [f"{step.host} {step.step}" for step in report.steps]
    assert {step.step for step in report.steps} == {1, 2, 3, 4, 5, 6}
    assert report.submitted == report.completed > 0
    assert (report.lost, report.doubled, report.misdirected, report.errors) == (0, 0, 0, ())


def test_a_vm_whose_admin_queue_was_not_wound_fails_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "wind", lambda *_: 0)
    with pytest.raises(DemoFailedError, match="noticed"):
        demo.run(tmp_path, lambda step: None, VmDemo)
