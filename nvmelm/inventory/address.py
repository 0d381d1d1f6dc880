"""Where a migration goes to: ``ssh://[user@]HOST[:port]/PF[/CNTLID[,CNTLID…]]``, and how the far side is started.

Every part of it is data: none reaches a local shell, and the one that ssh puts together on the far side is quoted.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from urllib.parse import quote, unquote

from nvmelm.errors import UsageError
from nvmelm.numbers import decimal, parse_cntlid

#: The last @ parts the user from the host, as ssh has it: directories call their users name@domain.
_URL = re.compile(r"ssh://(?:([^/]*)@)?(\[[^\]/]*\]|[^:/@]*)(?::([^/]*))?(?:/(.*))?", re.DOTALL)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+\\-]{0,254}\$?")
#: Names and IPv4 addresses; an IPv6 address, with its zone, stands in brackets.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_HOST_6 = re.compile(r"[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.-]{1,32})?")
_PF = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_:./ -]{0,255}")
#: What may stand in a URL's user as it is; the domain's @ may not.
_IN_A_USER = "\\$+"
_MAX_URL = 1024
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class Address:
    """A PF on another host, and the controllers below it when they are named.

    Attributes:
        port: 0: what ssh takes by itself.
        pf: as the operator typed it; empty: any, as for ``recover``.
    """

    host: str
    user: str = ""
    port: int = 0
    pf: str = ""
    cntlids: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address.

        Raises:
            UsageError: it is none, or something in it could be taken for an option.
        """
        match = _URL.fullmatch(text) if len(text) <= _MAX_URL else None
        if match is None:
            raise _bad(text, "it is not ssh://[user@]HOST[:port]/PF/CNTLID")
        user, host, port, path = (part or "" for part in match.groups())
        user = unquote(user)
        # RFC 6874: the % before a zone is written %25; ssh, and most people, write it as it is.
        bare = host[1:-1].replace("%25", "%", 1) if host.startswith("[") else unquote(host)
        if not (_HOST_6 if host.startswith("[") else _HOST).fullmatch(bare):
            raise _bad(text, f"{bare!r} is no host name or address")
        if user and not _USER.fullmatch(user):
            raise _bad(text, f"{user!r} is no user name")
        number = decimal(port, most=_MAX_PORT) if match[3] is not None else 0
        if number is None or (number == 0 and match[3] is not None):
            raise _bad(text, f"{port!r} is no port")
        pf, cntlids = _path(text, unquote(path))
        return cls(bare, user, number, pf, cntlids)

    @property
    def name(self) -> str:
        """Return how the host is called in messages."""
        return f"{self.user}@{self.host}" if self.user else self.host

    def __str__(self) -> str:
        host = f"[{self.host.replace('%', '%25')}]" if ":" in self.host else self.host
        user = f"{quote(self.user, safe=_IN_A_USER)}@" if self.user else ""
        place = f"/{quote(self.pf, safe='/:')}" if self.pf else ""
        which = "/" + ",".join(f"{cntlid:#06x}" for cntlid in self.cntlids) if self.cntlids else ""
        return f"ssh://{user}{host}{f':{self.port}' if self.port else ''}{place}{which}"

    def command(self, remote: str, *, rsh: str = "") -> list[str]:
        """Return the program and arguments that run a command on the host.

        Args:
            remote: one shell line for the far side.
            rsh: what replaces ssh, as words; it gets the host and the line, as ssh does.
        """
        own = shlex.split(rsh) if rsh else ["ssh", "-T", *(["-p", str(self.port)] if self.port else []), "--"]
        return [*own, self.name, remote]


def _path(text: str, path: str) -> tuple[str, tuple[int, ...]]:
    """Split ``PF/CNTLID``; a PF may be a device node, which has slashes of its own."""
    if not path:
        return "", ()
    pf, _, last = path.rpartition("/")
    if not pf or pf in ("dev", "/dev"):
        pf, last = path, ""
    pf = f"/{pf}" if pf.startswith("dev/") else pf
    if not _PF.fullmatch(pf):
        raise _bad(text, f"{pf!r} names no controlling function")
    return pf, tuple(parse_cntlid(word) for word in last.split(",")) if last else ()


def _bad(text: str, cause: str) -> UsageError:
    return UsageError(
        f"{text[:200]!r} is no destination",
        cause=cause,
        fix="write it as ssh://host/nvme0/0x0041, or ssh://user@host:22/0000:01:00.0 (name@domain@host is read, too)",
        reason="destination",
    )
