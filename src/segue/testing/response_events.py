"""Writes the events of one response of the Responses API, for servers that play a model.

The items of the output are given whole. A text and the arguments of a call come in pieces of a fixed size, so the same
output always gives the same events. Every object has all keys that Open Responses asks for. This module uses none of
segue's own protocol code, since clients are tested with what it writes. Not here: who asked, and what may be asked
(`responses_rules`); and the replies of other APIs (`replies`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

Json = dict[str, Any]

_PIECE_CHARACTERS = 8
#: What a response says of a setting that the request leaves out.
_DEFAULTS: Json = {
    "instructions": None,
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "truncation": "disabled",
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "reasoning": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "previous_response_id": None,
    "store": True,
    "service_tier": "default",
    "metadata": {},
    "safety_identifier": None,
    "prompt_cache_key": None,
}


class ResponseIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What stays the same in all events of a response: the request, the id and the time."""

    create: Json
    response_id: str
    created_at: int


# --- items that a scripted model says --------------------------------------------------------------------------------


def said(text: str) -> Json:
    """Make a message of the assistant. A server gives it its id."""
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "message", "status": "completed", "role": "assistant", "content": [part]}


def called(name: str, arguments: str = "{}", *, call_id: str) -> Json:
    """Make a call of a function. A server gives it its id."""
    return {
        "type": "function_call",
        "status": "completed",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def thought(summary: str) -> Json:
    """Make a piece of reasoning. A server gives it its id, and seals it where the request includes that."""
    return {"type": "reasoning", "summary": [{"type": "summary_text", "text": summary}]}


# --- objects and events ----------------------------------------------------------------------------------------------


def response_object(identity: ResponseIdentity, status: str, output: Sequence[Json], **changes: object) -> Json:
    """Make the response as it is at one moment."""
    create = identity.create
    echo = {key: create[key] if create.get(key) is not None else default for key, default in _DEFAULTS.items()}
    return {
        "id": identity.response_id,
        "object": "response",
        "created_at": identity.created_at,
        "completed_at": identity.created_at if status == "completed" else None,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": create.get("model"),
        "output": list(output),
        "usage": None if status == "in_progress" else _usage(create, output),
        **echo,
        **changes,
    }


def response_events(
    identity: ResponseIdentity, output: Sequence[Json], *, status: str = "completed", **changes: object
) -> list[Json]:
    """Make all events of a response, numbered from 0; `changes` are members of the last response object."""
    begun = response_object(identity, "in_progress", [])
    events = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        *(event for index, item in enumerate(output) for event in _item_events(item, index)),
        {"type": f"response.{status}", "response": response_object(identity, status, output, **changes)},
    ]
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _usage(create: Json, output: Sequence[Json]) -> Json:
    tokens_in = len(msgspec.json.encode(create.get("input"))) // 4
    tokens_out = len(msgspec.json.encode(output)) // 4 if output else 0
    return {
        "input_tokens": tokens_in,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens_out,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens_in + tokens_out,
    }


def _item_events(item: Json, index: int) -> Iterator[Json]:
    at: Json = {"item_id": item["id"], "output_index": index}
    hollow = {**item, "status": "in_progress"} if "status" in item else dict(item)
    inner: Iterator[Json] = iter(())
    match item["type"]:
        case "message":
            hollow["content"] = []
            inner = _text_events(item["content"], {**at, "content_index": 0})
        case "function_call":
            hollow["arguments"] = ""
            inner = _argument_events(item["arguments"], at)
        case "reasoning":
            hollow["summary"] = []
            inner = _summary_events(item["summary"], {**at, "summary_index": 0})
        case _:
            pass  # an item of another kind comes whole
    yield {"type": "response.output_item.added", "output_index": index, "item": hollow}
    yield from inner
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _text_events(content: Sequence[Json], at: Json) -> Iterator[Json]:
    (part,) = content
    yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
    for piece in _pieces(part["text"]):
        yield {"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []}
    yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": part}


def _argument_events(arguments: str, at: Json) -> Iterator[Json]:
    for piece in _pieces(arguments):
        yield {"type": "response.function_call_arguments.delta", **at, "delta": piece}
    yield {"type": "response.function_call_arguments.done", **at, "arguments": arguments}


def _summary_events(summary: Sequence[Json], at: Json) -> Iterator[Json]:
    (part,) = summary
    yield {"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}}
    for piece in _pieces(part["text"]):
        yield {"type": "response.reasoning_summary_text.delta", **at, "delta": piece}
    yield {"type": "response.reasoning_summary_text.done", **at, "text": part["text"]}
    yield {"type": "response.reasoning_summary_part.done", **at, "part": part}


def _pieces(text: str) -> Iterator[str]:
    for at in range(0, len(text), _PIECE_CHARACTERS):
        yield text[at : at + _PIECE_CHARACTERS]
