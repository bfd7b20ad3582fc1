"""What models and clients of refused conversations say, and what is looked at in the requests that were sent."""

from __future__ import annotations

import json
from typing import Any

from segue.testing.response_schemas import Json
from tests.integration.providers import Turn, calls

THINKING: Json = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
REASONING: Json = {
    "id": "rs_1",
    "type": "reasoning",
    "summary": [],
    "encrypted_content": "gAAAAABo",
}


def out(call_id: str, output: object) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def made(call_id: str, arguments: str) -> Json:
    return {"type": "function_call", "call_id": call_id, "name": "look", "arguments": arguments}


def chat_calls(call_id: str, arguments: str) -> Turn:
    """A turn of a chat server whose model writes anything as arguments."""
    call = {"index": 0, "id": call_id, "type": "function", "function": {"name": "look", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def thinks(call_id: str) -> Turn:
    return [THINKING, *calls("messages", call_id, "look", {})]


def sse(*events: Json) -> bytes:
    numbered = ({**event, "sequence_number": number} for number, event in enumerate(events))
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in numbered)


#: An answer of a Responses server that was cut while its model still thought.
CUT_WHILE_THINKING = sse(
    {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "output": []}},
    {"type": "response.output_item.added", "output_index": 0, "item": REASONING},
    {"type": "response.output_item.done", "output_index": 0, "item": REASONING},
    {
        "type": "response.incomplete",
        "response": {
            "id": "resp_1",
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [REASONING],
        },
    },
)


HALF: Json = {
    "id": "fc_1",
    "type": "function_call",
    "status": "incomplete",
    "call_id": "A1",
    "name": "look",
    "arguments": '{"a":',
}
#: An answer of a Responses server that was cut while its model wrote a call.
CUT_IN_A_CALL = sse(
    {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "output": []}},
    {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": HALF | {"status": "in_progress", "arguments": ""},
    },
    {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "output_index": 0, "delta": '{"a":'},
    {"type": "response.function_call_arguments.done", "item_id": "fc_1", "output_index": 0, "arguments": '{"a":'},
    {"type": "response.output_item.done", "output_index": 0, "item": HALF},
    {
        "type": "response.incomplete",
        "response": {
            "id": "resp_1",
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": [HALF],
        },
    },
)


def said_of_calls(body: Json) -> list[Any]:
    """What each item of the input says: a message its text, a call its id, an output its output."""
    return [
        item["content"][0]["text"] if "content" in item else item.get("output") or item["call_id"]
        for item in body["input"]
    ]


def thinking(body: Json) -> object:
    """The kind of thinking, and the kinds of the blocks that the assistant said."""
    said = [block["type"] for message in body["messages"][1::2] for block in message["content"]]
    return body.get("thinking", {}).get("type"), said


def roles(body: Json) -> list[str]:
    return [message["role"] for message in body["messages"]]


def contents(body: Json) -> list[Any]:
    return [message["content"] for message in body["messages"]]


def arguments(body: Json) -> list[str]:
    return [call["function"]["arguments"] for message in body["messages"] for call in message.get("tool_calls", ())]


def outputs(body: Json) -> list[tuple[Any, Any]]:
    """The calls' arguments with their outputs, found by their ids."""
    if "input" in body:
        told = {item["call_id"]: item["output"] for item in body["input"] if item.get("type") == "function_call_output"}
        return [
            (json.loads(item["arguments"]), told[item["call_id"]])
            for item in body["input"]
            if item.get("type") == "function_call"
        ]
    blocks = [block for message in body["messages"] for block in message["content"] or () if isinstance(block, dict)]
    if any(block["type"] == "tool_use" for block in blocks):
        told = {block["tool_use_id"]: block["content"][0]["text"] for block in blocks if "tool_use_id" in block}
        return [(block["input"], told[block["id"]]) for block in blocks if block["type"] == "tool_use"]
    told = {message["tool_call_id"]: message["content"] for message in body["messages"] if message["role"] == "tool"}
    return [
        (json.loads(call["function"]["arguments"]), told[call["id"]])
        for message in body["messages"]
        for call in message.get("tool_calls", ())
    ]
