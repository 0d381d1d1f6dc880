"""Publish the JSON Schema of every document: ``python -m nvmelm.cli.reference.schemas docs/schemas``."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from nvmelm.documents import Report

#: Where documents are declared.
_MODULES = (
    "nvmelm.inventory.picture",
    "nvmelm.inventory.glance",
    "nvmelm.cli.frame.waits",
    "nvmelm.inventory.find",
    "nvmelm.prepare.check",
    "nvmelm.prepare.recover",
    "nvmelm.state.verbs",
    "nvmelm.state.image.view",
    "nvmelm.vm.report",
    "nvmelm.vm.check",
    "nvmelm.compat.manifest",
    "nvmelm.compat.verdict",
    "nvmelm.compat.dialects.token",
    "nvmelm.compat.dialects.steps",
    "nvmelm.compat.dialects.parameters",
    "nvmelm.compat.fleet.report",
    "nvmelm.desired.converge",
    "nvmelm.migrate.report",
    "nvmelm.vfio.view",
    "nvmelm.watch.lines",
    "nvmelm.demo.controller",
    "nvmelm.cli.frame.documents",
    "nvmelm.cli.views.answers",
    "nvmelm.cli.views.transcripts",
    "nvmelm.cli.verbs.bug_report.archive",
    "nvmelm.cli.verbs.emulate.hosts",
    "nvmelm.cli.verbs.explain",
    "nvmelm.cli.verbs.fixture",
    "nvmelm.cli.verbs.libvirt_hook",
    "nvmelm.cli.verbs.prepare",
    "nvmelm.cli.verbs.share",
    "nvmelm.cli.verbs.version",
)

#: Definitions that keep the name they were published under: a schema's text is a promise, a class's name is not.
_PUBLISHED_AS = {"CheckReason": "Reason", "MovedAway": "Moved"}


class _Untitled(GenerateJsonSchema):
    """Leaves the titles out that only repeat a field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def schemas() -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of every document by the document's ``schema`` name, sorted."""
    for name in _MODULES:
        import_module(name)
    reports = sorted(_declared(Report), key=lambda report: report.schema_name)
    return {report.schema_name: schema(report) for report in reports}


def schema(report: type[Report]) -> dict[str, Any]:
    """Return one document's JSON Schema, its ``schema`` and ``version`` included."""
    body = _published(TypeAdapter(report).json_schema(mode="serialization", schema_generator=_Untitled))
    head = {"schema": {"const": report.schema_name}, "version": {"const": report.schema_version}}
    properties = {**head, **body.pop("properties")}
    required = [*head, *body.pop("required", [])]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": report.schema_name,
        **{key: value for key, value in body.items() if key not in ("title", "$defs")},
        "properties": properties,
        "required": required,
        "$defs": dict(sorted(body.get("$defs", {}).items())),
    }


def _published(body: dict[str, Any]) -> dict[str, Any]:
    """Return a schema in which every definition has the name it was published under."""
    text = json.dumps(body)
    for name, published in _PUBLISHED_AS.items():
        text = text.replace(f'"{name}"', f'"{published}"').replace(f'/$defs/{name}"', f'/$defs/{published}"')
    return json.loads(text)  # type: ignore[no-any-return]


def render(document: dict[str, Any]) -> str:
    """Return a schema's file text: the same schema always gives the same text."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def write(directory: Path) -> None:
    """Write one file a schema, and remove the files of documents that are gone."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {f"{name}.json": render(document) for name, document in schemas().items()}
    for old in directory.glob("*.json"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="utf-8")


def _declared(report: type[Report]) -> set[type[Report]]:
    """Return the documents below a class; of a class made anew for its slots, the one its module holds."""
    below = {document for direct in report.__subclasses__() for document in _declared(direct)}
    module = sys.modules[report.__module__]
    own = report.__module__.startswith("nvmelm.") and getattr(module, report.__name__, None) is report
    return below | ({report} if own and "schema_name" in vars(report) else set())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
