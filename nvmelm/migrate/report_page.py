"""One page about a migration: self-contained HTML with a timeline of both hosts, for a ticket or an archive.

No script, no external resource; a policy in the page forbids both. Everything that came from a device, an operator or
the other host is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import NamedTuple

from nvmelm import __version__
from nvmelm.errors import NvmelmError
from nvmelm.migrate.report import MigrateReport

_WIDTH, _LEFT, _LANE = 960, 120, 44
#: Where the time axis is, below both lanes and the words under them.
_AXIS = 2 * _LANE + 56
#: The parts of the downtime in their order: name, which host works, what is done.
_PARTS = (
    ("drain", "source", "finishing the commands that were fetched"),
    ("get", "source", "reading the states"),
    ("transfer", "both", "what sending added"),
    ("set", "destination", "what setting the states added"),
    ("resume", "destination", "letting the controllers go on"),
    ("other", "both", "records, callouts, messages"),
)
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --dim: #667; --line: #ccd; --paper: #fff; --drain: #8a63d2;
  --get: #2f7ed8; --transfer: #1aa39a; --set: #d98324; --resume: #3a9d46; --other: #98a; --before: #b8c4d4; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --dim: #99a; --line: #445; --paper: #14181e;
  --before: #4b5666; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1000px;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin-bottom: .2rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
.big { font-size: 2rem; font-weight: 600; } .dim { color: var(--dim); }
table { border-collapse: collapse; } td, th { text-align: left; padding: .25rem 1rem .25rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; } td.number { text-align: right; }
svg { width: 100%; height: auto; } text { font: 13px system-ui, sans-serif; fill: var(--ink); }
code { overflow-wrap: anywhere; }
"""


class Origin(NamedTuple):
    """When and where a page was written.

    Attributes:
        at: UTC, to the second.
        host: the source's name.
    """

    at: str
    host: str


def page(report: MigrateReport, origin: Origin, failure: NvmelmError | None = None) -> str:
    """Return the page of a migration as HTML.

    Args:
        failure: why it was not made, or is not over.
    """
    return "\n".join(_lines(report, origin, failure)) + "\n"


def _lines(report: MigrateReport, origin: Origin, failure: NvmelmError | None) -> Iterator[str]:
    which = ", ".join(f"{controller.source_cntlid:#06x}" for controller in report.controllers)
    title = f"Migration of {which} to {report.destination}" + (", which failed" if failure else "")
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
    yield f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>"
    yield f"<h1>{escape(title)}</h1>"
    session = f", session <code>{escape(report.session)}</code>" if report.session else ""
    yield f'<p class="dim">{escape(origin.at)}, on {escape(origin.host)}, nvmelm {escape(__version__)}{session}</p>'
    if failure is not None:
        yield from _failure(failure)
    down = report.downtime
    if down is not None and failure is None:
        yield f'<p><span class="big">{_ms(down.total_us)}</span> the guest stood still</p>'
        yield from _timeline(report)
        yield from _parts(report)
    yield from _controllers(report)
    yield from _numbers(report, origin)
    if report.rounds:
        yield from _rounds(report)
    if report.logged_rounds:
        yield from _logged_rounds(report)
    if report.notes:
        yield "<h2>Notes</h2>\n<ul>"
        yield from (f"<li>{escape(note)}</li>" for note in report.notes)
        yield "</ul>"
    yield "</body>\n</html>"


def _failure(failure: NvmelmError) -> Iterator[str]:
    """Say what the error says: what happened, why, what to type, and what became of the guest."""
    yield f'<p class="big">{escape(failure.message)}</p>\n<table>'
    rows = (
        ("exit code", str(int(failure.exit_code))),
        ("reason", failure.word),
        ("cause", failure.cause),
        ("fix", failure.fix),
        *(("note", note) for note in getattr(failure, "__notes__", ())),
    )
    yield from (f"<tr><td>{name}</td><td>{escape(text)}</td></tr>" for name, text in rows if text)
    yield "</table>"


def _values(report: MigrateReport) -> dict[str, int]:
    down = report.downtime
    return {name: getattr(down, f"{name}_us") for name, _, _ in _PARTS} if down is not None else {}


def _timeline(report: MigrateReport) -> Iterator[str]:
    """Draw both hosts: the dry transfer before, and from the suspend to the answer to the resume."""
    values = _values(report)
    before = min(report.rehearsal_us, 2 * max(1, sum(values.values())))  # a long one is cut: the rest is what matters
    scale = (_WIDTH - _LEFT - 20) / max(1, before + sum(values.values()))
    height = _AXIS + 30
    yield "<h2>Timeline</h2>"
    yield f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="timeline of both hosts">'
    for row, name in enumerate(("source", "destination")):
        yield f'<text x="0" y="{row * _LANE + 32}">{name}</text>'
    at = float(_LEFT)
    for row in (0, 1):
        yield _box(at, row, before * scale, "before", f"dry transfer, {_ms(report.rehearsal_us)}")
    at += before * scale
    yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="{2 * _LANE + 8}" stroke="currentColor"/>'
    yield f'<text x="{at:.1f}" y="{2 * _LANE + 26}">suspend</text>'
    yield from _axis(at, scale, sum(values.values()))
    for name, where, meaning in _PARTS:
        wide = values[name] * scale
        for row, host in enumerate(("source", "destination")):
            if where in (host, "both"):
                yield _box(at, row, wide, name, f"{name}: {meaning}, {_ms(values[name])}")
        at += wide
    yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="{2 * _LANE + 8}" stroke="currentColor"/>'
    yield f'<text x="{at:.1f}" y="{2 * _LANE + 46}" text-anchor="end">running at the destination</text>'
    yield "</svg>"


