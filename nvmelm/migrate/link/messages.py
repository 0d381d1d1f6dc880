"""What two hosts say to each other: one message per frame, JSON in UTF-8, every field bounded.

::

    source                                             destination
    Hello                ---------------------------->
                         <----------------------------  Hello
    Open                 ---------------------------->              who goes where
                         <----------------------------  Opened      the targets, the destination's manifests
    Prepare              ---------------------------->              from here on there is something to undo
    data, Rehearsed      ---------------------------->              the size of the state, once, thrown away there
                         <----------------------------  Prepared    targets suspended and ready
    Suspended            ---------------------------->
    data, Sent           ---------------------------->              a state image for each controller
                         <----------------------------  Loaded      all proven and in; or Again: one of them once more
    Give                 ---------------------------->              after the source wrote that it gave them away
                         <----------------------------  Running     after the destination wrote that it took them
    Bye                  ---------------------------->

    Abort                ---------------------------->              at any time before Give
                         <----------------------------  Aborted     everything put back
                         <----------------------------  Failed      at any time before Running; Aborted follows

    Settle               ---------------------------->              instead of Open: what became of a session?
                         <----------------------------  Settled
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from nvmelm import __version__
from nvmelm.errors import ExitCode, LinkLostError, MalformedError, NvmelmError, RemoteError
from nvmelm.migrate.link.frames import Link
from nvmelm.migrate.link.layout import MAX_MESSAGE_BYTES, MESSAGE, Frame
from nvmelm.ownership.sessions import Side, State
from nvmelm.state.image import digest
from nvmelm.state.image.format import ImageHeader, ImageSource

#: One call moves at most this many controllers; the data frames' stream numbers have room for their repetitions.
MAX_CONTROLLERS = 127

Name = Annotated[str, Field(max_length=256)]
Text = Annotated[str, Field(max_length=4096)]
SessionId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Cntlid = Annotated[int, Field(ge=0, le=0xFFFF)]
Bytes = Annotated[int, Field(ge=0, lt=1 << 63)]
Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Stream = Annotated[int, Field(ge=0, le=0xFFFF)]
#: 32 bytes in hexadecimal.
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Message(BaseModel):
    """One message; its ``type`` says which."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class Hello(Message):
    """Who speaks, and which digests of a state it can make."""

    type: Literal["hello"] = "hello"
    program: Name
    host: Name
    digests: Annotated[list[Name], Field(min_length=1, max_length=16)]


class Pair(Message):
    """A controller at the source and, once it is chosen, its target at the destination."""

    source: Cntlid
    destination: Cntlid | None


class Open(Message):
    """Which controllers are to move, and to which PF; ``peer`` is where the source can be reached."""

    type: Literal["open"] = "open"
    session: SessionId
    pf: Name
    pairs: Annotated[list[Pair], Field(min_length=1, max_length=MAX_CONTROLLERS)]
    peer: Annotated[str, Field(max_length=1024)]


class Opened(Message):
    """The targets: what each is (a manifest as JSON), and who holds it.

    ``continues``: a callout runs at *before-resume* there, which is where a guest is made to go on.
    """

    type: Literal["opened"] = "opened"
    primary: Name
    pairs: Annotated[list[Pair], Field(min_length=1, max_length=MAX_CONTROLLERS)]
    addresses: Annotated[list[Name], Field(max_length=MAX_CONTROLLERS)]
    manifests: Annotated[list[Annotated[str, Field(max_length=64 * 1024)]], Field(max_length=MAX_CONTROLLERS)]
    held: Annotated[list[Annotated[str, Field(max_length=1024)]], Field(max_length=MAX_CONTROLLERS)]
    continues: bool


class Prepare(Message):
    """The session begins; ``digests`` are those of the manifests both sides agreed upon."""

    type: Literal["prepare"] = "prepare"
    digests: Annotated[list[Name], Field(max_length=MAX_CONTROLLERS)]


class Rehearsed(Message):
    """A dry transfer ended: as many bytes of this digest."""

    type: Literal["rehearsed"] = "rehearsed"
    bytes: Bytes
    digest: Digest


class Prepared(Message):
    """The targets are suspended and ready, and the dry transfer arrived."""

    type: Literal["prepared"] = "prepared"


class Suspended(Message):
    """The source's controllers stand still; the next thing is their state."""

    type: Literal["suspended"] = "suspended"


class Sent(Message):
    """A stream of data ended."""

    type: Literal["sent"] = "sent"
    stream: Stream


class LoadedOne(Message):
    """A state that is in: the image's digest and the seconds it took to set it."""

    source: Cntlid
    digest: Digest
    set_s: Seconds
    commands: Annotated[int, Field(ge=0, lt=1 << 32)]


class Loaded(Message):
    """Every state is in, proven and written down; the targets are suspended."""

    type: Literal["loaded"] = "loaded"
    states: Annotated[list[LoadedOne], Field(min_length=1, max_length=MAX_CONTROLLERS)]


class Again(Message):
    """The device lost a state in the middle; it has to come once more."""

    type: Literal["again"] = "again"
    source: Cntlid
    why: Text


class Give(Message):
    """The source has written that the controllers are the destination's."""

    type: Literal["give"] = "give"


class Running(Message):
    """The destination has written that it took them, and resumed them."""

    type: Literal["running"] = "running"
    resume_s: Seconds
    notes: Annotated[list[Text], Field(max_length=64)] = []


