"""What two hosts ask each other of a session that was cut off: the question, and the answer, which may act first."""

from __future__ import annotations

from contextlib import suppress

from nvmelm.errors import AnswerLostError, LinkLostError, NvmelmError, RemoteError
from nvmelm.host import Host
from nvmelm.inventory.find import find_primary
from nvmelm.inventory.opened import open_primary
from nvmelm.migrate.callouts.points import Points
from nvmelm.migrate.link import messages
from nvmelm.migrate.link.frames import Link
from nvmelm.migrate.link.messages import expect, greet, send
from nvmelm.migrate.recovery.settle import as_sentence, require_no_contradiction, settle
from nvmelm.ownership.record import SessionRecord, Side, State
from nvmelm.ownership.sessions import Sessions


def answer_other_host(host: Host, link: Link, question: messages.Settle, points: Points) -> None:
    """Serve one question: act on this host's record as far as the other's state allows, and say what it is then.

    Raises:
        NvmelmError: this side could not act; the other was told.
        BusyError: the session's migration still runs.
    """
    with Sessions(host) as sessions:
        side = Side.DESTINATION if question.side is Side.SOURCE else Side.SOURCE
        record = sessions.get(question.session, side)
        if record is None:
            send(link, messages.Settled(state=None, note="no such session is known here"))
            return
        note = ""
        if record.over:  # nothing is to be done to the device any more, which may be locked, or gone
            require_no_contradiction(record, question.state)
        else:
            with open_primary(host, find_primary(host, record.primary), change=True) as pf:
                record = sessions.get(question.session, side) or record  # whoever held the lock may have gone on
                try:
                    record = settle(pf, sessions, record, question.state, points)
                except NvmelmError as error:
                    record = sessions.get(question.session, side) or record
                    if record.state not in (State.PREPARING, State.LOADED, State.ABANDONING):
                        raise
                    note = as_sentence(error)  # it decides nothing by itself: that is what the other has to know
        send(link, messages.Settled(state=record.state, note=(note or record.note)[:4096]))
    with suppress(LinkLostError):
        link.receive(deadline_s=5.0)  # Bye


def ask_other_host(link: Link, record: SessionRecord, name: str) -> messages.Settled:
    """Ask the other host what it has written.

    Raises:
        AnswerLostError: it may have got the question, and have acted upon it.
        RemoteError: it answered that it cannot say.
        LinkLostError, NvmelmError: it cannot be asked.
    """
    greet(link, name)
    try:
        send(link, messages.Settle(session=record.id, side=record.side, state=record.state))
        settled = expect(link, messages.Settled)
    except RemoteError:
        raise
    except NvmelmError as error:
        raise AnswerLostError(error.message, cause=error.cause) from error
    with suppress(LinkLostError):
        send(link, messages.Bye())
    return settled
