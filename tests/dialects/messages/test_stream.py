"""Streams of Anthropic Messages, event by event."""

from __future__ import annotations

import json

import pytest

from segue.http.sse import SseEvent
from tests.dialects.conversations import response, run
from tests.dialects.golden import Json, decoder


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("upstream_protocol_error", [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}}]),
        ("upstream_protocol_error", [{"type": "content_block_stop", "index": 0}]),
        (
            "upstream_protocol_error",
            [{"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use"}}],
        ),
        ("upstream_protocol_error", [{"type": "content_block_start", "index": 0}]),
        ("upstream_error", [{"type": "error", "error": {"type": "api_error", "message": "Internal"}}]),
    ],
)
def test_a_messages_server_is_held_to_the_order_of_blocks(code: str, lines: list[Json]) -> None:
    events = [SseEvent(line["type"], json.dumps(line).encode()) for line in lines]
    assert response(run(decoder("messages"), events))["error"]["code"] == code