class Abort(Message):
    """The source gave up, and runs its controllers again."""

    type: Literal["abort"] = "abort"
    why: Text


class Aborted(Message):
    """The destination put everything back."""

    type: Literal["aborted"] = "aborted"


class Failed(Message):
    """The destination cannot go on, and put back what it had done."""

    type: Literal["failed"] = "failed"
    kind: Name
    exit_code: Annotated[int, Field(ge=1, le=255)]
    message: Text
    cause: Text = ""
    fix: Text = ""
    reason: Name = ""


class Bye(Message):
    """Nothing more follows."""

    type: Literal["bye"] = "bye"


class Settle(Message):
    """What this side has written of a session; what has the other?"""

    type: Literal["settle"] = "settle"
    session: SessionId
    side: Side = Field(strict=False)
    state: State = Field(strict=False)


class Settled(Message):
    """What the answering side has written by now; None: it never heard of the session."""

    type: Literal["settled"] = "settled"
    state: State | None = Field(strict=False)
    note: Text = ""


AnyMessage = (
    Hello
    | Open
    | Opened
    | Prepare
    | Rehearsed
    | Prepared
    | Suspended
    | Sent
    | Loaded
    | Again
    | Give
    | Running
    | Abort
    | Aborted
    | Failed
    | Bye
    | Settle
    | Settled
)
_READER: TypeAdapter[AnyMessage] = TypeAdapter(Annotated[AnyMessage, Field(discriminator="type")])

M = TypeVar("M", bound=Message)


_REMOTE: dict[int, type[RemoteError]] = {
    code: type(f"Remote{code.name.title().replace('_', '')}Error", (RemoteError,), {"exit_code": code})
    for code in ExitCode
    # What is uncertain there is decided by what is known here; and only this side's own Ctrl-C ends it as one.
    if code not in (ExitCode.DONE, ExitCode.UNCERTAIN, ExitCode.INTERRUPTED)
}


def remote_error(failed: Failed, peer: str) -> RemoteError:
    """Return the error that a failure of the other host is here; its fix is for that host, and says so."""
    kind = _REMOTE.get(failed.exit_code, RemoteError)
    fix = f"on {peer}: {failed.fix}" if failed.fix else ""
    return kind(f"{peer}: {failed.message}", cause=failed.cause, fix=fix, reason=failed.reason)


def warm_up() -> None:
    """Build what pydantic would build at first use: with a guest that stands still there is no time for it."""
    for kind in (Suspended, Sent, LoadedOne, Loaded, Give, Running, ImageSource, ImageHeader):
        kind.model_rebuild()


def send(link: Link, message: Message) -> None:
    """Send a message.

    Raises:
        LinkLostError: whether it arrived is not known.
    """
    link.send(MESSAGE, message.model_dump_json().encode())


def parse(frame: Frame, peer: str) -> AnyMessage:
    """Read a message from a frame.

    Raises:
        MalformedError: it is none, or a field is out of bounds.
    """
    if frame.kind != MESSAGE or len(frame.payload) > MAX_MESSAGE_BYTES:
        raise MalformedError(f"{peer} sent data where a message belongs", reason="protocol")
    try:
        return _READER.validate_json(bytes(frame.payload))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        cause = f"{'.'.join(map(str, first['loc']))[:80] or 'message'}: {first['msg'][:160]}"
        raise MalformedError(f"{peer} sent what is no message", cause=cause, reason="protocol") from error


def greet(link: Link, name: str, *, answering: bool = False) -> str:
    """Shake hands, say who speaks, and return the digest of a state that both can make.

    Args:
        name: what this host calls itself.
        answering: the other side speaks first.

    Raises:
        NotSupportedError: there is no version of the protocol that both speak.
        MalformedError: the other side is no nvmelm.
        LinkLostError: it says nothing.
    """
    link.shake_hands()
    hello = Hello(program=f"nvmelm {__version__}", host=name, digests=list(digest.available()))
    if answering:
        theirs = expect(link, Hello)
        send(link, hello)
    else:
        send(link, hello)
        theirs = expect(link, Hello)
    return digest.agreed(theirs.digests)


def expect(link: Link, kind: type[M], *, deadline_s: float | None = None) -> M:
    """Wait for a message of one type.

    Raises:
        RemoteError: the other side failed.
        MalformedError: it said something else.
        LinkLostError: it says nothing.
    """
    frame = link.receive(deadline_s=deadline_s)
    if frame is None:
        raise LinkLostError(f"waiting for {link.peer} was cut short")
    message = parse(frame, link.peer)
    if isinstance(message, kind):
        return message
    if isinstance(message, Failed):
        raise remote_error(message, link.peer)
    raise unexpected(message, link.peer)


def unexpected(message: AnyMessage, peer: str) -> MalformedError:
    """Return the error of a message that does not belong where it came."""
    return MalformedError(f"{peer} said {message.type!r} out of turn", reason="protocol")


def failed(error: NvmelmError) -> Failed:
    """Return an error as a message; what is too long is cut."""
    return Failed(
        kind=error.kind[:256],
        exit_code=int(error.exit_code),
        message=error.message[:4096],
        cause=error.cause[:4096],
        fix=error.fix[:4096],
        reason=error.word[:256],
    )
