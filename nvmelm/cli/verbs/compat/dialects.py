"""The dialects on the command line: each usable on its own by a management layer."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nvmelm.cli.frame import render
from nvmelm.cli.frame.functions import Function, opened
from nvmelm.cli.frame.functions import ends as both_ends
from nvmelm.cli.frame.options import group
from nvmelm.cli.frame.policy import policy_of
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.cli.verbs.compat import ends
from nvmelm.cli.verbs.compat.check import END, DestinationEnd, PolicyFile, SourceEnd
from nvmelm.cli.verbs.compat.ends import Wanted
from nvmelm.cli.verbs.compat.wanted import comparing
from nvmelm.compat.manifest import load
from nvmelm.disk.bounded import parsed
from nvmelm.errors import ExitCode, IncompatibleError, MalformedError
from nvmelm.numbers import decimal

if TYPE_CHECKING:
    from nvmelm.compat.manifest import Manifest
    from nvmelm.inventory.opened import OpenPrimary
    from nvmelm.inventory.picture import ChangeReport

app = group("What a management layer asks by itself.")
parameters = group("Model and parameters: what a destination can be, and what a source is.", name="parameters")
app.add_typer(parameters)

Here = Annotated[list[str], typer.Argument(metavar="END", show_default=False, help=END)]
Test = Annotated[str | None, typer.Option("--test", metavar="STRING", help="A source's string, to be tested here.")]
ListFile = Annotated[Path, typer.Argument(metavar="LIST", help="A source's list, as compat parameters list prints it.")]
_MAX_LIST_BYTES = 1 << 20
_MAX_NSID = 0xFFFF_FFFE  # FFFFFFFFh means all of them


@verb(app, "token")
@comparing
def token(
    run: Run,
    end: Here,
    wanted: Wanted,
    test: Test = None,
    policy: PolicyFile = None,
) -> Answer:
    """Print a function's opaque version string; with --test, say whether a source's string fits: exit 0, or 4."""
    from nvmelm.compat.dialects import token as dialect  # the dialects cost 12 ms, and compat check needs none

    manifest = _read(run, end, wanted)
    if test is None:
        text = dialect.encode(manifest)
        return Answer(dialect.document(manifest), lambda: [text])
    tested = dialect.probe(test, manifest, policy_of(policy))
    name = "" if tested.accepted else f"{_errno(tested.errno)}"
    body = dialect.TokenTestDocument(accepted=tested.accepted, errno=tested.errno, errno_name=name, why=tested.why)
    if not tested.accepted:
        run.say(f"{name}: {tested.why}")

    def lines() -> Iterator[str]:
        yield "accepted" if tested.accepted else f"not accepted: {name} ({os.strerror(tested.errno)})"

    return Answer(body, lines, ExitCode.DONE if tested.accepted else ExitCode.INCOMPATIBLE)


@verb(app, "steps")
@comparing
def steps(
    run: Run,
    source: SourceEnd,
    destination: DestinationEnd,
    wanted: Wanted,
    policy: PolicyFile = None,
) -> Answer:
    """Compare step by step: api, its attributes, type, software version, attributes of the type: exit 0, or 4."""
    from nvmelm.compat.dialects import steps as dialect  # 7 ms

    giving, taking = (ends.manifest_of(run, end, wanted) for end in both_ends([source, *destination], 2))
    verdict, rows = dialect.steps(giving, taking, policy_of(policy))

    def lines() -> Iterator[str]:
        for row in rows:
            yield f"{row.number}. {row.name}: {row.rule}: {'passed' if row.passed else 'FAILED'}"
            yield from (f"   {reason.severity}: {render.plain(reason.message)}" for reason in row.reasons)

    document = dialect.document(verdict, rows)
    return Answer(document, lines, ExitCode.DONE if verdict.compatible else ExitCode.INCOMPATIBLE)


@verb(parameters, "info")
@comparing
def info(run: Run, end: Here, wanted: Wanted) -> Answer:
    """Print a destination's migration_info.json: models, parameters, and the values each can have."""
    from nvmelm.compat.dialects import parameters as dialect  # 10 ms

    published = dialect.information(_read(run, end, wanted))
    document = dialect.MigrationInfoDocument(**published)
    return Answer(document, lambda: json.dumps(published, indent=2).splitlines())


@verb(parameters, "list")
@comparing
def list_(run: Run, end: Here, wanted: Wanted) -> Answer:
    """Print a source's model and its list: every parameter that is not switched off."""
    from nvmelm.compat.dialects import parameters as dialect  # 10 ms

    manifest = _read(run, end, wanted)
    model, params = dialect.model(manifest), dialect.source_list(manifest)
    body = dialect.ParameterListDocument(model=model, params=params)
    return Answer(body, lambda: [model, *(f"{name}={_text(value)}" for name, value in params.items())])


