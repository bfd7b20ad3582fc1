"""Writes a provider's reply in the form of its API: as a stream of events, and as one JSON object.

You give the model's output as that API's own JSON: the items of Responses, the message of Chat Completions, the content
blocks of Messages, the parts of Gemini. Text and arguments are cut into pieces of 3 to 12 characters, like tokens;
encrypted or signed values come in one piece. Head lines differ from reply to reply, like those of a real provider. This
module uses none of segue's own stream code, since it makes the input that the code is tested with.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any, Literal, assert_never

import msgspec

from segue.http.heads import Line

Api = Literal["responses", "chat", "messages", "gemini"]
Json = dict[str, Any]

_STREAM = Line(b"Content-Type", b"text/event-stream; charset=utf-8")
_WHOLE = Line(b"Content-Type", b"application/json")


class ProviderReply(msgspec.Struct, frozen=True, kw_only=True):
    """One reply: `events` for a streamed request, `whole` for any other. The server adds the framing."""

    lines: tuple[Line, ...]
    events: tuple[bytes, ...]
    whole: bytes

    def head_lines(self, *, streamed: bool) -> tuple[Line, ...]:
        """Return the head lines, Content-Type included."""
        return (_STREAM if streamed else _WHOLE, *self.lines)

    @property
    def messages(self) -> tuple[bytes, ...]:
        """The data of each event: what WebSocket mode sends as messages."""
        return tuple(event.partition(b"data: ")[2].rstrip() for event in self.events)


class ReplyContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a reply takes from its request, its id and time, and the seed of what is random in it."""

    request: Json
    identity: str
    created_at: int
    seed: str


def make_reply(api: Api, output: Any, asked: ReplyContext) -> ProviderReply:  # noqa: ANN401 - the JSON of any API
    """Write the model's output as `api` sends it."""
    chosen = random.Random(f"reply:{asked.seed}")
    events, whole = _write(api, output, asked, chosen)
    return ProviderReply(lines=_lines(api, chosen), events=tuple(events), whole=whole)


def _write(api: Api, output: Any, asked: ReplyContext, chosen: random.Random) -> tuple[list[bytes], bytes]:  # noqa: ANN401 - as above
    match api:
        case "responses":
            return _Responses(asked, chosen).write(output)
        case "chat":
            return _Chat(asked, chosen).write(output)
        case "messages":
            return _Messages(asked, chosen).write(output)
        case "gemini":
            return _Gemini(asked, chosen).write(output)
        case _:
            assert_never(api)


def pieces(text: str, chosen: random.Random, low: int = 3, high: int = 12) -> Iterator[str]:
    """Cut a text into pieces of so many characters."""
    at = 0
    while at < len(text):
        size = chosen.randint(low, high)
        yield text[at : at + size]
        at += size


