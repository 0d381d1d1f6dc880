"""The model-and-parameters dialect, as S. Hajnoczi proposed in November 2020 (version 3).

A destination publishes ``migration_info.json``: its model, and for each parameter its type, the value it begins with,
the value that switches it off, and the values it can have. A source gives the list of its parameters that are not
switched off. They fit when the models are the same, every name in the list is known, and every value is allowed.

How facts become parameters: a number or a word is one parameter. A list of which the destination must have all is one
parameter of type bool for each item, off when it is not there. A version is two numbers. A fact that cannot be known at
the source makes no list at all: an absent parameter would be taken for the old behaviour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nvmelm.compat.facts import FACTS, missing
from nvmelm.compat.manifest import Manifest
from nvmelm.compat.rules import LARGEST, Fact, FactValue, Kind, Rule, Severity, encode, version
from nvmelm.documents import Report, about
from nvmelm.errors import IncompatibleError
from nvmelm.inventory.picture import ActionView

#: Names of models begin with a domain; NVMe's own, since what is described is what NVMe specifies.
_DOMAIN = "nvmexpress.org/controller"
Value = bool | int | str


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a destination.

    Attributes:
        init_value: what the destination has before it is prepared.
        off_value: what switches it off; None: it cannot be.
        allowed: the values it can have; whole numbers also as ``"min-max"``.
        settable: nvmelm sets it on the destination, once; otherwise it is only checked.
        runtime: it can change while the function runs.
        fact: the fact it comes from.
    """

    name: str
    init_value: Value
    off_value: Value | None
    allowed: tuple[Value, ...]
    description: str
    settable: bool
    runtime: bool
    fact: str

    @property
    def type(self) -> str:
        """Return ``bool``, ``int`` or ``str``."""
        return {bool: "bool", int: "int"}.get(type(self.init_value), "str")

    def allows(self, value: Value) -> bool:
        """Return whether a source's value can be had here."""
        if type(value) is not type(self.init_value):
            return False
        return any(_within(value, allowed) for allowed in self.allowed)


