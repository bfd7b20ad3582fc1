"""Items of the Responses API as the scripted model reads them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segue.upstreams.scripted_tasks.conversation import Answered, Called, Said, read_items


def read(*items: dict[str, Any]) -> list[object]:
    return list(read_items(json.dumps(item).encode() for item in items))


@pytest.mark.parametrize("kind", [{}, {"type": "message"}, {"type": None}])
def test_a_message_of_the_user_is_text_or_parts(kind: dict[str, Any]) -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "x"}, {"text": "b"}]
    assert read({**kind, "role": "user", "content": "hi"}) == [Said("hi")]
    assert read({**kind, "role": "user", "content": parts}) == [Said("ab")]


def test_calls_and_their_answers() -> None:
    assert read(
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": "{}", "status": "completed"},
        {"type": "function_call_output", "call_id": "c1", "output": "done"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "in parts"}]},
    ) == [Called("c1", "f", "{}"), Answered("c1", "done"), Answered("c2", "in parts")]


def test_everything_else_says_nothing_here() -> None:
    others: list[dict[str, Any]] = [
        {"role": "developer", "content": "be short"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]},
        {"type": "reasoning", "summary": [], "content": None},
        {"type": "weather_call_2", "call_id": 5, "name": ["x"], "output": {}},
    ]
    assert read(*others) == []
