"""Bring a host to its configuration: a plan for each controlling function; one that fails does not stop the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from nvmelm.desired.config import Wanted, same_function
from nvmelm.errors import ExitCode, NvmelmError
from nvmelm.inventory import PrimaryRef, primaries
from nvmelm.model import ChangeReport, Document, Part
from nvmelm.model import Role as MarkRole
from nvmelm.operations import provision
from nvmelm.operations.apply import Confirm
from nvmelm.operations.session import session
from nvmelm.pci import sriov
from nvmelm.transport import Host

#: driverctl keeps one file a device here, named after its address.
_DRIVERCTL = "etc/driverctl.d"
#: libvirt keeps its domains here; a hostdev with managed='yes' is bound and unbound by libvirt itself.
_LIBVIRT = "etc/libvirt/qemu"
_MAX_XML_BYTES = 4 << 20

Outcome = Literal["done", "unchanged", "planned", "absent", "left-alone", "failed"]


class Applied(Part):
    """What became of one entry of the configuration."""

    place: str = Field(description="file and line")
    name: str = Field(description="as the configuration names the PF")
    address: str | None
    outcome: Outcome
    message: str = ""
    exit_code: int = 0
    report: ChangeReport | None = None


class ApplyReport(Document):
    """How a host was brought to its configuration."""

    schema_name = "nvmelm.apply"

    changed: bool
    dry_run: bool
    entries: tuple[Applied, ...]

    @property
    def code(self) -> ExitCode:
        """Return the exit code: that of the first entry that failed or is absent."""
        bad = [one.exit_code for one in self.entries if one.exit_code]
        return ExitCode(bad[0]) if bad else ExitCode.DONE


def reach(
    host: Host, wanted: Sequence[Wanted], *, root: Path = Path("/"), confirm: Confirm, dry_run: bool = False
) -> ApplyReport:
    """Bring every listed function to what is wanted of it; others are not touched.

    Args:
        root: below which the configuration of other managers is looked for.

    Raises:
        UsageError: two entries name one function.
    """
    refs = primaries(host)
    found = [(one, _find(host, refs, one)) for one in wanted]
    seen: dict[str, Wanted] = {}
    for one, ref in found:
        if ref is not None and seen.setdefault(str(ref.address), one) is not one:
            raise same_function(seen[str(ref.address)], one, str(ref.address))
    entries = tuple(_one(host, one, ref, root, confirm, dry_run=dry_run) for one, ref in found)
    return ApplyReport(changed=any(one.outcome == "done" for one in entries), dry_run=dry_run, entries=entries)


def names(host: Host, ref: PrimaryRef) -> dict[str, str]:
    """Return the names a configuration can give a function."""
    nqn = host.sysfs.read(f"class/nvme/{ref.node}/subsysnqn").strip()
    return {"serial": ref.serial, "address": str(ref.address), "nqn": nqn}


def _find(host: Host, refs: Sequence[PrimaryRef], wanted: Wanted) -> PrimaryRef | None:
    return next((ref for ref in refs if names(host, ref)[wanted.by] == wanted.name), None)


def _one(host: Host, wanted: Wanted, ref: PrimaryRef | None, root: Path, confirm: Confirm, *, dry_run: bool) -> Applied:
    def ended(outcome: Outcome, message: str = "", code: int = 0, report: ChangeReport | None = None) -> Applied:
        return Applied(
            place=wanted.place,
            name=wanted.name,
            address=str(ref.address) if ref is not None else None,
            outcome=outcome,
            message=message,
            exit_code=code,
            report=report,
        )

    if ref is None:
        return ended("absent", f"no controlling function has the {wanted.by} {wanted.name}", int(ExitCode.FAILED))
    other = _other_manager(host, ref, wanted.vfs, root)
    if other:
        return ended("left-alone", other)
    try:
        report = _prepare(host, wanted, ref, confirm, dry_run=dry_run)
    except NvmelmError as error:
        return ended("failed", f"{error.message}{f': {error.cause}' if error.cause else ''}", int(error.exit_code))
    return ended("done" if report.changed else "planned" if report.actions else "unchanged", report=report)


def _prepare(host: Host, wanted: Wanted, ref: PrimaryRef, confirm: Confirm, *, dry_run: bool) -> ChangeReport:
    role = MarkRole.RESUMABLE if wanted.role == "destination" else MarkRole.MIGRATABLE
    with session(host, ref, change=not dry_run) as opened:
        return provision.prepare(
            opened,
            role,
            wanted.vfs,
            vq=wanted.vq,
            vi=wanted.vi,
            unmarked=wanted.role == "unmarked",
            valid_s=wanted.expires_s,
            confirm=confirm,
            dry_run=dry_run,
        )


def _other_manager(host: Host, ref: PrimaryRef, vfs: int, root: Path) -> str:
    """Return who else binds this function's VFs, as a sentence; empty: nobody does."""
    facts = sriov(host.sysfs, ref.address)
    if facts is None:
        return ""
    addresses = {str(ref.address), *(str(facts.address(ref.address, index)) for index in range(min(vfs, facts.total)))}
    overrides = sorted(addresses & _names(root / _DRIVERCTL))
    if overrides:
        return f"driverctl has an override for {', '.join(overrides)}; it is left to driverctl"
    for name in sorted(_names(root / _LIBVIRT)):
        managed = sorted(addresses & _managed(root / _LIBVIRT / name)) if name.endswith(".xml") else []
        if managed:
            return f"libvirt manages {', '.join(managed)} of {name.removesuffix('.xml')} itself; it is left to libvirt"
    return ""


def _names(directory: Path) -> set[str]:
    try:
        return {path.name for path in directory.iterdir()}
    except OSError:  # not there, or not ours to read: nobody to respect
        return set()


def _managed(path: Path) -> set[str]:
    """Return the addresses of a domain's managed host devices."""
    import re

    try:
        text = path.read_text(encoding="utf-8", errors="replace")[:_MAX_XML_BYTES]
    except OSError:
        return set()
    found = set()
    for body in re.findall(r"<hostdev\b[^>]*\bmanaged=['\"]yes['\"][^>]*>(.*?)</hostdev>", text, re.DOTALL):
        source = body.partition("<source")[2].partition("</source>")[0]
        parts = dict(re.findall(r"\b(domain|bus|slot|function)=['\"]0x([0-9a-fA-F]{1,4})['\"]", source))
        if len(parts) == 4:
            number = {name: int(value, 16) for name, value in parts.items()}
            found.add(f"{number['domain']:04x}:{number['bus']:02x}:{number['slot']:02x}.{number['function']:x}")
    return found
