"""Emulated hosts for whole verbs: made in a scratch directory, driven through the operations or the command line."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmelm.emulator.host import EmulatedHost, create
from tests.emulated.two_hosts import World, build, copy

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


@pytest.fixture
def heard() -> Iterator[None]:
    """Have SIGINT heard, which a shell's background jobs ignore; who handled it hands it back at the end."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


@pytest.fixture(scope="session")
def two_hosts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two prepared hosts, to be copied."""
    return build(tmp_path_factory.mktemp("hosts") / "template")


@pytest.fixture
def world(two_hosts: Path, tmp_path: Path) -> Iterator[World]:
    made = copy(two_hosts, tmp_path / "world")
    yield made
    made.close()


@pytest.fixture
def guarded(world: World) -> World:
    """A world with a guest that has commands in flight."""
    world.start_guest(depth=8)
    return world
