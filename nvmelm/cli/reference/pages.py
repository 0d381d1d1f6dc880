"""The pages of the documentation that are made from the code: ``python -m nvmelm.cli.reference.pages docs``.

``verbs.md`` has every verb, ``codes.md`` every code an answer can hold, ``documents.md`` every JSON document,
``facts.md`` every fact that compatibility is judged by. Other pages, and README, show a table of these between two
comments; :func:`refreshed` puts it there. A test proves that what stands in them is what this module makes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from nvmelm.cli.frame import codes
from nvmelm.cli.reference import ownership, tree
from nvmelm.cli.reference.examples import EXAMPLES
from nvmelm.cli.reference.places import ENVIRONMENT, FILES
from nvmelm.cli.reference.schemas import schemas
from nvmelm.compat.facts import FACTS
from nvmelm.compat.reasons import CODES, explanation
from nvmelm.compat.rules import RULES
from nvmelm.errors import ExitCode
from nvmelm.reasons import REASONS
from nvmelm.wire.status import Status
from nvmelm.wire.status_table import ROWS

#: Where a page that is written by hand shows a table that is made.
_BLOCK = re.compile(r"(<!-- ([a-z ]+): made by `make pages` -->\n).*?(\n<!-- end -->)", re.DOTALL)
_MADE = "<!-- Made by `make pages`; edit the code it is made from. -->"


def pages() -> dict[str, str]:
    """Return the text of each page by its file name."""
    texts = {"verbs.md": _verbs(), "codes.md": _codes(), "documents.md": _documents(), "facts.md": _facts()}
    return {name: _page(lines) for name, lines in texts.items()}


def write(directory: Path) -> None:
    """Write the pages, and the tables in the others."""
    for name, text in pages().items():
        (directory / name).write_text(text, encoding="utf-8")
    for page in by_hand(directory):
        page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")


def by_hand(directory: Path) -> list[Path]:
    """Return the pages that may show a table, README among them."""
    return [page for page in (*sorted(directory.glob("*.md")), directory.parent / "README.md") if page.exists()]


def refreshed(text: str) -> str:
    """Return a page with the tables it shows made anew."""
    return _BLOCK.sub(lambda block: f"{block[1]}\n{_blocks()[block[2]]}\n{block[3]}", text)


def _blocks() -> Mapping[str, str]:
    """Return the tables that pages show, by their names."""
    exits = _table(("exit", "means"), ((str(int(code)), row.meaning) for code, row in _exits()))
    return {
        "exit codes": "\n".join(exits).strip(),
        "pairs of states": _as_it_stands(ownership.pairs()),
        "one host alone": _as_it_stands(ownership.alone()),
        "courses": _as_it_stands(ownership.courses()),
    }


def _as_it_stands(rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table whose cells are Markdown already; the first row is its head."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join((head, re.sub(r"[^|]+", "---", head), *body))


def _exits() -> Iterable[tuple[ExitCode, codes.Row]]:
    return codes.EXIT_CODES.items()


def _page(lines: Iterable[str]) -> str:
    return re.sub(r"\n{3,}", "\n\n", "\n".join([_MADE, "", *lines])).rstrip() + "\n"


def _verbs() -> Iterator[str]:
    yield from ("# Every verb", "", "What holds for all of them stands in [The command line](cli.md).", "")
    yield from ("## nvmelm", "", tree.about(), "")
    yield from _table(("before the verb", ""), tree.root_options())
    yield from ("`--host`, `--record`, `--redact`, `--force` and `--json` may stand behind the verb too.", "")
    for section in dict.fromkeys(topic.section for topic in tree.topics()):
        verbs = [verb for topic in tree.topics() if topic.section == section for verb in topic.verbs]
        yield from _table((section.lower(), ""), ((_short(verb), verb.about[0]) for verb in verbs))
    for topic in tree.topics():
        yield from (f"## {topic.name}", "")
        if topic.verbs[0].words != (topic.name,):
            yield from (topic.about, "")
        for verb in topic.verbs:
            yield from [f"### {verb.name}", ""] if verb.words != (topic.name,) else []
            yield from _verb(verb)
    yield from ("## Environment", "", *_table(("variable", ""), ENVIRONMENT))
    yield from ("## Files", "", *_table(("file", ""), FILES))


def _short(verb: tree.Verb) -> str:
    return f"{verb.name} {verb.pieces.removeprefix('[OPTIONS]').strip()}".rstrip()


def _verb(verb: tree.Verb) -> Iterator[str]:
    example = EXAMPLES[verb.name]
    yield from ("```text", verb.usage, "", f"{example.typed}    # {example.about}", "```", "")
    for text in verb.about:
        yield from ("```text", text, "```", "") if "\n" in text else (_prose(text), "")
    yield from _table(("argument", ""), verb.arguments)
    yield from _table(("option", ""), verb.options)


def _codes() -> Iterator[str]:
    yield from ("# Every code", "", "`nvmelm explain CODE` says the same.", "")
    yield from ("## Exit codes", "")
    exits = ((str(int(code)), row.meaning, row.fix) for code, row in _exits())
    yield from _table(("exit", "means", "do"), exits)
    yield from ("## Reasons", "", "The `reason` of an error's document.", "")
    yield from _table(("reason", "means", "do"), _sorted(REASONS))
    yield from ("## Reasons of a verdict", "", "The `code` of a reason in the verdict of [compat](compat.md).", "")
    yield from _table(("code", "means", "do"), _sorted(_judged()))
    yield from ("## Outcomes", "", "What became of an entry ([apply](apply.md)), or of a source (`compat match`).", "")
    yield from _table(("outcome", "means", "do"), ((word, *row) for word, row in codes.OUTCOMES.items()))
    yield from ("## Errnos", "", "What the kernel means by them where nvmelm meets them.", "")
    yield from _table(("errno", "means", "do"), ((name, *row) for name, row in codes.ERRNOS.items()))
    yield from ("## NVMe statuses", "", "By Status Code Type and Status Code.", "")
    statuses = ((status.text, status.name, status.cause, status.fix) for status in (Status(row.code) for row in ROWS))
    yield from _table(("status", "name", "means", "do"), statuses)


def _judged() -> dict[str, tuple[str, str]]:
    words = [*CODES, *(fact.code for fact in FACTS.values())]
    return {word: known for word in words if (known := explanation(word)) is not None}


def _facts() -> Iterator[str]:
    yield from ("# Every fact", "", "What [compatibility](compat.md) is judged by.", "")
    yield from ("## Rules", "", "How a source's and a destination's value compare.", "")
    yield from ("| Rule | Means |", "|---|---|", *(f"| {rule} | {meaning} |" for rule, meaning in RULES.items()), "")
    yield from (
        "† nvmelm can set it on a destination · ‡ can change while the function is in use · § no policy can relax it",
        "",
    )
    for group in dict.fromkeys(name.partition(".")[0] for name in FACTS):
        yield from (f"## {group.capitalize()}", "")
        yield "| Fact | Kind | What it is | Rule, severity | Code | What to do |"
        yield "|---|---|---|---|---|---|"
        yield from (_fact(name) for name in FACTS if name.startswith(f"{group}."))
        yield ""


def _fact(name: str) -> str:
    """Return a fact's row."""
    fact = FACTS[name]
    signs = (("†", fact.settable), ("‡", fact.runtime), ("§", fact.fixed))
    marks = "".join(f" {sign}" for sign, meant in signs if meant)
    kind = f"{fact.kind}, {fact.unit}" if fact.unit else fact.kind
    return f"| `{name}`{marks} | {kind} | {fact.meaning} | {fact.rule}, {fact.severity} | `{fact.code}` | {fact.fix} |"


