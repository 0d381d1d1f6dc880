"""A wait that lasts is said while it lasts: in a sentence for people, as a line of JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nvmelm.cli.frame.aside import ASIDE
from nvmelm.cli.frame.options import Settings
from nvmelm.cli.frame.run import Run
from nvmelm.errors import TimedOutError
from nvmelm.process import waiting
from tests.emulated.conftest import MakeHost

SCHEMA = json.loads((Path(__file__).parents[3] / "docs/schemas/nvmelm.waiting.json").read_text())


@pytest.mark.parametrize("as_json", [False, True])
def test_a_wait_that_lasts_is_said_in_the_form_that_was_asked_for(
    as_json: bool, make_host: MakeHost, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(waiting, "SAID_AFTER_S", 0.0)
    with Run("sriov enable", Settings(host=make_host().name, json=as_json)) as run:
        run.host()
        with pytest.raises(TimedOutError):
            waiting.wait_until(lambda: False, "2 VFs to appear", deadline_s=0.01)
        assert ASIDE.drain()
    with pytest.raises(TimedOutError):
        waiting.wait_until(lambda: False, "nobody who listens", deadline_s=0.01)
    assert ASIDE.drain()
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    if not as_json:
        assert line == "waiting for 2 VFs to appear, 0.01 s at most"
        return
    document = json.loads(line)
    jsonschema.validate(document, SCHEMA)
    assert (document["command"], document["waits_for"]) == ("sriov enable", "2 VFs to appear")
