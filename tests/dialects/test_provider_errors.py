"""What providers say when they refuse or fail, in the shapes they say it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from segue.dialects.provider_errors import MAX_MESSAGE_CHARS, ProviderError, code_of, failure_of, find_error, read_error
from segue.protocol.responses import Failure
from tests.strategies import hostile_bytes, json_values


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (
            400,
            {"error": {"message": "Too long", "type": "invalid_request_error", "code": "context_length_exceeded"}},
            "context_length_exceeded",
            "Too long",
        ),
        (
            400,
            {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9 > 8"}},
            "context_length_exceeded",
            "prompt is too long: 9 > 8",
        ),
        (
            400,
            {"error": {"code": 400, "message": "the request exceeds …", "type": "exceed_context_size_error"}},
            "context_length_exceeded",
            "the request exceeds …",
        ),
        (529, {"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}}, "server_overloaded", "Busy"),
        (401, {"error": {"message": "Who?", "code": "invalid_api_key"}}, "upstream_unauthorized", "Who?"),
        (429, {"error": {"message": "Pay", "type": "insufficient_quota"}}, "insufficient_quota", "Pay"),
        (
            429,
            [{"error": {"code": 429, "message": "Slow", "status": "RESOURCE_EXHAUSTED"}}],
            "rate_limit_exceeded",
            "Slow",
        ),
        (404, {"error": "model 'x' not found"}, "upstream_rejected", "model 'x' not found"),
        (422, {"detail": [{"msg": "field required"}]}, "upstream_rejected", "field required"),
        (422, {"detail": "field required"}, "upstream_rejected", "field required"),
        (400, {"object": "error", "message": "No", "type": "BadRequestError"}, "upstream_rejected", "No"),
        (503, {}, "server_overloaded", ""),
        (500, None, "upstream_error", ""),
        (504, "gateway", "upstream_timeout", "gateway"),
    ],
)
def test_an_error_reply(status: int, body: object, code: str, message: str) -> None:
    error = read_error(json.dumps(body).encode())
    assert (code_of(error, status), error.message) == (code, message)


def test_a_page_of_a_proxy_is_no_error_object() -> None:
    assert read_error(b"<html>502</html>") == ProviderError()
    assert code_of(ProviderError(), 502) == "upstream_error"
    assert failure_of(ProviderError()) == Failure("upstream_error", "The upstream failed without saying why.")


def test_a_long_message_is_cut() -> None:
    assert len(find_error({"error": {"message": "x" * 10_000}}).message) == MAX_MESSAGE_CHARS + 1


@given(body=hostile_bytes | json_values.map(lambda value: json.dumps({"error": value}).encode()))
def test_any_body_is_read(body: bytes) -> None:
    assert code_of(read_error(body), 400)
    assert failure_of(read_error(body)).message