@verb(parameters, "check")
@comparing
def check(run: Run, file: ListFile, end: Here, wanted: Wanted) -> Answer:
    """Say whether a source's list fits a destination, and what has to be set there first: exit 0, or 4."""
    from nvmelm.compat.dialects import parameters as dialect  # 10 ms

    manifest = _read(run, end, wanted)
    model, params = _list(file)
    reasons = dialect.check(params, model, manifest)
    to_set = {} if reasons else dialect.writes(params, manifest)
    body = dialect.ParameterCheckDocument(compatible=not reasons, reasons=reasons, to_set=to_set)

    def lines() -> Iterator[str]:
        yield "compatible" if not reasons else "not compatible"
        yield from (f"  {render.plain(reason)}" for reason in reasons)
        yield from (f"  to be set: {name}={_text(value)}" for name, value in to_set.items())

    return Answer(body, lines, ExitCode.INCOMPATIBLE if reasons else ExitCode.DONE)


@verb(parameters, "apply", changes=True)
def apply(run: Run, file: ListFile, function: Function) -> Answer:
    """Write a source's parameters to a destination, each once: resources are set, the others were checked."""
    from nvmelm.cli.views import changes  # 4 ms, for apply alone
    from nvmelm.compat.dialects import parameters as dialect  # 10 ms

    model, wanted = _list(file)
    with opened(run, function, change=True) as (primary, cntlid):
        manifest = _manifest(primary, cntlid)
        _require(dialect.check(dialect.fixed(wanted), model, manifest), cntlid, "nothing was written")
        to_set = dialect.writes(wanted, manifest)
        report = _give(run, primary, cntlid, to_set)
        if not run.dry_run:
            _require(dialect.check(wanted, model, _manifest(primary, cntlid)), cntlid, "as it is after the writes")
    document = dialect.ParameterApplyDocument(
        changed=report.changed, dry_run=run.dry_run, written=to_set, actions=list(report.actions)
    )

    def lines() -> Iterator[str]:
        if not to_set:
            yield "nothing to do, every parameter is as asked"
        yield from (f"{'would set' if run.dry_run else 'set'} {name}={_text(value)}" for name, value in to_set.items())
        yield from changes.plan(report.actions)

    return Answer(document, lines)


def _manifest(pf: OpenPrimary, cntlid: int) -> Manifest:
    from nvmelm.compat.describe import of_function  # 38 ms: all that talks to a device
    from nvmelm.inventory.read import resolve

    picture = pf.picture(users=False)
    return of_function(pf.host, pf.queue, picture, resolve(picture, cntlid))


def _require(reasons: list[str], cntlid: int, when: str) -> None:
    if reasons:
        raise IncompatibleError(
            f"controller {cntlid:#06x} cannot have these parameters; {when}",
            cause="; ".join(reasons[:8]),
            fix="nvmelm compat parameters check shows every reason",
            reason="parameters-refused",
        )


def _give(run: Run, pf: OpenPrimary, cntlid: int, to_set: Mapping[str, Any]) -> ChangeReport:
    from nvmelm.prepare import parameters as operation  # 32 ms: all that plans and journals

    ids = to_set.get("namespaces.ids")
    return operation.give(
        pf,
        cntlid,
        vq=to_set.get("resources.vq"),
        vi=to_set.get("resources.vi"),
        namespaces=None if ids is None else [_nsid(nsid) for nsid in str(ids).split(",") if nsid],
        confirm=run.confirm,
        dry_run=run.dry_run,
    )


def _nsid(text: str) -> int:
    nsid = decimal(text, most=_MAX_NSID)
    if nsid is None:
        cause = "namespaces.ids are numbers parted by commas"
        raise MalformedError(f"{text[:40]!r} is no namespace id", cause=cause, reason="parameters-list")
    return nsid


def _read(run: Run, end: list[str], wanted: Wanted) -> Manifest:
    return ends.manifest_of(run, both_ends(end, 1)[0], wanted)


def _list(file: Path) -> tuple[str, dict[str, Any]]:
    """Read a source's list; what is not one is refused."""
    body = parsed(file, _MAX_LIST_BYTES, load)
    good = isinstance(body, dict) and isinstance(body.get("model"), str) and isinstance(body.get("params"), dict)
    if not good or not isinstance(body, dict):
        raise MalformedError(
            f"{file} is no list of parameters",
            cause="it has no model and params",
            fix="nvmelm compat parameters list PF/CNTLID --json > FILE",
            reason="parameters-list",
        )
    return body["model"], body["params"]


def _text(value: object) -> str:
    return render.plain(str(value).lower() if isinstance(value, bool) else value)


def _errno(number: int) -> str:
    return errno.errorcode.get(number, str(number))
