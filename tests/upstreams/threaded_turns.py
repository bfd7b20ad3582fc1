"""Turns at an upstream that keeps message threads, and the double behind it (`tests.thread_service`)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from segue.dialects.messages.request import MessagesDialect
from segue.dialects.messages.thread_request import ThreadedDialect
from segue.dialects.render_cache import RenderCache
from segue.history.chains import History, Turn
from segue.protocol.events import Ended, Event
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.items import Item, calls_of
from segue.protocol.problems import Refused
from segue.protocol.requests import Settings, json_text
from segue.upstreams.continuation import ContinuationCounts
from segue.upstreams.http import HttpUpstream, Provider, UpstreamRuntime
from segue.upstreams.interface import Streaming, UpstreamRequest
from segue.upstreams.message_threads import MessageThreads
from segue.upstreams.retries import RetryPolicy
from tests.thread_service import ThreadService, said
from tests.upstreams.provider import providing

Json = dict[str, Any]
AT_ONCE = RetryPolicy(attempts=2, first_wait_s=0.001, longest_wait_s=0.001)
TOOLS: list[Json] = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]
INSTRUCTIONS = "Be brief."


def user(text: str) -> Item:
    return encode_item({"type": "message", "role": "user", "content": text})


def assistant(text: str) -> Item:
    return encode_item({"type": "message", "role": "assistant", "content": text})


def result(call_id: str) -> Item:
    return encode_item({"type": "function_call_output", "call_id": call_id, "output": "4 degrees"})


def encode_item(value: Json) -> Item:
    return Item(json.dumps(value).encode())


def speak(prompt: Json) -> list[Json]:
    """Answer with a number; first think, or then call a tool, if the last word says so."""
    count, word = prompt["count"], said(prompt)[-1][1]
    blocks: list[Json] = [{"type": "text", "text": f"r{count}"}]
    if word.startswith("think"):
        blocks.insert(0, {"type": "thinking", "thinking": f"hm{count}", "signature": "c2ln"})
    if word.startswith("call"):
        blocks.append({"type": "tool_use", "id": f"toolu_{count}", "name": "look", "input": {"at": count}})
    if word.startswith("blank"):
        blocks.append({"type": "text", "text": " "})
    return blocks


def told_by(turn: Turn) -> list[tuple[str, str]]:
    """Return who said what in a turn, as its client knows it."""
    return [told for item in (*turn.input, *turn.output) for told in told_by_item(item)]


def told_by_item(written: Item) -> list[tuple[str, str]]:
    """Return who said what in an item."""
    item = json.loads(written)
    match item["type"]:
        case "message":
            content = item["content"]
            text = content if isinstance(content, str) else "".join(part["text"] for part in content).rstrip()
            return [(item["role"], text)]
        case "reasoning":
            return [("assistant", item["summary"][0]["text"])]
        case "function_call":
            return [("assistant", item["call_id"])]
        case _:
            return [("user", item["call_id"])]


class Bench:
    """One upstream, its server, and the time; a group may run its turns (`runs`)."""

    def __init__(self, upstream: HttpUpstream, service: ThreadService) -> None:
        self.upstream = upstream
        self.runs: Streaming = upstream
        self.service = service
        self._drawn = 0

    def ask(self, parent: Turn | None, *items: Item, **changed: Any) -> UpstreamRequest:  # noqa: ANN401 - any setting
        self._drawn += 1
        response_id = new_response_id(self._drawn.to_bytes(ENTROPY_BYTES, "big"), None if parent is None else parent.id)
        given = {"instructions": json_text(INSTRUCTIONS), "tools": TOOLS, **changed}
        about = {name: given.pop(name) for name in ("tenant", "held", "credential") if name in given}
        tenant, held = about.get("tenant", "ann"), about.get("held", True)
        asked = Settings(**{"model": "m", **given})
        history, key = History(parent, items), about.get("credential")
        return UpstreamRequest(asked.model, response_id, tenant, history, asked, credential=key, held=held)

    async def run(self, request: UpstreamRequest) -> tuple[Turn | None, Ended]:
        """Run a turn; the turn is None if it has failed."""
        output: list[Event | Ended] = []
        async for batch in self.runs.stream(request):
            output += batch
        *events, ended = output
        assert isinstance(ended, Ended)
        if ended.status == "failed":
            return None, ended
        done = (one for one in events if isinstance(one, Event) and one.type == "response.output_item.done")
        return turn_of(request, tuple(one.item for one in done)), ended

    async def go_on(self, parent: Turn | None, *items: Item, **changed: Any) -> Turn:  # noqa: ANN401 - any setting
        turn, ended = await self.run(self.ask(parent, *items, **changed))
        assert turn is not None, ended
        return turn

    async def fails(self, parent: Turn, *items: Item, **changed: Any) -> str:  # noqa: ANN401 - any setting
        """Run a turn that comes to nothing; return its code."""
        try:
            turn, ended = await self.run(self.ask(parent, *items, **changed))
        except Refused as refused:
            return refused.problem.code
        assert turn is None
        assert ended.error is not None
        return ended.error.code

    async def two(self) -> Turn:
        """Hold the first two turns of a conversation, the second of which is a continuation."""
        turn = await self.go_on(await self.go_on(None, user("u1")), user("u2"))
        assert self.kinds == ["create", "continue"]
        return turn

    @property
    def kinds(self) -> list[str]:
        """What the requests were."""
        return [kind for kind, _ in self.service.requests]

    @property
    def counts(self) -> ContinuationCounts:
        assert self.upstream.continuations is not None
        return self.upstream.continuations


def turn_of(request: UpstreamRequest, output: tuple[Item, ...]) -> Turn:
    history = request.history
    return Turn(
        id=request.response_id,
        parent=history.parent,
        input=history.input,
        output=output,
        calls=calls_of(output),
        stored=False,
    )


@asynccontextmanager
async def bench(
    service: ThreadService | None = None,
    *,
    trusted: bool = True,
    budget: int = 1 << 20,
    key: str | None = "sk-1",
    **given: Any,  # noqa: ANN401 - settings of a provider
) -> AsyncIterator[Bench]:
    served = service or ThreadService()
    dialect = MessagesDialect("test")
    runtime = UpstreamRuntime(clock=lambda: served.now, jitter=lambda: 1.0, render_cache=RenderCache(budget))
    threads = MessageThreads(ThreadedDialect(dialect), trusted=trusted)
    async with providing(served.play) as server:
        configured = Provider(name="claude", base_url=server.url, retry=AT_ONCE, **given)
        upstream = HttpUpstream(configured, dialect, runtime, models=["m"], key=key, threads=threads)
        await upstream.start()
        try:
            yield Bench(upstream, served)
        finally:
            await upstream.aclose()
    assert not served.violations
