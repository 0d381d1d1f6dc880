"""Run nvmelm on a managed host and read its answer: one JSON document, one exit code."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

COMMON_ARGUMENTS: dict[str, Any] = {
    "executable": {"type": "str", "default": "nvmelm"},
    "host": {"type": "str"},
    "agree": {"type": "bool", "default": False},
}


def words(module: Any, *verb: str, names: Sequence[str] = (), **options: Any) -> list[str]:
    """Return a command line: the verb, its options, what every module adds, and behind ``--`` the names.

    Whatever somebody wrote into an inventory stays a name, or the value of one option: ``--yes`` is agreed to nowhere.
    """
    command = [module.params["executable"]]
    if module.params.get("host"):
        command += ["--host", module.params["host"]]
    command += verb
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            command.append(flag)
        elif value is not None and value is not False:
            command.append(f"{flag}={value}")
    return [*command, "--json", *(["--", *names] if names else [])]


def cntlid(module: Any, text: str) -> str:
    """Return a controller id as it was written; anything else fails the module."""
    if not re.fullmatch(r"0[xX][0-9a-fA-F]{1,4}|[0-9]{1,5}|[0-9a-fA-F]{1,4}[hH]", text):
        module.fail_json(msg=f"{text!r} is no controller id. Next: write it like 0x0041")
    return text


def run(
    module: Any, command: list[str], *, changes: bool, good: tuple[int, ...] = (0,), nothing: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Run a command and return its document; anything but a good exit code fails the module with nvmelm's own words.

    Args:
        changes: the verb changes something, so it is a dry run in check mode, and may have to be agreed to otherwise.
            Whoever calls says so: names and values of options look like verbs.
        nothing: reasons of an error that mean that there is nothing to do; the document is empty then.
    """
    if changes and module.check_mode:
        command = _with_option(command, "--dry-run")
    elif changes and module.params.get("agree"):
        command = _with_option(command, "--yes")
    code, out, err = module.run_command(command, environ_update={"LC_ALL": "C.UTF-8", "NO_COLOR": "1"})
    document = _document(out)
    if code in good and document is not None:
        return document
    failed = document or {}
    if failed.get("reason") in nothing:
        return {}
    module.fail_json(
        msg=_told(failed) or err.strip() or f"{PurePath(command[0]).name} ended with {code}",
        rc=code,
        cmd=command,
        stderr=err,
        nvmelm=failed,
        **{name: failed[name] for name in ("reason", "rolled_back") if name in failed},
    )
    raise AssertionError("fail_json does not return")


def _with_option(command: list[str], option: str) -> list[str]:
    """Return a command line with one option more, in front of the names."""
    at = command.index("--json")
    return [*command[:at], option, *command[at:]]


def prepare(module_type: Any, side: str) -> None:
    """Be the module ``nvmelm_source`` or ``nvmelm_destination``: the two differ in the verb alone."""
    module = module_type(
        argument_spec={
            **COMMON_ARGUMENTS,
            "pf": {"type": "str", "required": True},
            "vfs": {"type": "int"},
            "vq": {"type": "int"},
            "vi": {"type": "int"},
            "unmarked": {"type": "bool", "default": False},
            "expires": {"type": "str"},
            "state": {"type": "str", "choices": ["prepared", "released"], "default": "prepared"},
        },
        required_if=[("state", "prepared", ("vfs",))],
        supports_check_mode=True,
    )
    asked = module.params
    if asked["state"] == "released":
        command = words(module, "release", names=[asked["pf"]])
    else:
        options = {name: asked[name] for name in ("vfs", "vq", "vi", "unmarked", "expires")}
        command = words(module, side, "prepare", **options, names=[asked["pf"]])
    document = run(module, command, changes=True)
    picture = document.get("picture") or {}
    module.exit_json(
        changed=changed_by(document),
        diff=diff_of(document),
        nvmelm=document,
        controllers=[secondary for secondary in picture.get("secondaries", []) if secondary["present"]],
    )


def diff_of(document: dict[str, Any]) -> dict[str, str]:
    """Return what ``--diff`` shows: the plan of a change, step by step, with the exact writes and commands."""
    lines = []
    for action in document.get("actions", []):
        lines.append(f"{action['step']}: {action['summary']}")
        lines += [f"    {operation}" for operation in action.get("operations", [])]
    after = "".join(f"{line}\n" for line in lines)
    return {"before": "", "after": after, "before_header": "as it is", "after_header": "what nvmelm does"}


def changed_by(document: dict[str, Any]) -> bool:
    """Return nvmelm's own answer; of a dry run, whether there is anything to do."""
    if document.get("dry_run"):
        return bool(document.get("actions") or document.get("controllers"))
    return bool(document.get("changed"))


def _document(text: str) -> dict[str, Any] | None:
    try:
        document = json.loads(text)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _told(document: dict[str, Any]) -> str:
    """Return nvmelm's three lines as one: what happened, why, what to do next."""
    parts = [document.get("message", ""), document.get("cause", "")]
    sentence = ": ".join(part for part in parts if part)
    return f"{sentence}. Next: {document['fix']}" if sentence and document.get("fix") else sentence
