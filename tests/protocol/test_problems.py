"""Problems: every message can be sent, is short, and says what to do."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given

from segue.protocol.problems import (
    Problem,
    Refused,
    already_answered,
    connection_limit,
    epoch_changed,
    events_gone,
    invalid_json,
    invalid_stream_id,
    item_not_found,
    key_reused,
    missing,
    model_not_found,
    not_cancellable,
    not_counted,
    previous_response_not_found,
    quoted,
    references_too_large,
    references_too_many,
    response_not_found,
    shutting_down,
    store_mismatch,
    stream_limit,
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
    events_gone,
    not_cancellable,
    not_counted,
    lambda text: already_answered(text, 3),
    lambda text: item_not_found(text, 3),
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


@pytest.mark.parametrize(
    ("make", "whole"),
    [
        (
            lambda: invalid_json("it is empty"),
            Problem("invalid_json", "The request is not valid JSON: it is empty. Send one JSON object."),
        ),
        (
            lambda: missing("model"),
            Problem("missing_required_parameter", "Missing required parameter: 'model'.", "model"),
        ),
        (
            lambda: unsupported("prompt", "leave it out"),
            Problem("unsupported_parameter", "'prompt' is not supported here: leave it out", "prompt"),
        ),
        (
            lambda: unknown_type("x"),
            Problem(
                "unknown_event_type",
                "Unknown message type 'x'. A client sends 'response.create' on this connection.",
                "type",
            ),
        ),
        (
            lambda: previous_response_not_found("r"),
            Problem("previous_response_not_found", "Previous response with id 'r' not found.", "previous_response_id"),
        ),
        (
            lambda: response_not_found("r"),
            Problem("response_not_found", "Response with id 'r' not found.", "response_id"),
        ),
        (
            lambda: events_gone("r"),
            Problem(
                "response_events_gone",
                "The events of response 'r' after that number are not kept, or no longer. "
                "If the response was stored, retrieve it without stream; else send the turn again.",
                "starting_after",
            ),
        ),
        (
            lambda: not_cancellable("r"),
            Problem(
                "response_not_cancellable",
                "Response 'r' is not a background response. Close its connection to cancel a turn that runs.",
                "response_id",
            ),
        ),
        (
            key_reused,
            Problem(
                "idempotency_key_reused",
                "This idempotency key was used with another request. Use a new key for each request.",
                "segue.idempotency_key",
            ),
        ),
        (
            epoch_changed,
            Problem(
                "epoch_changed",
                "The gateway was started anew since this epoch, so it cannot tell whether it has had this request "
                "before. Nothing was run. Look at GET /segue/capabilities for its epoch.",
                "segue.epoch",
            ),
        ),
        (
            lambda: tool_call_not_found("c", 3),
            Problem(
                "tool_call_not_found",
                "No tool call found for the output with call_id 'c'. "
                "Continue the response that made the call, or send the call item before its output.",
                "input[3].call_id",
            ),
        ),
        (
            lambda: already_answered("c", 3),
            Problem(
                "invalid_value",
                "The tool call with call_id 'c' has another output in the history. A call has one output. "
                "Leave this one out, or say what is new in a message.",
                "input[3].output",
            ),
        ),
        (
            lambda: item_not_found("i", 3),
            Problem(
                "item_not_found",
                "Item with id 'i' not found. Items can be referred to while the response that they belong to is "
                "stored (store: true). Send the item itself in place of the reference.",
                "input[3].id",
            ),
        ),
        (
            lambda: references_too_large(1_000_000),
            Problem(
                "invalid_value",
                "The items that 'input' refers to have more than 1,000,000 bytes. "
                "Continue their response with previous_response_id.",
                "input",
            ),
        ),
        (
            lambda: references_too_many(16),
            Problem(
                "invalid_value",
                "The items that 'input' refers to belong to more than 16 responses. "
                "Continue the latest of them with previous_response_id, or send the items themselves.",
                "input",
            ),
        ),
        (
            lambda: not_counted("m"),
            Problem(
                "unsupported_parameter",
                "'model' is not supported here: the upstream of 'm' does not count the tokens of an input before it is "
                "sent. 'usage' of each response has their number",
                "model",
            ),
        ),
        (
            lambda: store_mismatch("r"),
            Problem(
                "store_mismatch",
                "Response 'r' was made with store=false, so a store=true response cannot continue it. "
                "Send the full input without previous_response_id, or set store to false.",
                "store",
            ),
        ),
        (
            lambda: model_not_found("m"),
            Problem(
                "model_not_found",
                "The model 'm' does not exist here. GET /v1/models lists the models that do.",
                "model",
            ),
        ),
        (
            lambda: connection_limit(1.5),
            Problem(
                "websocket_connection_limit_reached",
                "Responses websocket connection limit reached (1.5 minutes). "
                "Create a new websocket connection to continue.",
            ),
        ),
        (
            invalid_stream_id,
            Problem(
                "invalid_stream_id",
                "The 'stream_id' field must be a non-empty string with at most 256 characters and may only contain "
                "letters, numbers, underscores, hyphens, and periods.",
                "stream_id",
            ),
        ),
        (
            lambda: stream_limit(8),
            Problem(
                "websocket_stream_limit_reached",
                "This WebSocket connection has reached its maximum number of distinct stream IDs (8). "
                "Reuse an existing stream_id or open a new WebSocket connection.",
                "stream_id",
            ),
        ),
        (
            shutting_down,
            Problem(
                "websocket_connection_limit_reached",
                "The gateway is shutting down. Create a new websocket connection to continue.",
            ),
        ),
    ],
)
def test_a_problem_in_full(make: Callable[[], Problem], whole: Problem) -> None:
    """Clients show the sentence to people, so a change of it is meant."""
    assert make() == whole