def compact(value: object) -> str:
    """Write JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _usage(request: Json, output: object) -> tuple[int, int]:
    """Return about how many tokens went in and came out."""
    return len(compact(request)) // 4, max(1, len(compact(output)) // 4)


def _text(chosen: random.Random, size: int) -> str:
    return "".join(chosen.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=size))


def _lines(api: Api, chosen: random.Random) -> tuple[Line, ...]:
    stamp = f"Sun, 22 Nov 2026 21:{chosen.randint(0, 59):02}:{chosen.randint(0, 59):02} GMT"
    made = [("Date", stamp), ("Server", "edge")]
    if api in {"responses", "chat"}:
        made += [
            ("x-request-id", f"req_{chosen.getrandbits(128):032x}"),
            ("openai-processing-ms", str(chosen.randint(90, 900))),
            ("openai-version", "2020-10-01"),
            ("x-ratelimit-remaining-requests", str(chosen.randint(4000, 5000))),
            ("x-ratelimit-remaining-tokens", str(chosen.randint(10**5, 10**6))),
        ]
    elif api == "messages":
        made += [
            ("request-id", f"req_{_text(chosen, 24)}"),
            ("anthropic-ratelimit-requests-remaining", str(chosen.randint(4000, 5000))),
            ("anthropic-ratelimit-input-tokens-remaining", str(chosen.randint(10**5, 10**6))),
            ("anthropic-organization-id", "0b6c6f7e-31f7-4f0e-a2a3-6a0a3e0f7c11"),
        ]
    else:
        made += [("Vary", "Origin"), ("X-Content-Type-Options", "nosniff")]
    made += [("Cache-Control", "no-cache"), ("via", "1.1 edge")]
    return tuple(Line(name.encode(), value.encode()) for name, value in made)


class _Responses:
    """Events of the Responses API, with sequence numbers and the padding that hides the length of a token."""

    def __init__(self, asked: ReplyContext, chosen: random.Random) -> None:
        self._asked = asked
        self._chosen = chosen
        self._events: list[bytes] = []

    def write(self, items: list[Json]) -> tuple[list[bytes], bytes]:
        """Return the events and the response object."""
        for kind in ("response.created", "response.in_progress"):
            self._event(kind, {"response": self._response("in_progress", [])})
        for index, item in enumerate(items):
            self._item(item, index)
        done = self._response("completed", items)
        self._event("response.completed", {"response": done})
        return self._events, compact(done).encode()

    def _response(self, status: str, items: list[Json]) -> Json:
        request, asked = self._asked.request, self._asked
        used = None
        if status == "completed":
            up, down = _usage(request, items)
            used = {
                "input_tokens": up,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": down,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": up + down,
            }
        return {
            "id": asked.identity,
            "object": "response",
            "created_at": asked.created_at,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": request.get("instructions"),
            "max_output_tokens": request.get("max_output_tokens"),
            "model": request.get("model"),
            "output": items,
            "parallel_tool_calls": request.get("parallel_tool_calls", True),
            "previous_response_id": request.get("previous_response_id"),
            "reasoning": request.get("reasoning"),
            "store": request.get("store", True),
            "temperature": 1.0,
            "text": request.get("text", {"format": {"type": "text"}}),
            "tool_choice": request.get("tool_choice", "auto"),
            "tools": request.get("tools", []),
            "top_p": 1.0,
            "truncation": "disabled",
            "usage": used,
            "user": None,
            "metadata": {},
        }

    def _event(self, kind: str, fields: Json) -> None:
        data = compact({"type": kind, "sequence_number": len(self._events), **fields})
        self._events.append(f"event: {kind}\ndata: {data}\n\n".encode())

    def _item(self, item: Json, index: int) -> None:
        hollow = {**item, "status": "in_progress"} if "status" in item else dict(item)
        place = {"item_id": item["id"], "output_index": index}
        match item["type"]:
            case "reasoning":
                hollow = {**item, "summary": []}
                self._event("response.output_item.added", {"output_index": index, "item": hollow})
                self._summary(item, place)
            case "message":
                hollow["content"] = []
                self._event("response.output_item.added", {"output_index": index, "item": hollow})
                self._content(item, place)
            case "function_call":
                hollow["arguments"] = ""
                self._event("response.output_item.added", {"output_index": index, "item": hollow})
                self._deltas("response.function_call_arguments.delta", item["arguments"], place)
                done = {**place, "arguments": item["arguments"]}
                self._event("response.function_call_arguments.done", done)
            case _:
                self._event("response.output_item.added", {"output_index": index, "item": hollow})
        self._event("response.output_item.done", {"output_index": index, "item": item})

    def _summary(self, item: Json, place: Json) -> None:
        for at, part in enumerate(item.get("summary", [])):
            where = {**place, "summary_index": at}
            self._event("response.reasoning_summary_part.added", {**where, "part": {**part, "text": ""}})
            self._deltas("response.reasoning_summary_text.delta", part["text"], where)
            self._event("response.reasoning_summary_text.done", {**where, "text": part["text"]})
            self._event("response.reasoning_summary_part.done", {**where, "part": part})

    def _content(self, item: Json, place: Json) -> None:
        for at, part in enumerate(item["content"]):
            where = {**place, "content_index": at}
            self._event("response.content_part.added", {**where, "part": {**part, "text": ""}})
            self._deltas("response.output_text.delta", part["text"], where, {"logprobs": []})
            self._event("response.output_text.done", {**where, "text": part["text"], "logprobs": []})
            self._event("response.content_part.done", {**where, "part": part})

    def _deltas(self, kind: str, text: str, place: Json, more: Json | None = None) -> None:
        for piece in pieces(text, self._chosen):
            hidden = _text(self._chosen, max(1, 16 - len(piece)))
            self._event(kind, {**place, "delta": piece, **(more or {}), "obfuscation": hidden})


class _Chat:
    """Chunks of Chat Completions."""

    def __init__(self, asked: ReplyContext, chosen: random.Random) -> None:
        self._asked = asked
        self._chosen = chosen
        self._events: list[bytes] = []

    def write(self, message: Json) -> tuple[list[bytes], bytes]:
        """Return the chunks and the completion object."""
        calls = message.get("tool_calls") or []
        self._chunk({"role": "assistant", "content": "", "refusal": None})
        for piece in pieces(message.get("content") or "", self._chosen):
            self._chunk({"content": piece})
        for call in calls:
            function = call["function"]
            start = {"index": call.get("index", 0), "id": call["id"], "type": "function"}
            self._chunk({"tool_calls": [{**start, "function": {"name": function["name"], "arguments": ""}}]})
            for piece in pieces(function["arguments"], self._chosen):
                self._chunk({"tool_calls": [{"index": start["index"], "function": {"arguments": piece}}]})
        finish = "tool_calls" if calls else "stop"
        self._chunk({}, finish)
        up, down = _usage(self._asked.request, message)
        used = {"prompt_tokens": up, "completion_tokens": down, "total_tokens": up + down}
        if self._asked.request.get("stream_options"):
            self._data({**self._frame("chat.completion.chunk"), "choices": [], "usage": used})
        self._events.append(b"data: [DONE]\n\n")
        said = {"role": "assistant", "content": message.get("content"), "refusal": None}
        if calls:
            said["tool_calls"] = [{key: value for key, value in call.items() if key != "index"} for call in calls]
        choice = {"index": 0, "message": said, "logprobs": None, "finish_reason": finish}
        return self._events, compact({**self._frame("chat.completion"), "choices": [choice], "usage": used}).encode()

    def _frame(self, kind: str) -> Json:
        asked = self._asked
        return {
            "id": asked.identity,
            "object": kind,
            "created": asked.created_at,
            "model": asked.request.get("model"),
            "service_tier": "default",
            "system_fingerprint": "fp_50cad350e4",
        }

    def _chunk(self, delta: Json, finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        hidden = _text(self._chosen, self._chosen.randint(1, 12))
        self._data({**self._frame("chat.completion.chunk"), "choices": [choice], "usage": None, "obfuscation": hidden})

    def _data(self, value: Json) -> None:
        self._events.append(f"data: {compact(value)}\n\n".encode())


class _Messages:
    """Events of the Messages API."""

    def __init__(self, asked: ReplyContext, chosen: random.Random) -> None:
        self._asked = asked
        self._chosen = chosen
        self._events: list[bytes] = []

    def write(self, blocks: list[Json]) -> tuple[list[bytes], bytes]:
        """Return the events and the message object."""
        up, down = _usage(self._asked.request, blocks)
        cached = {"cache_creation_input_tokens": up // 20, "cache_read_input_tokens": up - up // 20}
        used = {"input_tokens": 4, **cached, "output_tokens": 1, "service_tier": "standard"}
        called = any(block["type"] == "tool_use" for block in blocks)
        stop = {"stop_reason": "tool_use" if called else "end_turn", "stop_sequence": None}
        hollow = {**self._message([]), "stop_reason": None, "stop_sequence": None, "usage": used}
        self._event("message_start", {"message": hollow})
        for index, block in enumerate(blocks):
            self._block(block, index)
            if not index:
                self._event("ping", {})
        self._event("message_delta", {"delta": stop, "usage": {**used, "output_tokens": down}})
        self._event("message_stop", {})
        whole = {**self._message(blocks), **stop, "usage": {**used, "output_tokens": down}}
        return self._events, compact(whole).encode()

    def _message(self, blocks: list[Json]) -> Json:
        model = self._asked.request.get("model")
        return {"model": model, "id": self._asked.identity, "type": "message", "role": "assistant", "content": blocks}

    def _event(self, kind: str, fields: Json) -> None:
        self._events.append(f"event: {kind}\ndata: {compact({'type': kind, **fields})}\n\n".encode())

    def _block(self, block: Json, index: int) -> None:
        hollow: Json = dict(block)
        deltas: list[Json] = []
        match block["type"]:
            case "thinking":
                hollow |= {"thinking": "", "signature": ""}
                deltas = [{"type": "thinking_delta", "thinking": piece} for piece in self._cut(block["thinking"])]
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
            case "text":
                hollow["text"] = ""
                deltas = [{"type": "text_delta", "text": piece} for piece in self._cut(block["text"])]
            case "tool_use":
                hollow["input"] = {}
                streamed = json.dumps(block["input"], ensure_ascii=False)
                deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *self._cut(streamed))]
            case _:
                pass  # a block of a kind that is not streamed in pieces comes whole
        self._event("content_block_start", {"index": index, "content_block": hollow})
        for delta in deltas:
            self._event("content_block_delta", {"index": index, "delta": delta})
        self._event("content_block_stop", {"index": index})

    def _cut(self, text: str) -> Iterator[str]:
        return pieces(text, self._chosen)


class _Gemini:
    """Chunks of Gemini: longer pieces, and a function call comes whole."""

    def __init__(self, asked: ReplyContext, chosen: random.Random) -> None:
        self._asked = asked
        self._chosen = chosen

    def write(self, parts: list[Json]) -> tuple[list[bytes], bytes]:
        """Return the chunks and the response object."""
        up, down = _usage(self._asked.request, parts)
        used = {"promptTokenCount": up, "candidatesTokenCount": down, "totalTokenCount": up + down}
        chunks: list[Json] = []
        for part in parts:
            if "text" in part:
                cut = pieces(part["text"], self._chosen, 12, 60)
                chunks += [self._response([{**part, "text": piece}], used) for piece in cut]
            else:
                chunks.append(self._response([part], used))
        chunks.append(self._response([{"text": ""}], used, "STOP"))
        events = [f"data: {json.dumps(chunk, ensure_ascii=False)}\r\n\r\n".encode() for chunk in chunks]
        return events, json.dumps(self._response(parts, used, "STOP"), indent=2, ensure_ascii=False).encode()

    def _response(self, parts: list[Json], used: Json, finish: str | None = None) -> Json:
        candidate: Json = {"content": {"parts": parts, "role": "model"}, "index": 0}
        if finish:
            candidate["finishReason"] = finish
        return {
            "candidates": [candidate],
            "usageMetadata": used,
            "modelVersion": "gemini-2.5-pro",
            "responseId": self._asked.identity,
        }
