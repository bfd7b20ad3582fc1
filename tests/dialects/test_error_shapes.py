"""What providers say when they refuse or fail, in the shapes they say it; and what in a stream is an error at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from segue.dialects.error_shapes import MAX_MESSAGE_CHARS, error_of, find_error, read_error
from segue.dialects.provider_errors import ProviderError, code_of, failure_of
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
        (404, {"error": "model 'x' not found"}, "model_not_found", "model 'x' not found"),
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


#: Errors as providers put them into a stream that began with 200, what they are called, and what they say.
IN_STREAMS: list[tuple[str, Any, str, str]] = [
    ("an object", {"error": {"message": "Slow", "code": 429}}, "rate_limit_exceeded", "Slow"),
    ("its number as text", {"error": {"message": "Slow", "code": "429"}}, "rate_limit_exceeded", "Slow"),
    ("a rejection", {"error": {"message": "No", "code": 400}}, "upstream_rejected", "No"),
    ("no credit", {"error": {"message": "Pay", "code": 402}}, "insufficient_quota", "Pay"),
    ("no model", {"error": {"message": "Which?", "code": 404}}, "model_not_found", "Which?"),
    ("a refused key", {"error": {"message": "Who?", "code": 401}}, "upstream_unauthorized", "Who?"),
    ("a broken server", {"error": {"message": "Oh", "code": 500}}, "upstream_error", "Oh"),
    ("a text", {"error": "model is loading"}, "upstream_error", "model is loading"),
    ("in a list", [{"error": {"code": 503, "message": "Busy", "status": "UNAVAILABLE"}}], "server_overloaded", "Busy"),
    (
        "a text beside a status",
        {"error": "Too Many Requests", "status": 429},
        "rate_limit_exceeded",
        "Too Many Requests",
    ),
    (
        "a text beside a message",
        {"statusCode": 401, "error": "Unauthorized", "message": "Who?"},
        "upstream_unauthorized",
        "Who?",
    ),
    ("true", {"error": True, "message": "It broke"}, "upstream_error", "It broke"),
    (
        "vLLM",
        {"object": "error", "message": "Dead", "type": "InternalServerError", "code": 500},
        "upstream_error",
        "Dead",
    ),
    ("vLLM, the request", {"object": "error", "message": "No", "code": 400}, "upstream_rejected", "No"),
    ("a typed message", {"type": "rate_limit_error", "message": "Slow"}, "rate_limit_exceeded", "Slow"),
    ("a code alone", {"code": 429}, "rate_limit_exceeded", ""),
    ("a code as text alone", {"code": "429"}, "rate_limit_exceeded", ""),
    ("a word alone", {"code": "RESOURCE_EXHAUSTED"}, "rate_limit_exceeded", ""),
    ("a code of its own", {"code": 10013, "message": "No", "sid": "x"}, "upstream_error", "No"),
    ("a message alone", {"message": "Oh"}, "upstream_error", "Oh"),
    ("a status", {"status": 503, "title": "x"}, "server_overloaded", ""),
    ("FastAPI", {"detail": "broken"}, "upstream_error", "broken"),
    (
        "FastAPI, of a request",
        {"detail": [{"msg": "field required", "type": "missing"}]},
        "upstream_error",
        "field required",
    ),
    ("Baidu", {"error_code": 336003, "error_msg": "No"}, "upstream_error", "No"),
    ("a type of error", {"error_type": "overloaded_error", "error_message": "Busy"}, "server_overloaded", "Busy"),
    (
        "MiniMax",
        {"choices": None, "base_resp": {"status_code": 1004, "status_msg": "no login"}},
        "upstream_unauthorized",
        "no login",
    ),
    ("MiniMax, busy", {"base_resp": {"status_code": 1002, "status_msg": "limit"}}, "rate_limit_exceeded", "limit"),
    ("MiniMax, unknown", {"base_resp": {"status_code": 7777, "status_msg": "x"}}, "upstream_error", "x"),
    ("Anthropic", {"type": "error", "error": {"type": "overloaded_error", "message": "B"}}, "server_overloaded", "B"),
    ("without a type", {"error": {"type": "overloaded_error", "message": "B"}}, "server_overloaded", "B"),
    ("Cloudflare", {"success": False, "errors": [{"code": 10000, "message": "Who?"}]}, "upstream_error", "Who?"),
    (
        "OpenRouter",
        {
            "error": {
                "message": "Provider returned error",
                "code": 502,
                "metadata": {"raw": '{"error":{"message":"Oh"}}'},
            }
        },
        "upstream_error",
        "Provider returned error: Oh",
    ),
    (
        "OpenRouter, plain",
        {"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "slow down"}}},
        "rate_limit_exceeded",
        "Provider returned error: slow down",
    ),
    (
        "OpenRouter, too long",
        {"error": {"message": "P", "code": 400, "metadata": {"raw": {"message": "prompt is too long: 9 > 8"}}}},
        "context_length_exceeded",
        "P: prompt is too long: 9 > 8",
    ),
    (
        "Gemini",
        {"error": {"code": 400, "message": "Bad", "details": [{"reason": "API_KEY_INVALID"}]}},
        "upstream_unauthorized",
        "Bad",
    ),
    ("Bedrock", {"__type": "ThrottlingException", "message": "Slow"}, "rate_limit_exceeded", "Slow"),
    ("DashScope", {"code": "InvalidApiKey", "message": "Who?", "request_id": "x"}, "upstream_unauthorized", "Who?"),
]


@pytest.mark.parametrize(
    ("event", "code", "message"), [case[1:] for case in IN_STREAMS], ids=[c[0] for c in IN_STREAMS]
)
def test_an_error_in_a_stream(event: object, code: str, message: str) -> None:
    error = find_error(json.dumps(event).encode())
    assert error is not None
    assert (failure_of(error).code, error.message) == (code, message)


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"choices": []},
        {"choices": [], "usage": {"prompt_tokens": 5}},
        {"id": "x", "object": "chat.completion.chunk", "choices": [], "prompt_filter_results": []},
        {"code": 0, "message": "Success", "object": "chat.completion.chunk", "choices": []},
        {"code": 200, "object": "chat.completion.chunk"},
        {"code": "0"},
        {"code": "success"},
        {"code": None, "error": None, "detail": None, "message": ""},
        {"error": {}, "errors": [], "error_code": 0, "error_msg": ""},
        {"base_resp": {"status_code": 0, "status_msg": ""}},
        {"base_resp": None},
        {"base_resp": []},
        {"type": "ping"},
        {"type": "vendor.notice", "message": "hi", "detail": "more"},
        {"type": "vendor.state", "status": "in_progress"},
        {"type": 7, "message": "hi"},
        {"status": 200},
        {"code": True},
        [],
        [7],
        "text",
        None,
    ],
)
def test_what_is_no_error(event: object) -> None:
    assert find_error(json.dumps(event).encode()) is None


def test_what_is_no_json_is_no_error_of_a_stream() -> None:
    assert find_error(b"<html>") is None
    assert find_error(b"") is None


def test_a_page_of_a_proxy_is_no_error_object() -> None:
    assert read_error(b"<html>502</html>") == ProviderError()
    assert code_of(ProviderError(), 502) == "upstream_error"


def test_a_code_beside_the_type_is_read() -> None:
    """As in Anthropic's errors of message threads, and in no other shape."""
    error = {"type": "not_found_error", "message": "gone", "details": {"error_code": "thread_not_found"}}
    assert read_error(json.dumps({"type": "error", "error": error}).encode()).detail == "thread_not_found"
    odd: list[Any] = [{"error_code": 7}, {}, [], "thread_not_found"]
    for details in odd:
        assert not read_error(json.dumps({"error": {**error, "details": details}}).encode()).detail


