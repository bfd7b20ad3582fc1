"""What a response holds can be asked of it, and what a server got wrong is not there."""

from __future__ import annotations

import json

from segue.client.stream_events import ClientResponse, FunctionCall


def response(*items: object) -> ClientResponse:
    return ClientResponse(
        id="r", status="completed", output=tuple(json.dumps(one).encode() for one in items), raw=b"{}"
    )


def test_the_text_and_the_calls_of_a_response() -> None:
    parts = [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "no"}]
    message = {"type": "message", "role": "assistant", "content": [*parts, {"type": "output_text", "text": "b"}]}
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    made = response(message, call, {"type": "reasoning", "summary": []})
    assert made.output_text == "ab"
    assert made.function_calls == (FunctionCall("c1", "look", "{}"),)


def test_items_of_another_form_say_nothing() -> None:
    told = {"type": "other", "text": '"function_call" "message"', "content": "message"}
    made = response({"type": "message", "content": "plain"}, {"type": "message", "content": [1]}, told)
    assert made.output_text == ""
    assert (
        response({"type": "function_call", "call_id": 1}, {"type": "x", "name": "function_call"}).function_calls == ()
    )
