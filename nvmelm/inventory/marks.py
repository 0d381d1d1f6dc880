"""Marks: nvmelm's own permission for a controlled function, given only after its facts were verified.

The specification has no command that allows one VF to migrate, so step 3 of both sequences is this gate. A mark says
*migratable* (source) or *resumable* (destination), who gave it and when, and holds a digest of the facts it rests on.
When one of them changes, the mark no longer holds; when the VF is removed, or the host was booted since, the facts say
so too (the VF's inode in sysfs and the boot id are among them), so a mark never outlives its VF.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from nvmelm.disk import store
from nvmelm.errors import BusyError, NotReadyError, NotSupportedError
from nvmelm.host import Host
from nvmelm.inventory.drivers import require_no_other_manager
from nvmelm.inventory.pci import NVME_DRIVER
from nvmelm.inventory.picture import Mark, Picture, Role, Secondary
from nvmelm.inventory.read import no_vf

_WORDS = {
    "boot": "the host was rebooted",
    "incarnation": "the VF was removed and made anew",
    "online": "the controller went offline",
    "vq": "its VQ resources changed",
    "vi": "its VI resources changed",
    "address": "the VF has another address",
    "formats": "the controller state formats changed",
    "live_migration": "the PF lost Host Managed Live Migration",
    "serial": "the PF is another device",
    "model": "the PF is another device",
    "firmware": "the PF's firmware changed",
}

#: Marks of a later format may mean something else by their fields, and are none here.
_FORMAT = 1


class StoredMark(NamedTuple):
    """A mark as it is kept on the host."""

    format: int
    role: Role
    cntlid: int
    given_at: str
    given_by: str
    expires_at: str | None
    facts: dict[str, Any]
    facts_digest: str

    def dumps(self) -> str:
        """Return the text of the mark's file."""
        return json.dumps(self._asdict(), indent=1) + "\n"

    @classmethod
    def parse(cls, text: str) -> StoredMark | None:
        """Read a mark's file; None when it cannot be read."""
        try:
            body = json.loads(text)
            known = {**body, "role": Role(body["role"])}
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        fits = known.keys() == _FORM.keys() and all(isinstance(known[name], kind) for name, kind in _FORM.items())
        return cls(**known) if fits and known["format"] == _FORMAT else None


#: What a mark's file holds; one with other fields, or of other types, is no mark.
_FORM = {
    "format": int,
    "role": str,
    "cntlid": int,
    "given_at": str,
    "given_by": str,
    "expires_at": str | None,
    "facts": dict,
    "facts_digest": str,
}


def facts_of(host: Host, picture: Picture, secondary: Secondary) -> dict[str, Any]:
    """Return the facts a mark of this function rests on."""
    primary = picture.primary
    formats = primary.state_formats
    return {
        "boot": host.facts().boot_id,
        "serial": primary.serial,
        "model": primary.model,
        "firmware": primary.firmware,
        "live_migration": primary.live_migration,
        "formats": [list(formats.versions), list(formats.vendor_uuids)] if formats else None,
        "primary": primary.cntlid,
        "vf_number": secondary.vf_number,
        "address": secondary.address,
        "incarnation": secondary.incarnation,
        "online": secondary.online,
        "vq": secondary.vq,
        "vi": secondary.vi,
    }


