"""Servers to measure: a model that recalls code words, and servers that keep no history or are none at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from segue.http.heads import Line
from segue.testing.provider import (
    ACCEPTED,
    Answer,
    MessageScript,
    ReceivedRequest,
    Script,
    SocketAnswer,
    SocketMessage,
    answer_with,
)
from segue.testing.replies import ProviderReply, ReplyContext, make_reply
from segue.testing.response_events import said
from segue.upstreams.scripted_recall import recalled_word

Json = dict[str, Any]


def recalling(history: Sequence[Json]) -> Sequence[Json]:
    """Answer the question for a code word, as a model does that sees the history, and everything else with OK."""
    items = [json.dumps(item).encode() for item in history]
    return [said(recalled_word(items, lambda: items) or "OK.")]


def stateless(
    *,
    upgrades: bool = True,
    has_messages: bool = False,
    answer: Callable[[Sequence[Json]], Sequence[Json]] = recalling,
) -> tuple[Script, MessageScript]:
    """A server that takes an id with status 200 and forgets what it stands for; `has_messages`: threads likewise."""

    def reply(data: bytes) -> ProviderReply:
        create = json.loads(data)
        items = [{"id": f"msg_{at}", **item} for at, item in enumerate(answer(create["input"]))]
        return make_reply("responses", items, ReplyContext(request=create, identity="1", created_at=1, seed="1"))

    def message(data: bytes) -> ProviderReply:
        asked = json.loads(data)
        text = answer(asked["messages"])[0]["content"][0]["text"]
        context = ReplyContext(request={"model": asked["model"]}, identity="1", created_at=1, seed="1")
        return make_reply("messages", [{"type": "text", "text": text}], context)

    def script(request: ReceivedRequest) -> Answer:
        if request.upgrades:
            return ACCEPTED if upgrades else Answer(status=426, reason=b"Upgrade Required")
        if has_messages and request.target.endswith(b"/messages"):
            return answer_with(message(request.body or b""), streamed=True)
        if not request.target.endswith(b"/responses"):
            return Answer(status=404, reason=b"Not Found", pieces=(b"<html>",))
        try:
            return answer_with(reply(request.body or b""), streamed=True)
        except ValueError:  # a compressed body
            return Answer(status=400, reason=b"Bad Request", pieces=(b'{"error":{"code":"invalid_json"}}',))

    def messages(message: SocketMessage) -> SocketAnswer:
        return SocketAnswer(messages=reply(message.data).messages)

    return script, messages


def dripping() -> tuple[Script, MessageScript]:
    """A server that never ends: over HTTP a comment now and then, over a WebSocket an event that says nothing."""
    lines = (Line(b"Content-Type", b"text/event-stream"),)

    def script(request: ReceivedRequest) -> Answer:
        return ACCEPTED if request.upgrades else Answer(lines=lines, pieces=(b": wait\n",) * 10_000, pace_s=0.005)

    def messages(_: SocketMessage) -> SocketAnswer:
        return SocketAnswer(messages=(b'{"type":"response.in_progress"}',) * 10_000, pace_s=0.005)

    return script, messages


def hanging() -> tuple[Script, MessageScript]:
    """A server that never answers."""
    return (lambda _: Answer(before=asyncio.Event())), (lambda _: SocketAnswer())