def model(manifest: Manifest) -> str:
    """Return the device model: it never changes while the parameters evolve."""
    vendor, device = (manifest.facts.get(f"identity.{name}") for name in ("vendor_id", "vf_device_id"))
    if not isinstance(vendor, int) or not isinstance(device, int):
        raise _unknown(["identity.vendor_id", "identity.vf_device_id"])
    return f"{_DOMAIN}/{vendor:04x}/{device:04x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationInfoDocument(Report):
    """A destination's models and parameters, as the proposal's migration_info.json has them."""

    schema_name = "nvmelm.migration_info"

    models: dict[str, dict[str, dict[str, dict[str, bool | int | str | list[bool | int | str]]]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterListDocument(Report):
    """A source's model, and every parameter of it that is not switched off."""

    schema_name = "nvmelm.parameter_list"

    model: str
    params: dict[str, bool | int | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterCheckDocument(Report):
    """Whether a source's list fits a destination."""

    schema_name = "nvmelm.parameter_check"

    compatible: bool
    reasons: list[str]
    to_set: dict[str, bool | int | str] = field(metadata=about("what compat parameters apply would write, each once"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterApplyDocument(Report):
    """What was written to a destination."""

    schema_name = "nvmelm.parameter_apply"

    changed: bool
    dry_run: bool
    written: dict[str, bool | int | str]
    actions: list[ActionView] = field(metadata=about("the changes, in order; of a plan with its exact commands"))


def information(destination: Manifest) -> dict[str, Any]:
    """Return a destination's ``migration_info.json``.

    Raises:
        IncompatibleError: a fact of it is not known.
    """
    params = {parameter.name: _published(parameter) for parameter in parameters(destination)}
    return {"models": {model(destination): {"params": params}}}


def parameters(destination: Manifest) -> list[Parameter]:
    """Return a destination's parameters.

    Raises:
        IncompatibleError: a fact of it is not known.
    """
    _complete(destination)
    return [
        parameter for name, fact in FACTS.items() for parameter in _of(fact, destination.facts[name]) if _blocks(fact)
    ]


def source_list(source: Manifest) -> dict[str, Value]:
    """Return the parameters of a source that are not switched off, by name.

    Raises:
        IncompatibleError: a fact of it is not known.
    """
    _complete(source)
    unknown = sorted(set(source.facts) - set(FACTS))
    if unknown:
        raise _unknown(unknown)
    values = {}
    for name, fact in FACTS.items():
        if _blocks(fact):
            values.update(
                {
                    parameter.name: parameter.init_value
                    for parameter in _of(fact, source.facts[name])
                    if not _off(parameter)
                }
            )
    return values


def check(wanted: Mapping[str, Value], source_model: str, destination: Manifest) -> list[str]:
    """Return why a source's list does not fit a destination, one sentence each; empty when it does."""
    try:
        known = {parameter.name: parameter for parameter in parameters(destination)}
        ours = model(destination)
    except IncompatibleError as error:
        return [f"{error.message}: {error.cause}"]
    reasons = [] if ours == source_model else [f"the model is {ours}, and the source's {source_model}"]
    for name, value in wanted.items():
        parameter = known.get(name)
        if parameter is None:
            reasons.append(f"{name} is no parameter of the destination")
        elif not parameter.allows(value):
            allowed = ", ".join(map(str, parameter.allowed)) or "nothing"
            reasons.append(f"{name} is {value!s} at the source, and can be {allowed} here")
    return reasons


def fixed(wanted: Mapping[str, Value]) -> dict[str, Value]:
    """Return the part of a list that no write on a destination can change: what has to fit before anything is written.

    What the attached namespaces look like follows from which they are, so it is compared after these were set.
    """
    return {name: value for name, value in wanted.items() if not _can_follow(name)}


def _can_follow(name: str) -> bool:
    fact = FACTS.get(name)
    return fact is not None and (fact.settable or fact.section == "namespaces")


def writes(wanted: Mapping[str, Value], destination: Manifest) -> dict[str, Value]:
    """Return what has to be written on a destination: each parameter once, and only what is not so already.

    Only settable parameters are in it; resources that a first write gave up might be gone at a second.
    """
    known = {parameter.name: parameter for parameter in parameters(destination)}
    return {
        name: value
        for name, value in wanted.items()
        if name in known and known[name].settable and known[name].init_value != value
    }


def _of(fact: Fact, value: FactValue) -> Iterator[Parameter]:
    """Yield the parameters a fact becomes."""
    if fact.kind is Kind.VERSION:
        major, minor, _ = version(str(value)) or (0, 0, 0)
        yield _parameter(fact, f"{fact.name}.major", major, None, (major,))
        yield _parameter(fact, f"{fact.name}.minor", minor, None, (f"0-{minor}",))
    elif isinstance(value, list) and fact.rule is Rule.SUPERSET:
        for item in value:
            yield _parameter(
                fact, f"{fact.name}.{encode(item)}".replace(" ", "%20").replace("/", "%2F"), True, False, (False, True)
            )
    elif isinstance(value, list):
        yield _parameter(fact, fact.name, encode(value), None, (encode(value),))
    else:
        yield _parameter(fact, fact.name, value, *_range(fact, value))


def _range(fact: Fact, value: Value) -> tuple[Value | None, tuple[Value, ...]]:
    """Return a scalar's off value, and the source's values that a destination with this one can take."""
    match fact.rule:
        case Rule.AT_LEAST:
            return None, (f"0-{value}",)
        case Rule.LIMIT:
            return None, (f"0-{LARGEST}",) if value == 0 else (f"1-{value}",)
        case Rule.KEEPS:
            return False, (False, True) if value else (False,)
        case Rule.REQUIRED:
            return None, (True,) if value else ()
        case Rule.FORBIDDEN:
            return None, () if value else (False,)
        case Rule.ALLOWED:
            return None, fact.allowed if value in fact.allowed else ()
        case _:
            return None, (value,)


def _parameter(fact: Fact, name: str, init: Value, off: Value | None, allowed: tuple[Value, ...]) -> Parameter:
    return Parameter(name, init, off, allowed, fact.meaning, fact.settable, fact.runtime, fact.name)


def _within(value: Value, allowed: Value) -> bool:
    if isinstance(value, int) and not isinstance(value, bool) and isinstance(allowed, str):
        lowest, _, highest = allowed.partition("-")
        return int(lowest) <= value <= int(highest)
    return type(value) is type(allowed) and value == allowed


def _off(parameter: Parameter) -> bool:
    return parameter.off_value is not None and parameter.init_value == parameter.off_value


def _blocks(fact: Fact) -> bool:
    """Return whether a difference would block; what only warns or informs is no parameter: a list is yes or no."""
    return fact.severity is Severity.BLOCKS


def _published(parameter: Parameter) -> dict[str, Any]:
    body: dict[str, Any] = {"type": parameter.type, "init_value": parameter.init_value}
    if parameter.off_value is not None:
        body["off_value"] = parameter.off_value
    body["allowed_values"] = list(parameter.allowed)
    return body | {"description": parameter.description}


def _complete(manifest: Manifest) -> None:
    absent = missing(manifest.facts)
    if absent:
        raise _unknown(absent)


def _unknown(names: list[str]) -> IncompatibleError:
    return IncompatibleError(
        "not every parameter is known",
        cause=f"{', '.join(names[:8])}: an absent parameter would be taken for the old behaviour",
        fix="nvmelm compat check names each, with what to do",
        reason="parameters-unknown",
    )
