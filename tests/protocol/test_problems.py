"""Problems: every message can be sent, is short, and says what to do."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given

from segue.protocol.problems import (
    Problem,
    Refused,
    connection_limit,
    invalid_json,
    missing,
    model_not_found,
    previous_response_not_found,
    quoted,
    response_not_found,
    shutting_down,
    store_mismatch,
    tool_call_not_found,
    unknown_type,
    unsupported,
)
from tests.strategies import any_text

QUOTING: list[Callable[[str], Problem]] = [
    unknown_type,
    previous_response_not_found,
    response_not_found,
    lambda text: tool_call_not_found(text, 3),
    store_mismatch,
    model_not_found,
]


@pytest.mark.parametrize(
    ("problem", "code", "param", "words"),
    [
        (invalid_json("x"), "invalid_json", None, "Send one JSON object"),
        (missing("model"), "missing_required_parameter", "model", "'model'"),
        (unsupported("prompt", "leave it out"), "unsupported_parameter", "prompt", "leave it out"),
        (unknown_type("x"), "unknown_event_type", "type", "sends 'response.create'"),
        (
            tool_call_not_found("c", 3),
            "tool_call_not_found",
            "input[3].call_id",
            "send the call item before its output",
        ),
        (store_mismatch("r"), "store_mismatch", "store", "Send the full input without previous_response_id"),
        (model_not_found("m"), "model_not_found", "model", "GET /v1/models"),
        (response_not_found("r"), "response_not_found", "response_id", "'r' not found"),
        (shutting_down(), "websocket_connection_limit_reached", None, "Create a new websocket connection"),
    ],
)
def test_a_problem_names_the_field_and_the_way_out(problem: Problem, code: str, param: str | None, words: str) -> None:
    """A program acts on the code and the param, a person on the sentence."""
    assert (problem.code, problem.param) == (code, param)
    assert words in problem.message


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (previous_response_not_found("resp_1"), "Previous response with id 'resp_1' not found."),
        (
            connection_limit(60.0),
            "Responses websocket connection limit reached (60 minutes). Create a new websocket connection to continue.",
        ),
    ],
)
def test_messages_that_clients_know_are_the_services_own(problem: Problem, expected: str) -> None:
    """Some clients match them."""
    assert problem.message == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "''"),
        ("x" * 80, f"'{'x' * 80}'"),
        ("x" * 81, f"'{'x' * 80}…'"),
        ("a\udcffb", "'a?b'"),
        ("é", "'é'"),
    ],
)
def test_a_quotation_is_short_and_is_text(text: str, expected: str) -> None:
    """Whatever the client sent."""
    assert quoted(text) == expected


@given(any_text)
def test_a_quoting_message_can_always_be_sent(text: str) -> None:
    """Bytes of a header that are no text included."""
    for make in QUOTING:
        for quotation in (text, text * 100):
            assert len(msgspec.json.encode(make(quotation))) < 2000


def test_a_refusal_carries_its_problem() -> None:
    """Shells raise it; whoever catches it answers with what it holds."""
    refused = Refused(missing("model"))
    assert (refused.problem, str(refused)) == (missing("model"), "Missing required parameter: 'model'.")
