"""Reply streams as providers really send them, from `streams/` (one line an event), and the decoders that read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segue.dialects.chat.stream import ChatDecoder
from segue.dialects.interface import ReplyDecoder
from segue.dialects.messages.stream import MessagesDecoder
from segue.dialects.responses.stream import ResponsesDecoder
from segue.dialects.sealed_reasoning import unseal
from segue.http.sse import SseEvent
from tests.dialects.conversations import CHAT, MESSAGES, RESPONSE_ID, RESPONSES

Json = dict[str, Any]


STREAMS = Path(__file__).parent / "streams"


PROVIDERS = {"chat": CHAT, "messages": MESSAGES, "responses": RESPONSES}


CUSTOM = frozenset({"patch"})


def read(path: Path) -> tuple[list[SseEvent], Json]:
    *lines, last = map(json.loads, path.read_text("utf-8").splitlines())
    return [_event(line) for line in lines], last["expect"]


def dialect_of(name: str) -> str:
    return name.partition("/")[0]


def _event(line: Json) -> SseEvent:
    data = line["data"]
    return SseEvent(line.get("event", ""), (data if isinstance(data, str) else json.dumps(data)).encode())


def decoder(dialect: str, warnings: tuple[str, ...] = ()) -> ReplyDecoder:
    match dialect:
        case "chat":
            return ChatDecoder(RESPONSE_ID, CHAT, custom=CUSTOM, warnings=warnings)
        case "messages":
            return MessagesDecoder(RESPONSE_ID, MESSAGES, custom=CUSTOM, warnings=warnings)
        case _:
            return ResponsesDecoder(RESPONSE_ID, RESPONSES, warnings)


GOLDEN = {f"{path.parent.name}/{path.stem}": path for path in sorted(STREAMS.rglob("*.jsonl"))}
CHECKED = [name for name, path in GOLDEN.items() if "passes" not in read(path)[1]]


def outline(item: Json) -> Json:
    """What an expectation says of an item."""
    cut = {"cut": True} if item.get("status") == "incomplete" else {}
    match item["type"]:
        case "message":
            texts = [part.get("text") or "!" + part["refusal"] for part in item["content"]]
            logprobs = [entry for part in item["content"] for entry in part.get("logprobs", ())]
            return {"message": texts} | ({"logprobs": logprobs} if logprobs else {}) | cut
        case "reasoning":
            return {"reasoning": "".join(part["text"] for part in item["summary"]), "returned": _returned(item)}
        case "custom_tool_call":
            return {"custom": [item["call_id"], item["name"], item["input"]]} | cut
        case _:
            return {"call": [item["call_id"], item["name"], item["arguments"]]} | cut


def _returned(item: Json) -> object:
    sealed = item.get("encrypted_content")
    if sealed is None:
        return None
    read = unseal(sealed)
    assert read.provider in PROVIDERS.values()
    return json.loads(read.content) if read.content.startswith("{") else read.content
