"""The door of the Messages API as the gateway uses it."""

from __future__ import annotations

import json

from segue.dialects.doors import Door, DoorRequest
from segue.dialects.messages.door import MessagesDoor
from segue.protocol.ids import ResponseId, message_id
from segue.protocol.problems import Problem
from segue.protocol.request_size import DEFAULT_LIMITS

DOOR: Door = MessagesDoor()
BODY = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "hi"}]}


def test_the_version_and_the_betas_go_on_with_a_request() -> None:
    """Those of threads do not: the gateway keeps them itself."""
    headers = (
        ("Anthropic-Version", "2023-06-01"),
        ("anthropic-beta", "a-1, message-threads-2026-08-12"),
        ("anthropic-beta", "b-2"),
        ("x-api-key", "secret"),
    )
    assert DOOR.passed_headers(headers) == (("anthropic-version", "2023-06-01"), ("anthropic-beta", "a-1,b-2"))
    assert DOOR.passed_headers((("anthropic-beta", "message-threads-2026-08-12"),)) == ()


def test_a_request_is_read_and_its_reply_written() -> None:
    asked = DOOR.read(json.dumps({**BODY, "stream": True}).encode(), speaks=lambda _: False, limits=DEFAULT_LIMITS)
    assert isinstance(asked, DoorRequest)
    ident = ResponseId("resp_" + "0" * 40)
    assert b"event: error" in DOOR.writer(asked, ident, 0).failed(Problem("server_error", "x"), kind="x", status=500)
    assert message_id(ident) == "msg_" + "0" * 40
    assert isinstance(DOOR.read(b"{}", speaks=lambda _: False, limits=DEFAULT_LIMITS), Problem)


def test_only_a_count_needs_no_limit() -> None:
    body = json.dumps(BODY | {"max_tokens": None}).encode()
    assert isinstance(DOOR.read(body, speaks=lambda _: False, limits=DEFAULT_LIMITS), Problem)
    counting = MessagesDoor(counting=True)
    assert isinstance(counting.read(body, speaks=lambda _: False, limits=DEFAULT_LIMITS), DoorRequest)
