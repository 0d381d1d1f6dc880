"""What every JSON document is made of: a report is a whole answer, a record a part of one.

Both are plain dataclasses: most verbs start a new process to give one answer, and building a model of pydantic's takes
longer than the verb. Each document is declared beside what makes it. pydantic makes the published JSON Schemas from
the declarations (:mod:`nvmelm.cli.reference.schemas`) and checks what a file or a peer says, nothing else; a test
proves that :meth:`Report.to_json` and pydantic agree on every document.

snake_case, integers as integers, units in names.
"""

from __future__ import annotations

from dataclasses import fields
from enum import StrEnum
from typing import Any, ClassVar


def about(description: str) -> dict[str, str]:
    """Return a field's metadata: what pydantic writes of it into the JSON Schema."""
    return {"description": description}


class Record:
    """A part of a document: immutable, and nothing in it is unknown."""

    __slots__ = ()
    #: Where pydantic looks for the settings of a class that is none of its own.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


class Report(Record):
    """A whole answer of a verb; carries its schema's name and version."""

    __slots__ = ()
    schema_name: ClassVar[str]
    schema_version: ClassVar[int] = 1

    def to_json(self) -> dict[str, Any]:
        """Return the document with its ``schema`` and ``version`` in front."""
        return {"schema": self.schema_name, "version": self.schema_version, **_plain(self)}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, Record):
        return {part.name: _plain(getattr(value, part.name)) for part in fields(value)}  # type: ignore[arg-type]
    if isinstance(value, tuple | list):
        return [part if type(part) is str else _plain(part) for part in value]  # a fleet's answer has a million names
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return str(value) if isinstance(value, StrEnum) else value
