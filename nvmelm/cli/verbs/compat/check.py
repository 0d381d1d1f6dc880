"""``nvmelm compat``: can this function's state be set in that one? Asked before anything stops."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from nvmelm.cli.frame.functions import FunctionOrPf, name
from nvmelm.cli.frame.functions import ends as both_ends
from nvmelm.cli.frame.options import group
from nvmelm.cli.frame.policy import policy_of
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.verbs.compat import ends
from nvmelm.cli.verbs.compat.ends import Wanted
from nvmelm.cli.verbs.compat.wanted import WantedNsid, WantedVi, WantedVq, comparing
from nvmelm.cli.views import verdicts
from nvmelm.compat.manifest import label_fits
from nvmelm.compat.verdict import document, judge
from nvmelm.errors import ExitCode, UsageError

app = group("Compatibility: know before anything stops.")

Tree = Annotated[Path | None, typer.Option("--tree", metavar="DIR", help="Write a tree, one value a file.")]
Labels = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Rack, site, …; repeatable.")]
OutputFile = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write the JSON there.")]
END = "A manifest's file, a tree, a function (PF CNTLID, PF/CNTLID, its address), PF (one to come), or ssh://[user@]HOST[:port]/PF[/CNTLID]."
SourceEnd = Annotated[str, typer.Argument(metavar="SOURCE", show_default=False, help=END)]
DestinationEnd = Annotated[list[str], typer.Argument(metavar="DESTINATION", show_default=False, help="The same.")]
PolicyFile = Annotated[Path | None, typer.Option("--policy", metavar="FILE", help="The site's own rules, TOML.")]


@verb(app, "export")
def export(
    run: Run,
    function: FunctionOrPf,
    vq: WantedVq = None,
    vi: WantedVi = None,
    nsid: WantedNsid = None,
    tree: Tree = None,
    label: Labels = None,
    output: OutputFile = None,
) -> Answer:
    """Describe a controlled function, or one to come, in a manifest: --json or -o FILE writes it."""
    wanted = ends.Wanted(vq, vi, tuple(nsid) if nsid else None)
    named = name(function)
    labels = _labels(label or [])
    _require_free(output, tree, replace=run.settings.force)
    described = ends.labelled(ends.of_function(run, named, wanted), labels)
    if output is not None:
        ends.write(output, described, replace=run.settings.force)
    if tree is not None:
        from nvmelm.compat.dialects.tree import write_tree  # 12 ms with the other dialects, seldom asked for

        write_tree(described, tree, replace=run.settings.force)
    places = [place for place in (output, tree) if place is not None]

    def lines() -> Iterator[str]:
        return verdicts.written(described, places) if places else verdicts.manifest(described)

    return Answer(described.document(), lines)


@verb(app, "check")
@comparing
def check(
    run: Run,
    source: SourceEnd,
    destination: DestinationEnd,
    wanted: Wanted,
    policy: PolicyFile = None,
) -> Answer:
    """Say whether a state of SOURCE can be set in DESTINATION, with every reason: exit 0, or 4."""
    rules = policy_of(policy)
    giving, taking = (ends.manifest_of(run, end, wanted) for end in both_ends([source, *destination], 2))
    if wanted.prospective and "prospective" not in (giving.level, taking.level):
        raise UsageError(
            "--vq, --vi and --nsid speak of a function to come, and both functions are there",
            fix="leave them out, or name a PF without CNTLID",
            reason="arguments",
        )
    verdict = judge(giving, taking, rules)

    code = ExitCode.DONE if verdict.compatible else ExitCode.INCOMPATIBLE
    return Answer(document(verdict, giving, taking), lambda: verdicts.verdict(verdict, giving, taking), code)


def _labels(words: list[str]) -> dict[str, str]:
    labels = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not label_fits(key, value):
            raise UsageError(f"{word!r} is no label", fix="write it as --label rack=r1", reason="arguments")
        labels[key] = value
    return labels


def _require_free(output: Path | None, tree: Path | None, *, replace: bool) -> None:
    """Refuse what may not be written before a device is asked anything."""
    if output is not None:
        from nvmelm.disk.atomic import require_free  # 7 ms, for export alone

        require_free(output, replace=replace)
    if tree is not None:
        from nvmelm.compat.dialects.tree import require_new  # 10 ms, for trees alone

        require_new(tree, replace=replace)
