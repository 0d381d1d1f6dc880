"""Whatever an answer counts is counted by the one function that knows how one of it is called."""

from __future__ import annotations

import ast
import re
from itertools import pairwise
from pathlib import Path

import pytest

import nvmelm.cli

ROOM = Path(nvmelm.cli.__file__).parent
_COUNTED = re.compile(r" (commands|completions|blocks|reads|requests|bytes|problems|files|groups|VFs)\b")


@pytest.mark.parametrize("path", sorted(ROOM.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOM)))
def test_no_text_writes_a_number_before_a_plural_of_its_own(path: Path) -> None:
    plurals = []
    for text in ast.walk(ast.parse(path.read_text())):
        parts = text.values if isinstance(text, ast.JoinedStr) else []
        for value, after in pairwise(parts):
            if isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant):
                plurals += [ast.unparse(value.value)] * bool(_COUNTED.match(str(after.value)))
    assert plurals == []