def test_an_event_that_is_called_an_error_may_be_plain_text() -> None:
    assert read_error(b" out of memory\n") == ProviderError("out of memory")
    assert read_error(b'{"error":') == ProviderError()


def test_a_long_message_is_cut() -> None:
    assert len(error_of({"error": {"message": "x" * 10_000}}).message) == MAX_MESSAGE_CHARS + 1
    assert len(read_error(b"x" * 10_000).message) == MAX_MESSAGE_CHARS + 1


def test_a_message_of_the_greatest_length_is_not_cut() -> None:
    text = "x" * MAX_MESSAGE_CHARS
    assert error_of({"error": {"message": text}}).message == read_error(text.encode()).message == text


@pytest.mark.parametrize("name", ["type", "object"])
def test_an_event_may_say_no_more_than_that_it_is_an_error(name: str) -> None:
    assert find_error(b'{"%b":"error"}' % name.encode()) is not None
    assert find_error(b'{"%b":"event"}' % name.encode()) is None


def test_everything_that_an_error_says_is_kept() -> None:
    said = {"type": "error", "error": {"message": "No", "code": "invalid_value", "param": "tools", "retry_after": 3}}
    assert error_of(said) == ProviderError("No", ("invalid_value", "error"), "tools", None, 3.0)
    assert error_of({"error": {"code": "503", "message": "Busy"}}) == ProviderError("Busy", status=503)
    assert error_of({"error": {"code": "1" * 50}}) == ProviderError(words=("1" * 50,))


def test_errors_within_errors_are_read_to_a_depth() -> None:
    deep: Any = {"message": "deep"}
    for _ in range(200):
        deep = {"error": deep}
    assert error_of(deep) == ProviderError()


@given(body=hostile_bytes | json_values.map(lambda value: json.dumps({"error": value}).encode()))
def test_any_body_is_read(body: bytes) -> None:
    assert code_of(read_error(body), 400)
    assert failure_of(read_error(body)).message


@given(value=json_values)
def test_any_event_is_read(value: object) -> None:
    for event in (
        value,
        {"error": value},
        {"code": value},
        {"base_resp": value},
        {"error": {"metadata": {"raw": value}}},
    ):
        error = find_error(json.dumps(event).encode())
        assert error is None or failure_of(error).message
