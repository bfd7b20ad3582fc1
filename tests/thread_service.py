"""A Messages server that keeps message threads, written from the rules alone: it shares no code with the gateway.

It holds to what is known of Anthropic's service: an id can be continued once, within 300 s, with the same settings; a
request that breaks a rule is noted in `violations` and refused; a reply is kept when it is whole. It keeps all marks of
earlier requests and allows four of them in a prompt, the strictest reading. What the model is asked is in `prompts`.

    service = ThreadService()
    service.faults.append("lost")            # what goes wrong with the next request
    async with providing(service.play) as provider: ...
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from tests.upstreams.provider import Exchange

Json = dict[str, Any]

BETA = "message-threads-2026-08-12"
LIFE_S = 300.0
MARKS = 4
FREE = {"messages", "max_tokens", "stream", "metadata", "cache_control", "thread", "system", "tools"}

#: Faults that come as a refusal: status, type, message, and the code in `details`.
REFUSALS: dict[str, tuple[int, str, str, str | None]] = {
    "not_found": (404, "not_found_error", "No thread state found for the requested previous_message_id.", "not_found"),
    "continued": (400, "invalid_request_error", "previous_message_id was already continued.", "already_continued"),
    "in_flight": (400, "invalid_request_error", "Another request continues it now.", "continue_in_flight"),
    "mismatch": (400, "invalid_request_error", "differing field(s): betas", "fingerprint_mismatch"),
    "unsupported": (400, "invalid_request_error", "This cannot be threaded.", "unsupported_request"),
    "conflict": (409, "invalid_request_error", "Another request continues it now.", "continue_in_flight"),
    "bare 404": (404, "not_found_error", "Not found.", None),
    "plain 400": (400, "invalid_request_error", "messages: something is wrong here", None),
    "unknown field": (400, "invalid_request_error", "thread: Extra inputs are not permitted", None),
    "unknown beta": (
        400,
        "invalid_request_error",
        f"Unexpected value(s) `{BETA}` for the `anthropic-beta` header",
        None,
    ),
    "rejected beta": (400, "invalid_request_error", f"capability_rejected: beta_header:{BETA}", None),
    "500": (500, "api_error", "Internal server error", None),
    "529": (529, "overloaded_error", "Overloaded", None),
}
#: Those that only a request with the field can meet; a server that has none of it has nothing to refuse.
THREADED = {"not_found", "continued", "in_flight", "mismatch", "unsupported", "conflict"} | {
    *("unknown field", "unknown beta", "rejected beta", "bare 404", "plain 400", "ignored", "late code")
}
#: Where a stream is cut, and whether the reply is kept all the same. (With `hold` it stops until its client is gone.)
CUTS = ("before the head", "after the start", "in the text", "before the end", "though kept")
OTHERS = ("late code", "late overload", "lost", "ignored")
Fault = str


class Kept:
    """A reply and all before it."""

    def __init__(self, conversation: Json, pinned: Json, until: float) -> None:
        self.conversation = conversation
        self.pinned = pinned
        self.until = until
        self.continued = False
        self.claimed = False


class Refusal(Exception):
    """What is answered instead of a stream."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class ThreadService:
    """The server. `reply` returns the blocks that the model says to a prompt; `now` is in seconds."""

    def __init__(
        self,
        reply: Callable[[Json], list[Json]] | None = None,
        *,
        has_threads: bool = True,
    ) -> None:
        self.faults: deque[Fault] = deque()
        self.prompts: list[Json] = []
        self.requests: list[tuple[str, int]] = []  # what each was, and its size
        self.bodies: list[Json] = []
        self.headers: list[dict[str, str]] = []
        self.violations: list[str] = []
        self.kept: dict[str, Kept] = {}
        self.stop_reason = "end_turn"
        self.usage: Json = {}
        self._reply = reply or self._say
        self.now = 1_000_000.0
        self.prefix = "msg_"
        self._has_threads = has_threads
        self._count = 0

    # --- one request -------------------------------------------------------------------------------------------------

    async def play(self, exchange: Exchange) -> None:
        """Answer one request."""
        body: Json = exchange.got.json
        thread = body.get("thread")
        kind = "stateless" if thread is None else str(thread["type"])
        self.requests.append((kind, len(exchange.got.body)))
        self.bodies.append(body)
        self.headers.append(exchange.got.headers)
        fault = self.faults.popleft() if self.faults else ""
        if fault in THREADED and thread is None:
            fault = ""
        if fault == "lost":
            self.kept.clear()
        if fault == "before the head":
            exchange.reset()
            return
        anchor: Kept | None = None
        try:
            self._check_beta(exchange.got.headers, body)
            self._fail(fault)
            ignores = fault == "ignored" or not self._has_threads
            if thread is not None and thread["type"] == "continue" and not ignores:
                anchor = self._claim(thread["previous_message_id"], body)
            conversation = self._rebuild(anchor, body)
        except Refusal as refusal:
            await self._refuse(exchange, refusal.kind)
            return
        try:
            await self._answer(exchange, body, conversation, anchor, fault)
        finally:
            if anchor is not None:
                anchor.claimed = False

    async def _answer(
        self, exchange: Exchange, body: Json, conversation: Json, anchor: Kept | None, fault: Fault
    ) -> None:
        self.prompts.append(unmarked(conversation))
        self._count += 1
        ident = f"{self.prefix}{self._count:024d}"
        blocks = self._reply({**self.prompts[-1], "count": self._count})
        events = self._events(ident, conversation, blocks)
        await exchange.head(request_id="req_1")
        if fault in ("late code", "late overload"):
            await exchange.chunk(events[0])
            await exchange.chunk(_event("error", self._error("not_found" if fault == "late code" else "529")))
            await exchange.end()
            return
        cut = {
            "after the start": 1,
            "in the text": 4,
            "before the end": len(events) - 1,
            "though kept": 2,
            "hold": 4,
        }.get(fault)
        if cut is None or fault == "though kept":
            self._keep(ident, body, conversation, blocks, anchor)
        for event in events[:cut]:
            await exchange.chunk(event)
        if fault == "hold":
            await exchange.gone.wait()
        if cut is None:
            await exchange.end()
        else:
            exchange.close()

    def _fail(self, fault: Fault) -> None:
        if fault in REFUSALS:
            raise Refusal(fault)

    async def _refuse(self, exchange: Exchange, kind: str) -> None:
        await exchange.head(REFUSALS[kind][0], content_type="application/json")
        await exchange.chunk(json.dumps(self._error(kind)).encode())
        await exchange.end()

    # --- what is kept ------------------------------------------------------------------------------------------------

    def _claim(self, ident: str, body: Json) -> Kept:
        kept = self.kept.get(ident)
        if kept is None or self.now >= kept.until:
            raise Refusal("not_found")
        if kept.claimed:
            raise Refusal("in_flight")
        if kept.continued:
            raise Refusal("continued")
        for name in ("system", "tools"):
            if name in body and unmarked(body[name]) != unmarked(kept.conversation.get(name)):
                raise Refusal("mismatch")
        if _pinned(body) != kept.pinned:
            raise Refusal("mismatch")
        roles = {message["role"] for message in body["messages"]}
        self._require(roles <= {"user", "system"}, f"a continuation holds messages of {roles}")
        kept.claimed = True
        return kept

    def _rebuild(self, anchor: Kept | None, body: Json) -> Json:
        conversation: Json = {name: body[name] for name in ("system", "tools") if name in body}
        before: list[Json] = []
        if anchor is not None:
            conversation = {**anchor.conversation, **conversation}
            before = anchor.conversation["messages"]
        conversation["messages"] = [*before, *body["messages"]]
        marks = json.dumps(conversation).count('"cache_control"') + ("cache_control" in body)
        self._require(marks <= MARKS, f"{marks} marks in one prompt")
        if anchor is None and body.get("thread", {}).get("type") == "continue" and not _is_paired(body["messages"]):
            raise Refusal("plain 400")  # the field is ignored: this server has not seen the call
        self._require(_is_paired(conversation["messages"]), "a call and its result are not together")
        self._require(bool(conversation["messages"]), "there are no messages")
        return conversation

    def _keep(self, ident: str, body: Json, conversation: Json, blocks: list[Json], anchor: Kept | None) -> None:
        if anchor is not None:
            anchor.continued = True
        if self.stop_reason == "refusal" or "iterations" in self.usage or "thread" not in body:
            return
        said = {"role": "assistant", "content": blocks}
        whole = {**conversation, "messages": [*conversation["messages"], said]}
        self.kept[ident] = Kept(whole, _pinned(body), self.now + LIFE_S)

    # --- the rules ---------------------------------------------------------------------------------------------------

    def _check_beta(self, headers: dict[str, str], body: Json) -> None:
        betas = [word.strip() for word in headers.get("anthropic-beta", "").split(",")]
        if "thread" not in body:
            self._require(not any(word.startswith("message-threads") for word in betas), "a beta without its field")
            return
        self._require(betas.count(BETA) == 1, f"the field without its beta: {betas}")
        thread = body["thread"]
        shapes = {"create": {"type"}, "continue": {"type", "previous_message_id"}}
        self._require(set(thread) == shapes.get(thread["type"]), f"an unknown thread: {thread}")

    def _require(self, condition: bool, breach: str) -> None:
        if not condition:
            self.violations.append(breach)
            raise Refusal("plain 400")

    # --- what is said ------------------------------------------------------------------------------------------------

    def _say(self, _: Json) -> list[Json]:
        return [{"type": "text", "text": f"r{self._count}"}]

    def _error(self, kind: str) -> Json:
        _, word, message, code = REFUSALS[kind]
        details = {} if code is None else {"details": {"error_code": f"thread_{code}"}}
        return {"type": "error", "error": {"type": word, "message": message, **details}, "request_id": "req_1"}

    def _events(self, ident: str, conversation: Json, blocks: list[Json]) -> list[bytes]:
        read = 5 + len(json.dumps(unmarked(conversation))) // 4
        usage = {"input_tokens": read // 2, "cache_read_input_tokens": read - read // 2, "output_tokens": 1}
        message = {"id": ident, "type": "message", "role": "assistant", "model": "m", "content": [], "usage": usage}
        events = [_event("message_start", {"message": {**message, "stop_reason": None, "stop_sequence": None}})]
        for index, block in enumerate(blocks):
            events += _block_events(index, block)
        calls = any(block["type"] == "tool_use" for block in blocks)
        reason = "tool_use" if calls and self.stop_reason == "end_turn" else self.stop_reason
        delta = {"stop_reason": reason, "stop_sequence": None}
        events.append(_event("message_delta", {"delta": delta, "usage": {"output_tokens": 3, **self.usage}}))
        return [*events, _event("message_stop", {})]


def _block_events(index: int, block: Json) -> list[bytes]:
    start, deltas = dict(block), list[Json]()
    match block["type"]:
        case "text":
            start["text"] = ""
            half = len(block["text"]) // 2
            deltas = [{"type": "text_delta", "text": text} for text in (block["text"][:half], block["text"][half:])]
        case "thinking":
            start |= {"thinking": "", "signature": ""}
            deltas = [
                {"type": "thinking_delta", "thinking": block["thinking"]},
                {"type": "signature_delta", "signature": block["signature"]},
            ]
        case "tool_use":
            start["input"] = {}
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        case _:
            pass
    return [
        _event("content_block_start", {"index": index, "content_block": start}),
        *(_event("content_block_delta", {"index": index, "delta": delta}) for delta in deltas),
        _event("content_block_stop", {"index": index}),
    ]


def _event(kind: str, fields: Json) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _pinned(body: Json) -> Json:
    return {name: value for name, value in body.items() if name not in FREE}


def _is_paired(messages: list[Json]) -> bool:
    """Tell whether each call has its result in the message behind it, and no result stands elsewhere."""
    open_calls: set[str] = set()
    for message in messages:
        blocks = message["content"] if isinstance(message["content"], list) else []
        results = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        if results != open_calls:
            return False
        open_calls = {block["id"] for block in blocks if block["type"] == "tool_use"}
    return True


def unmarked(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return the same JSON without marks of the cache."""
    if isinstance(value, dict):
        return {name: unmarked(member) for name, member in value.items() if name != "cache_control"}
    return [unmarked(member) for member in value] if isinstance(value, list) else value


def said(prompt: Json) -> list[tuple[str, str]]:
    """Return who said what in a prompt: texts, calls and results, in their order."""
    told: list[tuple[str, str]] = []
    for message in prompt["messages"]:
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            what = {"text": "text", "tool_use": "id", "tool_result": "tool_use_id", "thinking": "thinking"}
            told.append((message["role"], str(block[what[block["type"]]])))
    return told


def read(prompt: Json) -> str:
    """Return the text of `system`."""
    system = prompt.get("system", [])
    return system if isinstance(system, str) else "".join(block["text"] for block in system)