def _documents() -> Iterator[str]:
    yield from ("# Every document", "", "What `--json` prints, by the document's `schema`.", "")
    for name, schema in schemas().items():
        yield from (f"## {name}", "", _prose(schema.get("description", "")), "")
        yield from (f"Version {schema['properties']['version']['const']}; [JSON Schema](schemas/{name}.json).", "")
        rows = ((field, _kind(about), about.get("description", "")) for field, about in schema["properties"].items())
        yield from _table(("field", "type", ""), (row for row in rows if row[0] not in ("schema", "version")))


def _kind(about: Mapping[str, object]) -> str:
    """Return a field's type in a word or two."""
    several = about.get("anyOf")
    if isinstance(several, list):
        return " or ".join(dict.fromkeys(_kind(part) for part in several))
    if "$ref" in about:
        return str(about["$ref"]).rpartition("/")[2]
    if "enum" in about and isinstance(about["enum"], list):
        return " or ".join(f'"{value}"' for value in about["enum"])
    if "const" in about:
        return f'"{about["const"]}"'
    items = about.get("items") or about.get("prefixItems")
    inner = items[0] if isinstance(items, list) and items else items
    if about.get("type") == "array" and isinstance(inner, dict):
        return f"list of {_kind(inner)}"
    return str(about.get("type", "any"))


def _sorted(table: Mapping[str, tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    return ((word, *table[word]) for word in sorted(table))


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    """Return a table whose first column is typed, or nothing when it has no rows."""
    lines = [
        f"| `{_cell(first)}` | " + " | ".join(_prose(_cell(cell)) for cell in rest) + " |" for first, *rest in rows
    ]
    if lines:
        yield from (f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}", *lines, "")


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _prose(text: str) -> str:
    """Return text that Markdown shows as it stands."""
    return re.sub(r"(?<!\\)([*_<\[\]])", r"\\\1", text) if "`" not in text else text


if __name__ == "__main__":
    write(Path(sys.argv[1]))
