"""Errors of servers in every form, and hostile ones."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.client.recovery import BodyKind, TurnFault
from segue.client.transports.server_errors import ServerWords, WordReader, body_kind
from tests.strategies import any_text, examples

READER = WordReader(("sk-secret-key", "short"))
NOW = 1445412480.0
NOT_FOUND: dict[str, Any] = {
    "code": "previous_response_not_found",
    "message": "Previous response with id 'r' not found.",
}
WORDS = ServerWords(status=400, **NOT_FOUND)
encode = msgspec.json.encode


@pytest.mark.parametrize(
    "event",
    [
        {"type": "error", "status": 400, "error": NOT_FOUND},
        {"type": "error", "status_code": 400, "error": NOT_FOUND | {"type": "invalid_request_error"}},
        {"type": "error", "error": NOT_FOUND | {"status": 400}},
        {"type": "response.error", "error": NOT_FOUND | {"status_code": 400}},
        {"type": "error", "status": 400} | NOT_FOUND,
        {"type": "response.error", "status": 400} | NOT_FOUND,
        {"error": NOT_FOUND, "status": 400},
        {"type": None, "error": NOT_FOUND, "status": 400},
    ],
)
def test_an_error_event_is_read_nested_and_flat(event: dict[str, Any]) -> None:
    assert READER.read_event(encode(event), NOW) == WORDS


@pytest.mark.parametrize(
    ("event", "seconds"),
    [
        ({"error": {"message": "m", "headers": {"Retry-After": "2"}}}, 2.0),
        ({"type": "error", "headers": {"retry-after": 3}, "error": {"message": "m"}}, 3.0),
        ({"type": "error", "headers": {"retry-after-ms": "1500"}, "message": "m"}, 1.5),
        ({"type": "error", "headers": {"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, "message": "m"}, 30.0),
        ({"type": "error", "headers": ["retry-after"], "message": "m"}, None),
        ({"type": "error", "headers": {"retry-after": {"a": 1}, "x": None}, "message": "m"}, None),
    ],
)
def test_headers_stand_in_the_error_or_beside_it(event: dict[str, Any], seconds: float | None) -> None:
    assert READER.read_event(encode(event), NOW) == ServerWords(message="m", retry_after_s=seconds)


@pytest.mark.parametrize(
    "data",
    [
        b'{"type":"response.completed","response":{"error":{"code":"x"}}}',
        b'{"type":"response.failed","error":{"code":"x"}}',
        b'{"error":null}',
        b"{}",
        b"[]",
        b"nonsense",
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_what_is_no_error_event_is_none(data: bytes) -> None:
    assert READER.read_event(data, NOW) is None


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (encode({"error": NOT_FOUND}), ServerWords(**NOT_FOUND)),
        (encode({"error": {"message": "m", "type": "server_error", "code": None, "param": "input"}}),
         ServerWords(code="server_error", message="m", param="input")),
        (encode({"error": {"message": "m", "code": 503}}), ServerWords(message="m", status=503)),
        (encode({"error": "Unauthorized"}), ServerWords(message="Unauthorized")),
        (encode({"message": "m", "code": "c"}), ServerWords(message="m", code="c")),
        (encode({"detail": "Not Found"}), ServerWords(message="Not Found")),
        (encode({"detail": {"message": "m"}}), ServerWords(message="m")),
        (encode({"error": {"code": ["x"], "message": {"a": 1}, "param": 7}, "status": True}), ServerWords()),
        (encode({"error": [1, 2]}), ServerWords()),
        (encode(["x"]), ServerWords()),
        (b" upstream  timed\nout ", ServerWords(message="upstream timed out")),
        (b"<html>gateway</html>", ServerWords()),
        (b"", ServerWords()),
        (b"\xff\xfe", ServerWords(message="��")),
        (encode({"status": 200, "error": {"message": "m"}}), ServerWords(message="m")),
    ],
)  # fmt: skip
def test_a_body_is_read(data: bytes, words: ServerWords) -> None:
    assert READER.read_body(data, {}, NOW) == words


def test_the_headers_of_an_answer_count_more_than_those_in_its_body() -> None:
    data = encode({"error": {"message": "m", "headers": {"retry-after": "9"}}})
    assert READER.read_body(data, {"retry-after": "4"}, NOW).retry_after_s == 4.0
    assert READER.read_body(data, {}, NOW).retry_after_s == 9.0
    assert READER.read_body(b"text", {"retry-after": "4"}, NOW).retry_after_s == 4.0


def test_a_key_that_was_sent_is_not_shown() -> None:
    data = encode({"error": {"message": "Incorrect key: sk-secret-key is too short.", "code": "sk-secret-key"}})
    assert READER.read_body(data, {}, NOW) == ServerWords(message="Incorrect key: … is too short.", code="…")
    assert READER.read_body(b"no sk-secret-key", {}, NOW).message == "no …"


def test_what_is_long_is_cut() -> None:
    words = READER.read_body(encode({"error": {"message": "m" * 10_000, "code": "c" * 10_000}}), {}, NOW)
    assert words.message == "m" * 600 + "…"
    assert words.code == "c" * 200 + "…"


def test_a_fault_has_the_servers_words_and_the_status_of_the_answer() -> None:
    words = ServerWords(status=503, code="c", message="m", retry_after_s=1.0, param="p")
    assert words.fault("refused", "http", status=429, body_kind="json") == TurnFault(
        kind="refused",
        transport="http",
        status=429,
        code="c",
        message="m",
        param="p",
        retry_after_s=1.0,
        body_kind="json",
    )
    assert words.fault("failed", "websocket", delivered="no").status == 503


@pytest.mark.parametrize(
    ("content_type", "data", "kind"),
    [
        ("text/html; charset=utf-8", b"hello", "html"),
        ("application/json", b"\n <!doctype html>", "html"),
        ("", b'{"a":1}', "json"),
        ("application/json", b'{"a":', "other"),
        ("text/plain", b"Not Found", "other"),
        ("text/html", b" \n", "none"),
        ("", b"", "none"),
        ("", b"[" * 1_000_000 + b"]" * 1_000_000, "other"),
    ],
)
def test_the_kind_of_a_body(content_type: str, data: bytes, kind: BodyKind) -> None:
    assert body_kind(content_type, data) == kind


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "error", "code", "status", "message", "detail", "headers", "retry-after", "param"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(_json)
@settings(max_examples=examples(1000))
def test_no_error_is_stumbled_over(value: object) -> None:
    data = encode(value)
    READER.read_event(data, NOW)
    words = READER.read_body(data, {}, NOW)
    assert words.status is None or 400 <= words.status < 600
    assert words.retry_after_s is None or words.retry_after_s >= 0
    encode(words)


@given(any_text)
def test_no_text_is_stumbled_over(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    encode(READER.read_body(data, {"retry-after": text}, NOW))
    body_kind(text, data)