def _box(x: float, row: int, wide: float, kind: str, title: str) -> str:
    place = f'x="{x:.1f}" y="{row * _LANE + 14}" width="{max(wide, 0.5):.1f}" height="28"'
    return f'<rect {place} fill="var(--{kind})"><title>{escape(title)}</title></rect>'


def _parts(report: MigrateReport) -> Iterator[str]:
    values = _values(report)
    total = max(1, sum(values.values()))
    yield "<h2>What the downtime is made of</h2>\n<table>"
    for name, where, meaning in _PARTS:
        swatch = (
            f'<svg viewBox="0 0 12 12" style="width:12px"><rect width="12" height="12" fill="var(--{name})"/></svg>'
        )
        yield (
            f'<tr><td>{swatch} {name}</td><td class="number">{_ms(values[name])}</td>'
            f'<td class="number">{values[name] / total:.0%}</td><td>{where}</td><td>{escape(meaning)}</td></tr>'
        )
    yield "</table>"


def _controllers(report: MigrateReport) -> Iterator[str]:
    yield "<h2>Controllers</h2>\n<table><tr><th>source</th><th>destination</th><th>address</th><th>held by</th></tr>"
    for controller in report.controllers:
        cells = (
            f"{controller.source_cntlid:#06x}",
            f"{controller.destination_cntlid:#06x}",
            controller.destination_address,
            controller.held_by,
        )
        yield "<tr>" + "".join(f"<td>{escape(cell) or 'nobody'}</td>" for cell in cells) + "</tr>"
    yield "</table>"


def _numbers(report: MigrateReport, origin: Origin) -> Iterator[str]:
    primary = f" ({report.destination_primary})" if report.destination_primary else ""
    rate = f" at {_size(report.bytes_per_second)}/s" if report.bytes_per_second else ""
    rows = (
        ("from", f"{origin.host} ({report.source_primary})"),
        ("to", f"{report.destination}{primary}"),
        ("state", f"{_size(report.state_bytes)}{rate}"),
        ("commands that carried state", f"{report.commands}"),
        ("dry transfer before", _ms(report.rehearsal_us)),
    )
    yield "<h2>Numbers</h2>\n<table>"
    yield from (f"<tr><td>{escape(name)}</td><td>{escape(text)}</td></tr>" for name, text in rows)
    yield "</table>"


def _rounds(report: MigrateReport) -> Iterator[str]:
    yield "<h2>Memory written before the suspend, in rounds</h2>\n<table>"
    yield "<tr><th>controller</th><th>round</th><th>memory</th><th>ranges</th><th>after</th><th></th></tr>"
    for tracked in report.rounds:
        last = "after the suspend" if tracked.after_suspend else ""
        numbers = "".join(
            f'<td class="number">{text}</td>'
            for text in (_size(tracked.bytes), tracked.extents, _span(tracked.seconds))
        )
        yield f"<tr><td>{tracked.cntlid:#06x}</td><td>{tracked.number}</td>{numbers}<td>{last}</td></tr>"
    yield "</table>"


def _logged_rounds(report: MigrateReport) -> Iterator[str]:
    yield "<h2>User data written before the suspend, in rounds</h2>\n<table>"
    yield "<tr><th>controller</th><th>round</th><th>blocks</th><th>after</th><th></th></tr>"
    for logged in report.logged_rounds:
        last = (
            "after the suspend" if logged.after_suspend else "the log was full: copied anew" if logged.restart else ""
        )
        numbers = "".join(f'<td class="number">{text}</td>' for text in (f"{logged.blocks:,}", _span(logged.seconds)))
        yield f"<tr><td>{logged.cntlid:#06x}</td><td>{logged.number}</td>{numbers}<td>{last}</td></tr>"
    yield "</table>"


def _ms(microseconds: int) -> str:
    return _span(microseconds / 1_000_000)


def _span(seconds: float) -> str:
    """Return a time span with three digits that say something: ``0.7 ms``, ``35.7 ms``, ``4.48 s``, ``2 min 05 s``."""
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _size(number: int) -> str:
    """Return a byte count with a binary unit: ``512 B``, ``4.1 KiB``, ``1.0 GiB``."""
    value, units = float(number), ("B", "KiB", "MiB", "GiB", "TiB")
    step = 0
    while value >= 1024 and step < len(units) - 1:
        value, step = value / 1024, step + 1
    return f"{value:.1f} {units[step]}" if step else f"{number} B"


def _axis(suspend: float, scale: float, total_us: int) -> Iterator[str]:
    """Draw the time since the suspend below the lanes, in round steps.

    Args:
        suspend: where it is, in the picture's units.
        scale: the picture's units for a microsecond.
    """
    step = _round_step(total_us)
    for number in range(total_us // step + 1):
        x = suspend + number * step * scale
        yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_AXIS}" y2="{_AXIS + 5}" stroke="currentColor"/>'
        yield f'<text class="tick" x="{x:.1f}" y="{_AXIS + 19}" text-anchor="middle">{_ms(number * step)}</text>'


def _round_step(total_us: int) -> int:
    """Return the least of 1, 2 and 5 times a power of ten, microseconds, with which an axis has at most 5 steps."""
    power = 1
    while True:
        for step in (power, 2 * power, 5 * power):
            if total_us <= 5 * step:
                return step
        power *= 10
