"""A policy or configuration of a stranger: what reading it costs is known before it is read."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from nvmelm.compat.policy import Policy
from nvmelm.desired import config
from nvmelm.disk import toml
from nvmelm.errors import MalformedError, UsageError

#: On a busy machine; unbounded, each of these takes minutes.
_SOON_S = 20.0
_DEAR = {
    "a deep key": "a." * 50_000 + "b = 1\n",
    "many deep keys": ("a." * 400 + "b = 1\n") * 1000,
    "a deep table with many lines": "[" + "a." * 5000 + "b]\n" + "".join(f"k{n} = 1\n" for n in range(60_000)),
    "a deep key of quoted words": '"="  . ' * 50_000 + "b = 1\n",
    "a deep key in an inline table": "x = {" + "a." * 50_000 + "b = 1}\n",
    "a deep name of an array's table": "[[" + "a." * 50_000 + "b]]\n",
}


@pytest.mark.parametrize("text", _DEAR.values(), ids=_DEAR.keys())
@pytest.mark.parametrize("parse", [Policy.parse, lambda text: config.parse("nvmelm.toml", text)])
def test_a_file_that_would_take_minutes_is_refused_at_once(parse: Callable[[str], object], text: str) -> None:
    begun = time.monotonic()
    with pytest.raises((MalformedError, UsageError), match="too many dots"):
        parse(text)
    assert time.monotonic() - begun < _SOON_S


def test_a_file_as_people_write_it_is_read_whatever_its_length() -> None:
    rule = '[[pin]]\nfact = "identity.firmware"\nvalues = ["1.2.3", "1.2.4", "2.0.0"]\nwhy = "tested in 2026.1"\n\n'
    text = rule * (1_000_000 // len(rule))
    begun = time.monotonic()
    assert len(toml.loads(text)["pin"]) == 1_000_000 // len(rule)
    assert time.monotonic() - begun < _SOON_S


def test_a_number_of_many_digits_is_no_defect_of_ours() -> None:
    with pytest.raises(UsageError, match="is not TOML"):
        config.parse("nvmelm.toml", f'[[pf]]\nserial = "S"\nvfs = {"9" * 5000}\n')