def digest(facts: dict[str, Any]) -> str:
    """Return the SHA-256 of facts in their canonical form, 64 hexadecimal digits.

    The serial number is left out, as a redacted recording has another one; it is compared all the same.
    """
    import hashlib  # OpenSSL: most verbs meet no mark

    kept = {name: value for name, value in facts.items() if name != "serial"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def verify(picture: Picture, secondary: Secondary) -> None:
    """Refuse a function that may not be marked.

    Raises:
        NotSupportedError: the PF cannot save and restore states, or another VFIO driver migrates the function itself.
        NotReadyError: the function is not ready: not enabled, offline, or without the least resources.
        BusyError: the kernel's NVMe driver owns it.
    """
    require_live_migration(picture)
    name = f"controller {secondary.cntlid:#06x}"
    node = picture.primary.node
    if not secondary.present:
        raise no_vf(picture, secondary)
    if not secondary.online:
        fix = f"nvmelm secondary assign {node} {secondary.cntlid:#06x} --vq N --vi N, then nvmelm secondary online"
        raise NotReadyError(
            f"{name} is {secondary.state}",
            cause="only an online controller has a state to move",
            fix=fix,
            reason="offline",
        )
    if secondary.driver == NVME_DRIVER:
        cause = f"the kernel drives it as {secondary.controller_node or 'a controller'} and would fight over its queues"
        fix = f"nvmelm vfio bind --unmarked {secondary.address} takes it from the kernel (asks first if it is in use)"
        raise BusyError(f"{name} is owned by the nvme driver", cause=cause, fix=fix)
    require_no_other_manager(secondary, f"{name} is bound to {secondary.driver}")


def require_live_migration(picture: Picture) -> None:
    """Refuse a PF that cannot save and restore the state of its controlled functions.

    Raises:
        NotSupportedError: no Host Managed Live Migration, or no controller state format.
    """
    primary = picture.primary
    if not primary.live_migration:
        cause = "its Identify data has Host Managed Live Migration (OACS bit 11) clear, so it has no Migration Send"
        fix = "use a controller with NVMe 2.1 live migration; --unmarked prepares VFs that will stay on this host"
        message = f"{primary.address} ({primary.model}) cannot migrate its controlled functions"
        raise NotSupportedError(message, cause=cause, fix=fix, reason="no-live-migration")
    formats = primary.state_formats
    if formats is None or not (formats.versions or formats.vendor_uuids):
        cause = "Identify CNS 20h lists no version and no vendor format"
        fix = "ask the controller's vendor for a firmware that lists one"
        raise NotSupportedError(f"{primary.address} has no controller state format", cause=cause, fix=fix)


def give(
    host: Host,
    picture: Picture,
    secondary: Secondary,
    role: Role,
    *,
    valid_s: int | None = None,
    durable: bool = True,
) -> None:
    """Mark a controlled function; the caller has called :func:`verify` on a fresh picture.

    Args:
        valid_s: seconds until the mark expires, or None for no expiry.
        durable: wait for the disk; a mark does not hold after a reboot, so nothing is lost but time.
    """
    facts = facts_of(host, picture, secondary)
    now = datetime.now(UTC)
    mark = StoredMark(
        format=_FORMAT,
        role=role,
        cntlid=secondary.cntlid,
        given_at=now.isoformat(timespec="seconds"),
        given_by=_who(),
        expires_at=(now + timedelta(seconds=valid_s)).isoformat(timespec="seconds") if valid_s else None,
        facts=facts,
        facts_digest=digest(facts),
    )
    store.write(mark_path(host, picture.primary.address, secondary.cntlid), mark.dumps(), durable=durable)


def revoke(host: Host, address: str, cntlid: int) -> None:
    """Take a mark back; nothing happens when there is none."""
    store.remove(mark_path(host, address, cntlid))


def look(host: Host, picture: Picture, secondary: Secondary) -> Mark | None:
    """Return the mark of a function and whether it still holds, or None when it has none."""
    stored = _load(mark_path(host, picture.primary.address, secondary.cntlid))
    if stored is None:
        return None
    broken = list(_changes(stored.facts, facts_of(host, picture, secondary)))
    if stored.facts_digest != digest(stored.facts):
        broken.append("the mark's file was altered")
    if stored.expires_at and _expired(stored.expires_at):
        broken.append(f"it expired at {stored.expires_at}")
    return Mark(
        role=stored.role,
        holds=not broken,
        broken_by=tuple(broken),
        given_at=stored.given_at,
        given_by=stored.given_by,
        expires_at=stored.expires_at,
        facts_digest=stored.facts_digest,
    )


def stored_text(host: Host, address: str, cntlid: int) -> str:
    """Return a mark's file as it is, empty when there is none: two texts that are alike are one mark."""
    return store.read(mark_path(host, address, cntlid)) or ""


def joined(host: Host, picture: Picture) -> Picture:
    """Return the picture with the mark of every function."""
    if not store.names(host.state_dir / "marks" / picture.primary.address):
        return picture
    marked = [replace(secondary, mark=look(host, picture, secondary)) for secondary in picture.secondaries]
    return replace(picture, secondaries=tuple(marked))


def require(picture: Picture, secondary: Secondary, *roles: Role) -> None:
    """Refuse a function without a mark that holds and allows one of these roles.

    Raises:
        NotReadyError: no mark, one that no longer holds, or one for the other role.
    """
    node, name = picture.primary.node, f"controller {secondary.cntlid:#06x}"
    verb = "allow-resume" if roles == (Role.RESUMABLE,) else "allow-migration"
    fix = f"nvmelm secondary {verb} {node} {secondary.cntlid:#06x}"
    wanted = " or ".join(roles)
    if secondary.mark is None:
        raise NotReadyError(f"{name} is not marked {wanted}", cause="step 3 was not done", fix=fix, reason="unmarked")
    if not secondary.mark.holds:
        cause = "; ".join(secondary.mark.broken_by)
        raise NotReadyError(f"the mark of {name} no longer holds", cause=cause, fix=fix, reason="mark-broken")
    if secondary.mark.role not in roles:
        raise NotReadyError(
            f"{name} is marked {secondary.mark.role}, not {wanted}", cause="", fix=fix, reason="wrong-mark"
        )


def _expired(when: str) -> bool:
    """Return whether a time has come; one that cannot be read has."""
    try:
        return datetime.now(UTC) >= datetime.fromisoformat(when)
    except (ValueError, TypeError):  # TypeError: a time without its zone
        return True


def _changes(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    names = [name for name in now if then.get(name) != now[name]]
    if "boot" in names or "incarnation" in names:  # the rest follows from it
        names = [name for name in names if name in ("boot", "incarnation")]
    return [_WORDS.get(name, f"{name} changed") for name in names]


def _load(path: Path) -> StoredMark | None:
    text = store.read(path)
    return None if text is None else StoredMark.parse(text)  # a mark that cannot be read is no permission


def mark_path(host: Host, address: str, cntlid: int) -> Path:
    """Return the file of a mark."""
    return host.state_dir / "marks" / address / f"{cntlid:#06x}.json"


def _who() -> str:
    """Return who runs this: the user behind sudo, or the process's own."""
    import pwd

    name = os.environ.get("SUDO_USER", "")
    if name.isprintable() and 0 < len(name) <= 32:
        return name
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
