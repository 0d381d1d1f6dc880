"""What two hosts say to each other: every field bounded, nothing unknown taken, errors carried with their exit code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.errors import BusyError, ExitCode, IncompatibleError, MalformedError, NotSupportedError, UncertainError
from nvmelm.migrate.link import messages
from nvmelm.migrate.link.layout import DATA, MESSAGE, Frame

SESSION = "0123456789abcdef0123456789abcdef"


def read(body: Any) -> messages.AnyMessage:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return messages.parse(Frame(MESSAGE, 0, bytearray(raw)), "peer")


def test_a_message_is_read_by_its_type() -> None:
    body = {
        "type": "open",
        "session": SESSION,
        "pf": "nvme0",
        "pairs": [{"source": 66, "destination": None}],
        "peer": "",
    }
    message = read(body)
    assert isinstance(message, messages.Open)
    assert message.pairs[0].source == 66


@pytest.mark.parametrize(
    "body",
    [
        {"type": "nothing"},
        {"kind": "bye"},
        {"type": "bye", "more": 1},
        {
            "type": "open",
            "session": SESSION.upper(),
            "pf": "x",
            "pairs": [{"source": 1, "destination": None}],
            "peer": "",
        },
        {"type": "open", "session": SESSION, "pf": "x", "pairs": [], "peer": ""},
        {"type": "open", "session": SESSION, "pf": "x", "pairs": [{"source": 65536, "destination": None}], "peer": ""},
        {"type": "open", "session": SESSION, "pf": "x" * 257, "pairs": [{"source": 1, "destination": 2}], "peer": ""},
        {"type": "open", "session": SESSION, "pf": "x", "pairs": [{"source": "1", "destination": 2}], "peer": ""},
        {"type": "rehearsed", "bytes": -1, "digest": "0" * 64},
        {"type": "rehearsed", "bytes": 1, "digest": "0" * 63},
        {"type": "hello", "program": "x", "host": "x"},
        {"type": "hello", "program": "x", "host": "x", "digests": []},
        {"type": "hello", "program": "x", "host": "x", "digests": ["sha256"] * 17},
        {"type": "running", "resume_s": 1e400},
        {"type": "settle", "session": SESSION, "side": "middle", "state": "open"},
        {"type": "settle", "session": SESSION, "side": "source", "state": "gone"},
        [],
        b"\xff",
        b"",
        b"[" * 100_000,
    ],
)
def test_what_is_out_of_bounds_is_refused(body: Any) -> None:
    with pytest.raises(MalformedError):
        read(body)


def test_data_is_no_message() -> None:
    with pytest.raises(MalformedError):
        messages.parse(Frame(DATA, 0, bytearray(b'{"type":"bye"}')), "peer")


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        read(raw)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(["hello", "open", "opened", "prepare", "sent", "loaded", "failed", "settled", "running"]),
    st.sampled_from(["session", "pairs", "states", "digests", "stream", "state", "message", "notes"]),
)
def test_messages_with_random_fields_are_read_or_refused(value: Any, kind: str, field: str) -> None:
    try:
        read({"type": kind, field: value})
    except MalformedError:
        return


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BusyError("held"), ExitCode.BUSY),
        (NotSupportedError("no"), ExitCode.NOT_SUPPORTED),
        (IncompatibleError("no"), ExitCode.INCOMPATIBLE),
        (UncertainError("who knows"), ExitCode.FAILED),  # what is uncertain there is decided by what is known here
    ],
)
def test_an_error_of_the_other_host_keeps_its_words_and_its_exit_code(error: Any, code: ExitCode) -> None:
    error.cause, error.fix, error.reason = "because", "type this", "a-word"
    remote = messages.remote_error(messages.failed(error), "peer")
    assert remote.exit_code == code
    assert remote.message == f"peer: {error.message}"
    assert (remote.cause, remote.fix, remote.reason) == ("because", "on peer: type this", "a-word")


def test_an_error_without_a_fix_gets_none_on_its_way() -> None:
    assert messages.remote_error(messages.failed(BusyError("held")), "peer").fix == ""


def test_an_error_too_long_for_the_wire_is_cut() -> None:
    assert len(messages.failed(BusyError("x" * 10_000)).message) == 4096
