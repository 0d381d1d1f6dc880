"""``nvmelm libvirt-hook``: what libvirt's hook script runs before a domain starts and after it has ended.

Libvirt waits for it at every start and end of every domain. So a domain that does not name nvmelm costs the import of
this module and no more, and libvirt is never called from here: it would wait for itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import typer

from nvmelm.cli.frame import render
from nvmelm.cli.frame.options import group
from nvmelm.cli.frame.run import Answer, Run, verb
from nvmelm.documents import Report, about
from nvmelm.errors import NvmelmError
from nvmelm.vm.libvirt import domain_xml

app = group("libvirt's hook.")

Name = Annotated[str, typer.Argument(metavar="DOMAIN", show_default=False, help="The domain's name.")]
Operation = Annotated[
    str, typer.Argument(metavar="OPERATION", show_default=False, help="libvirt's word: prepare, release, …")
]
Sub = Annotated[str, typer.Argument(metavar="SUB", help="begin or end.")]
Extra = Annotated[str, typer.Argument(metavar="EXTRA", help="libvirt's third word, such as why a domain ended.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class HookReport(Report):
    """What was done for a domain that libvirt is about to start, or that has ended."""

    schema_name = "nvmelm.libvirt_hook"

    domain: str
    operation: str = field(metadata=about("libvirt's word: prepare, start, started, stopped, release, migrate, …"))
    sub_operation: str = field(metadata=about("begin or end"))
    extra: str = field(metadata=about("libvirt's third word, such as why a domain ended; - when there is none"))
    dry_run: bool
    changed: bool
    vfs: tuple[str, ...] = field(metadata=about("PCI addresses of the VFs that the domain's metadata names"))
    bound: tuple[str, ...] = field(metadata=about("those of them that were bound to vfio-pci"))
    unbound: tuple[str, ...] = field(metadata=about("those of them that were given back to what they were found with"))
    operations: tuple[str, ...] = field(metadata=about("of a dry run: the exact writes, in order"))


class _Words(NamedTuple):
    """What libvirt calls its hooks with."""

    domain: str
    operation: str
    sub: str
    extra: str


@verb(app, "libvirt-hook", changes=True)
def libvirt_hook(run: Run, domain: Name, operation: Operation, sub: Sub = "-", extra: Extra = "-") -> Answer | int:
    """Prepare, or release, the virtual functions that a libvirt domain's metadata names; its XML comes on stdin."""
    run.aside = not run.settings.json  # libvirt takes what a hook prints for the domain's new XML
    words = _Words(domain, operation, sub, extra)
    work = (operation, sub) in (("prepare", "begin"), ("release", "end"))
    text = sys.stdin.buffer.read(domain_xml.MAX_BYTES + 1) if work else b""
    if not domain_xml.mentions_us(text):
        return Answer(_report(run, words), list)
    try:
        report = _work(run, words, text)
    except NvmelmError as error:
        if run.settings.json:
            raise
        render.tell([render.plain(_sentence(domain, error))])
        return int(error.exit_code)
    return Answer(report, lambda: _lines(report))


def _work(run: Run, words: _Words, text: bytes) -> HookReport:
    from nvmelm.vm.libvirt import hook  # here: most domains need none of it

    xml = domain_xml.read(text)
    act = hook.prepare if words.operation == "prepare" else hook.release
    wanted = tuple(str(entry.address) for entry in xml.wanted)
    if not wanted:
        return _report(run, words)
    done = act(run.host(), words.domain, xml, confirm=run.confirm, dry_run=run.dry_run)
    return _report(run, words, wanted, done.vfs, done.operations)


def _report(
    run: Run,
    words: _Words,
    vfs: tuple[str, ...] = (),
    done: tuple[str, ...] = (),
    operations: tuple[str, ...] = (),
) -> HookReport:
    return HookReport(
        domain=words.domain,
        operation=words.operation,
        sub_operation=words.sub,
        extra=words.extra,
        dry_run=run.dry_run,
        changed=bool(done) and not run.dry_run,
        vfs=vfs,
        bound=done if words.operation == "prepare" else (),
        unbound=done if words.operation == "release" else (),
        operations=operations,
    )


def _sentence(domain: str, error: NvmelmError) -> str:
    """Return an error in one line: it becomes a part of libvirt's own message."""
    cause = f": {error.cause}" if error.cause else ""
    fix = f"; fix: {error.fix}" if error.fix else ""
    return f"nvmelm: {domain}: {error.message}{cause}{fix}"


def _lines(report: HookReport) -> Iterator[str]:
    word = "would be" if report.dry_run else "was"
    for address in report.bound:
        yield f"{address} {word} bound for {render.plain(report.domain)}"
    for address in report.unbound:
        yield f"{address} {word} given back by {render.plain(report.domain)}"
    yield from (f"  {operation}" for operation in report.operations)
