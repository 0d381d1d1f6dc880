"""execute(): success passes, everything else is a typed error with cause and fix."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelm.commands import AdminCommandError, execute, identify, migration, tracking, virtualization
from nvmelm.errors import ExitCode, MalformedError, NvmelmError
from nvmelm.host import AdminCommand, Completion
from nvmelm.wire.status import StatusCode

GET = migration.get_state(0x41, offset=0, length=48, version_index=1)


class Answering:
    """An admin queue that answers every command the same."""

    max_transfer_bytes = 4096

    def __init__(self, completion: Completion) -> None:
        self.completion = completion

    def submit(self, command: AdminCommand) -> Completion:
        return self.completion

    def close(self) -> None:
        pass


def failure(command: AdminCommand, status: int, result: int = 0) -> AdminCommandError:
    with pytest.raises(AdminCommandError) as caught:
        execute(Answering(Completion(status, result)), command)
    return caught.value


def test_a_success_is_returned_as_it_came() -> None:
    completion = Completion(0, 3)
    assert execute(Answering(completion), virtualization.online(1)) is completion


def test_bits_that_only_advise_do_not_make_a_failure() -> None:
    assert execute(Answering(Completion(0x2000)), virtualization.online(1)).status == 0x2000


def test_a_failure_says_what_why_and_what_to_type() -> None:
    error = failure(GET, 0x13A)
    assert error.message == "Migration Receive (Get Controller State) failed: Controller Not Suspended (1h/3Ah)"
    assert "controller 0x0041 is running" in error.cause
    assert "nvmelm state suspend PF 0x0041" in error.fix
    assert (error.exit_code, error.kind, error.reason) == (ExitCode.REFUSED, "refused", "controller-not-suspended")
    assert (error.command, error.status.code) == (GET, StatusCode.CONTROLLER_NOT_SUSPENDED)
    assert isinstance(error, NvmelmError)


def test_the_same_code_means_something_else_for_resume() -> None:
    assert "nothing to resume" in failure(migration.resume(0x41), 0x13A).cause


def test_do_not_retry_is_said() -> None:
    assert "a retry is of no use" in failure(GET, 0x413A).cause
    assert "a retry is of no use" not in failure(GET, 0x013A).cause


@pytest.mark.parametrize("status", [0x370, 0x371, 0x4371])
def test_statuses_of_the_driver_are_not_blamed_on_the_controller(status: int) -> None:
    assert "the driver says this, not the controller" in failure(GET, status).cause


def test_an_unknown_status_is_shown_as_a_number() -> None:
    error = failure(GET, 0x07C5)
    assert error.message == "Migration Receive (Get Controller State) failed: status 7h/C5h"
    assert error.reason == "status-7h-c5h"
    assert error.cause
    assert error.fix


def test_what_would_do_comes_with_not_enough_resources() -> None:
    error = failure(tracking.stop_memory_tracking(1), 0x138, 0x0000_0040_0000_0003)
    assert tracking.tracking_limits(error.result) == tracking.TrackingLimits(granularity=3, ranges=64)


@pytest.mark.parametrize("size", [0, 47, 49])
def test_another_number_of_bytes_than_asked_for_is_malformed(size: int) -> None:
    with pytest.raises(MalformedError, match=f"returned {size} bytes, not 48"):
        execute(Answering(Completion(0, 0, bytes(size))), GET)


@given(st.integers(1, 0x7FFF), st.sampled_from([GET, identify.controller(), migration.resume(7)]))
def test_every_status_ends_in_success_or_a_complete_error(status: int, command: AdminCommand) -> None:
    completion = Completion(status, 0, bytes(command.data_in_length))
    if status & 0x7FF == 0:
        assert execute(Answering(completion), command) is completion
        return
    with pytest.raises(AdminCommandError) as caught:
        execute(Answering(completion), command)
    error = caught.value
    assert all([error.message, error.cause, error.fix, error.reason])
    assert "{" not in error.cause + error.fix
