"""Man pages, made from the commands: ``python -m nvmelm.cli.reference.manpages DIR``.

One page for nvmelm, and one for each word behind it; in section 8 but for the words that never need root. The text is
pure ASCII: other characters are written by their code points, so that every formatter reads the pages alike.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from nvmelm import __version__
from nvmelm.cli.frame.codes import EXIT_CODES
from nvmelm.cli.reference import tree
from nvmelm.cli.reference.examples import EXAMPLES
from nvmelm.cli.reference.places import ENVIRONMENT, FILES
from nvmelm.cli.reference.tree import ParameterRow, Topic, Verb

#: Words whose verbs touch no device and none of root's files.
FOR_ANYBODY = frozenset({"demo", "emulate", "explain", "share"})

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
    words = {f"nvmelm-{topic.name}.{section(topic.name)}": _topic(topic) for topic in topics}
    return {f"nvmelm.{section()}": _overview(topics)} | words


def section(word: str = "") -> int:
    """Return the section of the manual for a word behind nvmelm: 8 where root is needed, else 1."""
    return 1 if word in FOR_ANYBODY else 8


def write(directory: Path) -> None:
    """Write the man pages to ``man1`` and ``man8`` below a directory, and remove those of words that are gone."""
    texts = {directory / f"man{name[-1]}" / name: text for name, text in pages().items()}
    for old in set(directory.glob("man[18]/nvmelm*.[18]")) - set(texts):
        old.unlink()
    for file, text in texts.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="ascii")


def escape(text: str) -> str:
    """Return text in which roff finds no request, no escape and no quote, and which it prints as it stands."""
    escaped = "".join(
        _SPECIAL.get(character) or (character if character.isascii() else f"\\[u{ord(character):04X}]")
        for character in text
    )
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def _page(name: str, number: int, about: str, body: Iterable[str]) -> str:
    title = f'.TH "{escape(name.upper())}" {number} "" "nvmelm {__version__}" "nvmelm"'
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
        for heading in dict.fromkeys(topic.section for topic in topics):
            yield f".SS {escape(heading)}"
            for topic in topics:
                if topic.section == heading:
                    yield from _tagged(ParameterRow(_short(verb), verb.about[0]) for verb in topic.verbs)
        yield from _section("OPTIONS")
        yield from _tagged(tree.root_options())
        yield from _exit_status()
        yield from _section("ENVIRONMENT")
        yield from _tagged(ParameterRow(*variable) for variable in ENVIRONMENT)
        yield from _section("FILES")
        yield from _tagged(ParameterRow(*file) for file in FILES)
        yield from _see_also([(f"nvmelm-{topic.name}", section(topic.name)) for topic in topics])

    return _page(
        "nvmelm", section(), "live migration of NVMe virtual functions, through their controlling function", body()
    )


def _short(verb: Verb) -> str:
    return f"{verb.name} {verb.pieces.removeprefix('[OPTIONS]').strip()}".rstrip()


def _topic(topic: Topic) -> str:
    def body() -> Iterator[str]:
        yield from _section("SYNOPSIS")
        for number, verb in enumerate(topic.verbs):
            yield from [".br"] if number else []
            yield from _synopsis(f"nvmelm {verb.name}", verb.pieces)
        yield from _section("DESCRIPTION")
        if len(topic.verbs) == 1 and topic.verbs[0].words == (topic.name,):
            yield from _verb(topic.verbs[0])
        else:
            yield from _paragraph(topic.about)
            for verb in topic.verbs:
                yield f".SS {escape(verb.usage)}"
                yield from _verb(verb)
        yield from _exit_status()
        yield from _examples(topic.verbs)
        yield from _see_also([("nvmelm", section())])

    return _page(f"nvmelm-{topic.name}", section(topic.name), topic.about, body())


def _verb(verb: Verb) -> Iterator[str]:
    for text in verb.about:
        yield from _laid_out(text) if "\n" in text else _paragraph(text)
    yield from _tagged((*verb.arguments, *verb.options))


def _exit_status() -> Iterator[str]:
    yield from _section("EXIT STATUS")
    yield from _tagged(ParameterRow(str(int(code)), f"{row.meaning}.") for code, row in EXIT_CODES.items())


def _examples(verbs: Iterable[Verb]) -> Iterator[str]:
    yield from _section("EXAMPLES")
    yield from _tagged(ParameterRow(*EXAMPLES[verb.name]) for verb in verbs)


def _section(title: str) -> list[str]:
    return [f".SH {title}"]


def _synopsis(bold: str, rest: str) -> list[str]:
    return [f".B {escape(bold)}", *([escape(rest)] if rest else [])]


def _paragraph(text: str) -> list[str]:
    return [".PP", escape(text)]


def _laid_out(text: str) -> list[str]:
    return [".PP", ".nf", *map(escape, text.split("\n")), ".fi"]


def _tagged(rows: Iterable[ParameterRow]) -> Iterator[str]:
    for typed, about in rows:
        yield from (".TP", f".B {escape(typed)}", escape(about))


def _see_also(names: list[tuple[str, int]]) -> list[str]:
    return [*_section("SEE ALSO"), ",\n".join(f".BR {escape(name)} ({number})" for name, number in names)]


if __name__ == "__main__":
    write(Path(sys.argv[1]))
