"""Man pages, made from the commands: ``python -m nvmelm.cli.reference.manpages DIR``.

One page for nvmelm, and one for each word behind it. The text is pure ASCII: other characters are written by their
code points, so that every formatter reads the pages alike.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from nvmelm import __version__
from nvmelm.cli.frame.codes import EXIT_CODES
from nvmelm.cli.reference import tree
from nvmelm.cli.reference.places import ENVIRONMENT, FILES
from nvmelm.cli.reference.tree import Row, Topic, Verb

_SPECIAL = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", '"': "\\(dq", "^": "\\(ha", "~": "\\(ti"}
_EVERYWHERE = (
    "--host, --record, --redact, --force and --json may stand before or behind the verb. "
    "Results go to stdout, all else to stderr."
)
_CHANGING = (
    "Verbs that take --dry-run change something. A second run of one says that there is nothing to do. Each change is "
    "written down before it is made; nvmelm recover undoes or finishes what was cut off. A verb that stops or loses "
    "something asks first, unless --yes is given."
)


def pages() -> dict[str, str]:
    """Return the text of every man page by its file name."""
    topics = tree.topics()
    found = {"nvmelm.1": _overview(topics)}
    return found | {f"nvmelm-{topic.name}.1": _topic(topic) for topic in topics}


def write(directory: Path) -> None:
    """Write the man pages, and remove those of words that are gone."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = pages()
    for old in directory.glob("nvmelm*.1"):
        if old.name not in texts:
            old.unlink()
    for name, text in texts.items():
        (directory / name).write_text(text, encoding="ascii")


def escape(text: str) -> str:
    """Return text in which roff finds no request, no escape and no quote, and which it prints as it stands."""
    escaped = "".join(_SPECIAL.get(one) or (one if one.isascii() else f"\\[u{ord(one):04X}]") for one in text)
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def _page(name: str, about: str, body: Iterable[str]) -> str:
    title = f'.TH "{escape(name.upper())}" 1 "" "nvmelm {__version__}" "nvmelm"'
    sentence = about.rstrip(".")
    if sentence[1:2].islower():
        sentence = sentence[0].lower() + sentence[1:]
    return "\n".join([title, *_section("NAME"), f"{escape(name)} \\- {escape(sentence)}", *body, ""])


def _overview(topics: list[Topic]) -> str:
    def body() -> Iterator[str]:
        yield from _section("SYNOPSIS")
        yield from _synopsis("nvmelm", "[OPTIONS] VERB [ARGUMENT]...")
        yield from _section("DESCRIPTION")
        yield from _paragraph(tree.about())
        yield from _paragraph(_EVERYWHERE)
        yield from _paragraph(_CHANGING)
        yield from _section("VERBS")
        for section in dict.fromkeys(topic.section for topic in topics):
            yield f".SS {escape(section)}"
            for topic in topics:
                if topic.section == section:
                    yield from _tagged(Row(_short(one), one.about[0]) for one in topic.verbs)
        yield from _section("OPTIONS")
        yield from _tagged(tree.root_options())
        yield from _section("EXIT STATUS")
        yield from _tagged(Row(str(int(code)), f"{row.meaning}.") for code, row in EXIT_CODES.items())
        yield from _section("ENVIRONMENT")
        yield from _tagged(Row(*one) for one in ENVIRONMENT)
        yield from _section("FILES")
        yield from _tagged(Row(*one) for one in FILES)
        yield from _see_also([f"nvmelm-{topic.name}" for topic in topics])

    return _page("nvmelm", "live migration of NVMe virtual functions, through their controlling function", body())


def _short(verb: Verb) -> str:
    return f"{verb.name} {verb.pieces.removeprefix('[OPTIONS]').strip()}".rstrip()


def _topic(topic: Topic) -> str:
    def body() -> Iterator[str]:
        yield from _section("SYNOPSIS")
        for number, one in enumerate(topic.verbs):
            yield from [".br"] if number else []
            yield from _synopsis(f"nvmelm {one.name}", one.pieces)
        yield from _section("DESCRIPTION")
        if len(topic.verbs) == 1 and topic.verbs[0].words == (topic.name,):
            yield from _verb(topic.verbs[0])
        else:
            yield from _paragraph(topic.about)
            for one in topic.verbs:
                yield f".SS {escape(one.usage)}"
                yield from _verb(one)
        yield from _section("EXIT STATUS")
        yield from _paragraph("0 when it is done or there was nothing to do; the other codes are listed in nvmelm(1).")
        yield from _see_also(["nvmelm"])

    return _page(f"nvmelm-{topic.name}", topic.about, body())


def _verb(verb: Verb) -> Iterator[str]:
    for text in verb.about:
        yield from _laid_out(text) if "\n" in text else _paragraph(text)
    yield from _tagged((*verb.arguments, *verb.options))


def _section(title: str) -> list[str]:
    return [f".SH {title}"]


def _synopsis(bold: str, rest: str) -> list[str]:
    return [f".B {escape(bold)}", *([escape(rest)] if rest else [])]


def _paragraph(text: str) -> list[str]:
    return [".PP", escape(text)]


def _laid_out(text: str) -> list[str]:
    return [".PP", ".nf", *map(escape, text.split("\n")), ".fi"]


def _tagged(rows: Iterable[Row]) -> Iterator[str]:
    for typed, about in rows:
        yield from (".TP", f".B {escape(typed)}", escape(about))


def _see_also(names: list[str]) -> list[str]:
    return [*_section("SEE ALSO"), ",\n".join(f".BR {escape(name)} (1)" for name in names)]


if __name__ == "__main__":
    write(Path(sys.argv[1]))
