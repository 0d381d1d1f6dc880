"""Emulated hosts for whole verbs: made in a scratch directory, driven through the operations or the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmelm.emulator.host import EmulatedHost, create
from nvmelm.errors import UsageError

MakeHost = Callable[..., EmulatedHost]


@pytest.fixture
def make_host(tmp_path: Path) -> Iterator[MakeHost]:
    """Make emulated hosts by generation; they are closed at the end."""
    made: list[EmulatedHost] = []

    def make(*generations: Any, **keywords: Any) -> EmulatedHost:
        host = create(tmp_path / f"host{len(made)}", generations or ("nvme-2.1",), **keywords)
        made.append(host)
        return host

    yield make
    for host in made:
        host.close()


def agree(question: str) -> None:
    """Say yes."""


def decline(question: str) -> None:
    """Say no, as a pipe without --yes does."""
    raise UsageError(question)
