"""What the emulated sysfs is made of: directories, links and attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Union


@dataclass(frozen=True, slots=True)
class Attribute:
    """A file: how its text is read and what writing it does; None where the mode bits allow neither root."""

    read: Callable[[], str] | None
    write: Callable[[str], None] | None = None


@dataclass(frozen=True, slots=True)
class SymbolicLink:
    """A link: its target as the kernel stores it, relative to where it lies; or from the root of this tree."""

    target: str


class Directory:
    """A directory whose entries are made when somebody looks."""

    def __init__(self, entries: Callable[[], Mapping[str, Node]]) -> None:
        self._entries = entries

    def get(self, name: str) -> Node | None:
        """Return an entry, or None."""
        return self._entries().get(name)

    def names(self) -> list[str]:
        """Return the sorted names of the entries."""
        return sorted(self._entries())


Node = Union[Attribute, SymbolicLink, Directory]  # noqa: UP007 - Directory names it before it is defined


def constant(text: str) -> Attribute:
    """Return an attribute that always reads the same."""
    return Attribute(lambda: text)


def root_port(pf: str) -> str:
    """Return the address of the root port a physical function sits below: device number = the PF's bus number."""
    return f"0000:00:{int(pf.split(':')[1], 16):02x}.0"


def device_path(bdf: str, pf: str) -> str:
    """Return where a function's directory really lies."""
    return f"devices/pci0000:00/{root_port(pf)}/{bdf}"
