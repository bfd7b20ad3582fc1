"""Streams of one response that keep every rule, and the objects in them: material for tests of the checker."""

from __future__ import annotations

from copy import deepcopy
from typing import TypeAlias

from segue.testing.response_schemas import Json

Frames: TypeAlias = "list[Json]"

NULLABLE = (
    *("completed_at", "incomplete_details", "previous_response_id", "instructions", "error", "reasoning", "usage"),
    *("max_output_tokens", "max_tool_calls", "safety_identifier", "prompt_cache_key"),
)
USAGE = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
USAGE_DETAILS = {"input_tokens_details": {"cached_tokens": 4}, "output_tokens_details": {"reasoning_tokens": 2}}


def usage(**changes: int) -> Json:
    return USAGE | USAGE_DETAILS | changes


def response(status: str = "in_progress", /, **changes: object) -> Json:
    tool = {"type": "function", "name": "look", "description": None, "parameters": None, "strict": None}
    ends: Json = {
        "completed": {"completed_at": 101, "usage": usage()},
        "failed": {"error": {"code": "server_error", "message": "the upstream went away"}},
        "incomplete": {"incomplete_details": {"reason": "max_output_tokens"}, "usage": usage()},
    }
    plain: Json = (
        dict.fromkeys(NULLABLE)
        | {"id": "resp_1", "object": "response", "created_at": 100, "status": status, "model": "scripted", "output": []}
        | {"tools": [tool], "tool_choice": "auto", "parallel_tool_calls": True, "text": {"format": {"type": "text"}}}
        | {"top_p": 1.0, "temperature": 1, "presence_penalty": 0.0, "frequency_penalty": 0, "top_logprobs": 0}
        | {"truncation": "disabled", "store": True, "background": False, "service_tier": "default", "metadata": {}}
        | ends.get(status, {})
        | changes
    )
    return plain


def event(kind: str, **fields: object) -> Json:
    return {"type": f"response.{kind}"} | fields


def stream(*inner: Json, status: str = "completed", **changes: object) -> Frames:
    """A whole response around the events of its items, numbered."""
    output = [frame["item"] for frame in inner if frame["type"] == "response.output_item.done"]
    frames = [
        event("created", response=response(**changes)),
        event("in_progress", response=response(**changes)),
        *inner,
        event(status, response=response(status, output=output, **changes)),
    ]
    return numbered(frames)


def numbered(frames: Frames) -> Frames:
    return [deepcopy(frame) | {"sequence_number": number} for number, frame in enumerate(frames)]


def item_events(index: int, item: Json, inner: Frames, **empty: object) -> Frames:
    """An item around the events of its parts; `empty` is what differs when it is added."""
    at = {"output_index": index, "item_id": item["id"]}
    return [
        event("output_item.added", output_index=index, item=item | empty),
        *(frame | at for frame in inner),
        event("output_item.done", output_index=index, item=item),
    ]


def texts(name: str, key: str, pieces: list[str], **where: int) -> Frames:
    return [
        *(event(f"{name}.delta", delta=piece, **where) for piece in pieces),
        event(f"{name}.done", **{key: "".join(pieces)}, **where),
    ]


def message(index: int, *parts: Json, status: str = "completed") -> Frames:
    parts = parts or ({"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []},)
    inner: Frames = []
    for number, part in enumerate(parts):
        empty = {"refusal": ""} if part["type"] == "refusal" else {"text": "", "annotations": []}
        body = texts(part["type"], next(iter(empty)), ["Hel", "lo"], content_index=number)
        body[-1:-1] = [
            event("output_text.annotation.added", content_index=number, annotation_index=place, annotation=note)
            for place, note in enumerate(part.get("annotations", []))
        ]
        added, done = (event(f"content_part.{what}", content_index=number) for what in ("added", "done"))
        inner += [added | {"part": part | empty}, *body, done | {"part": part}]
    item = {"type": "message", "id": f"msg_{index}", "role": "assistant", "status": status, "content": list(parts)}
    return item_events(index, item, inner, content=[], status="in_progress")


def call(index: int, kind: str = "function_call", *, status: str = "completed") -> Frames:
    key = "arguments" if kind == "function_call" else "input"
    item = {"type": kind, "id": f"call_{index}", "call_id": f"id_{index}", "name": "look", key: "{}", "status": status}
    return item_events(index, item, texts(f"{kind}_{key}", key, ["{", "}"]), **{key: ""}, status="in_progress")


def reasoning(index: int) -> Frames:
    summary, thought = {"type": "summary_text", "text": "In short"}, {"type": "reasoning_text", "text": "Hm, so"}
    inner = [
        event("reasoning_summary_part.added", summary_index=0, part=summary | {"text": ""}),
        *texts("reasoning_summary_text", "text", ["In ", "short"], summary_index=0),
        event("reasoning_summary_part.done", summary_index=0, part=summary),
        event("content_part.added", content_index=0, part=thought | {"text": ""}),
        *texts("reasoning", "text", ["Hm,", " so"], content_index=0),
        event("content_part.done", content_index=0, part=thought),
    ]
    item = {"type": "reasoning", "id": f"rs_{index}", "summary": [summary], "content": [thought]}
    return item_events(index, item, inner, summary=[], content=[])


def queued() -> Frames:
    frames = stream(*message(0), background=True)
    frames.insert(1, event("queued", response=response("queued", background=True)))
    return numbered(frames)


NOTE = {"type": "url_citation", "url": "http://x", "start_index": 0, "end_index": 1, "title": "x"}
CITED = {"type": "output_text", "text": "Hello", "annotations": [NOTE]}
CUSTOM: Json = {"tools": [{"type": "custom", "name": "patch"}], "tool_choice": {"type": "custom", "name": "patch"}}
COMPACTION = {"type": "compaction", "id": "cmp_0", "encrypted_content": "…"}
GOOD: dict[str, Frames] = {
    "text": stream(*message(0)),
    "tool calls": stream(*call(0), *call(1)),
    "text and call": stream(*reasoning(0), *message(1), *call(2)),
    "two parts": stream(*message(0, CITED, {"type": "refusal", "refusal": "Hello"})),
    "custom tool": stream(*call(0, "custom_tool_call"), **CUSTOM),
    "compaction": stream(*item_events(0, COMPACTION, [])),
    "warm-up": stream(),
    "background": queued(),
    "cut": stream(*message(0), *call(1, status="incomplete"), status="incomplete"),
    "failed": stream(*message(0, status="incomplete"), status="failed"),
}
ERROR = {"type": "invalid_request_error", "code": "x", "message": "m"}
WS_ERROR: Json = {"type": "error", "status": 400, "error": ERROR}
SSE_ERROR: Json = {"type": "error", "sequence_number": 0, "error": ERROR | {"param": None}}
