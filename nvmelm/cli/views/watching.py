"""What people see of a watched host: a sentence for each line of the stream, with the time in front."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

from nvmelm.cli.frame import render
from nvmelm.cli.frame.render import cntlid, count
from nvmelm.cli.views.functions import moment

_Part = dict[str, Any]


def sentences(text: str) -> Iterator[str]:
    """Show one line of the stream, as :class:`nvmelm.watch.lines.WatchLine` writes it."""
    line: _Part = json.loads(text)
    said = _KINDS[line["kind"]](line[line["kind"]])
    yield from render.wrapped(f"{line['at'][11:19]}  ", render.plain(said), sys.stdout)


def _started(part: _Part) -> str:
    return f"watching {part['host']}, Linux {part['kernel']}; times are UTC, Ctrl-C ends it"


def _uevent(part: _Part) -> str:
    return f"kernel: {part['action']} {part['subsystem']} {part['address'] or part['device']}"


def _primary(part: _Part) -> str:
    name = f"{part['node']} {part['address']}"
    if part["what"] == "changed":
        return f"{name}: {_changes(part)}"
    if part["what"] == "gone":
        return f"{name} has gone"
    functions = [function for function in part["controllers"] if function["present"] or function["state"] != "offline"]
    names = "; ".join(_standing(function) for function in functions) or "none"
    return f"{name} ({part['serial']}) is there; controlled functions in use: {names}"


def _standing(function: _Part) -> str:
    state = "suspended" if function.get("suspended") else function["state"]
    mark = function["mark"]
    words = [cntlid(function["cntlid"]), state, mark["role"] if mark else ""]
    return " ".join(filter(None, words))


def _function(part: _Part) -> str:
    return f"{cntlid(part['cntlid'])} of {part['primary']}"


def _controller(part: _Part) -> str:
    return f"{_function(part)}: {_changes(part)}"


def _changes(part: _Part) -> str:
    """Return what has changed, as it was and as it is."""
    before, after = part["before"], part["after"]
    return ", ".join(f"{name} {_value(before.get(name))} -> {_value(after[name])}" for name in after)


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None or value == "" else str(value)


def _mark(part: _Part) -> str:
    ends = f", ends at {moment(part['expires_at'])}" if part["expires_at"] else ""
    why = f": {'; '.join(part['broken_by'])}" if part["broken_by"] else ""
    by = f" by {part['given_by']}" if part["what"] == "given" else ""
    return f"{_function(part)}: mark {part['role']} {part['what']}{by}{ends}{why}"


def _session(part: _Part) -> str:
    names = ", ".join(map(cntlid, part["cntlids"]))
    way = "to" if part["side"] == "source" else "from"
    state = f"{part['before']} -> {part['state']}" if part["before"] else part["state"]
    over = ", which is its end" if part["over"] else ""
    return f"session {part['id'][:8]}, {names} {way} {part['peer'] or 'another host'}: {state}{over}"


def _manifest(part: _Part) -> str:
    old, new = ((part[name] or "none")[:19] for name in ("old", "new"))
    return f"{_function(part)}: manifest {old} -> {new}"


def _overrun(part: _Part) -> str:
    if part["of"] == "uevents":
        return "uevents were lost; everything is looked at again"
    return f"{count(part['lost'] or 0, 'line')} not given to --exec: the program is too slow"


def _trouble(part: _Part) -> str:
    where = part["primary"] or "this host"
    if part["over"]:
        return f"{where} can be looked at again"
    more = "".join(f"; {text}" for text in (part["cause"], part["fix"]) if text)
    return f"{where}: {part['message']}{more}"


def _ended(part: _Part) -> str:
    return f"ended: {part['why']}"


_KINDS: dict[str, Callable[[_Part], str]] = {
    "started": _started,
    "uevent": _uevent,
    "primary": _primary,
    "controller": _controller,
    "mark": _mark,
    "session": _session,
    "manifest": _manifest,
    "overrun": _overrun,
    "trouble": _trouble,
    "ended": _ended,
}
