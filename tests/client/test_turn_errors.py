"""Every error says in plain words what was done and what is safe, and what it says is true of its class."""

from __future__ import annotations

from typing import get_args

import pytest

from segue.client.errors import (
    ConnectionFailedError,
    ContinuationLostError,
    CreateRefusedError,
    OutcomeUnknownError,
    ResponseFailedError,
)
from segue.client.recovery import ErrorKind, FaultKind, Progress, TurnFault
from segue.client.turn_errors import error_of, failed_response, lost_continuation, other_response

CLASSES: dict[ErrorKind, type] = {
    "connection_failed": ConnectionFailedError,
    "create_refused": CreateRefusedError,
    "continuation_lost": ContinuationLostError,
    "response_failed": ResponseFailedError,
    "outcome_unknown": OutcomeUnknownError,
}


@pytest.mark.parametrize("kind", get_args(ErrorKind))
def test_each_kind_has_its_class_and_its_words(kind: ErrorKind) -> None:
    for fault_kind in get_args(FaultKind):
        for progress in get_args(Progress):
            fault = TurnFault(kind=fault_kind, transport="http")
            error = error_of(kind, fault, progress=progress, response_id="r")
            assert type(error) is CLASSES[kind]
            assert error.done.endswith(".")
            assert error.safe.endswith(".")


def test_a_refusal_carries_the_words_of_its_server_cut() -> None:
    fault = TurnFault(
        kind="refused", transport="http", status=429, code="rate\x00", param="p", message="m" * 999, retry_after_s=3.0
    )
    error = error_of("create_refused", fault, progress="sent", response_id=None)
    assert isinstance(error, CreateRefusedError)
    assert (error.status, error.code, error.param, error.retry_after_s) == (429, "rate ", "p", 3.0)
    assert len(str(error)) < 1000
    assert "with status 429 (rate : mmm" in str(error)


def test_an_unknown_outcome_says_how_far_the_turn_was() -> None:
    fault = TurnFault(kind="connection_lost", transport="http")
    told = {
        progress: error_of("outcome_unknown", fault, progress=progress, response_id=None).done
        for progress in get_args(Progress)
    }
    assert told["sent"] == ("The turn was sent, and then the connection was lost. The server may have run it.")
    assert len(set(told.values())) == 4


def test_the_other_errors_of_a_turn() -> None:
    assert failed_response(None, None, "r").done == "The turn ran and failed."
    failed = failed_response("server_error", "a key", "r")
    assert "(server_error)" in failed.done
    assert (failed.message, "a key" in str(failed)) == ("a key", False)
    assert other_response("r").response_id == "r"
    assert lost_continuation().safe_to_repeat


@pytest.mark.parametrize(
    ("fault", "hint"),
    [
        (TurnFault(kind="refused", transport="http", status=404), True),
        (TurnFault(kind="refused", transport="http", status=404, code="route_not_found"), True),
        (TurnFault(kind="refused", transport="http", status=404, code="invalid_request_error"), True),
        (TurnFault(kind="refused", transport="http", status=405, code="method_not_allowed"), True),
        (TurnFault(kind="upgrade_refused", transport="websocket", status=404, code="response_not_found"), True),
        (TurnFault(kind="refused", transport="http", status=404, code="model_not_found"), False),
        (TurnFault(kind="refused", transport="http", status=404, code="not_found", param="model"), False),
        (TurnFault(kind="refused", transport="http", status=400, code="invalid_request_error"), False),
    ],
    ids=str,
)
def test_an_address_without_the_api_is_said_to_be_one(fault: TurnFault, hint: bool) -> None:
    """Such as one without /v1, or with it twice."""
    error = error_of("create_refused", fault, progress="sent", response_id=None)
    assert ("Check the base URL" in error.safe) is hint
    lost = error_of("continuation_lost", fault, progress="sent", response_id=None)
    assert "history='auto'" in lost.safe
    assert error.safe_to_repeat
