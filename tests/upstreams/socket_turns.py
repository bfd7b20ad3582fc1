"""Turns at a `WebSocketUpstream` whose provider is a double of a Responses server, as the gateway runs them."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from segue.dialects.render_cache import RenderCache
from segue.dialects.responses.request import ResponsesDialect
from segue.dialects.sealed_reasoning import unseal
from segue.history.chains import History, Turn
from segue.protocol.events import Event
from segue.protocol.ids import ENTROPY_BYTES, ResponseId, new_response_id
from segue.protocol.items import Item, calls_of, user_message
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import Settings
from segue.protocol.responses import encode_echo
from segue.protocol.turns import Finished, TurnStream
from segue.testing.responses_rules import Execution
from segue.testing.responses_server import ScriptedResponsesServer
from segue.upstreams.http import Provider, UpstreamRuntime
from segue.upstreams.interface import UpstreamRequest
from segue.upstreams.retries import RetryPolicy
from segue.upstreams.socket_lanes import IdleLimits
from segue.upstreams.websocket import WebSocketUpstream

Json = dict[str, Any]

READER = "responses@double"
SETTINGS = Settings(model="m")
HI = user_message("Hi")


@asynccontextmanager
async def connected(
    server: ScriptedResponsesServer | str,
    *,
    limits: IdleLimits | None = None,
    warms_up: bool = False,
    key: str | None = "sk-1",
    **provider: Any,  # noqa: ANN401 - fields of a provider
) -> AsyncIterator[WebSocketUpstream]:
    """An upstream for a server."""
    url = server if isinstance(server, str) else server.base_url
    at_once = RetryPolicy(attempts=3, first_wait_s=0.001, longest_wait_s=0.001)
    configured = msgspec.convert({"name": "acme", "base_url": url, "retry": at_once, **provider}, Provider)
    runtime = UpstreamRuntime(clock=lambda: 0.0, jitter=lambda: 1.0, render_cache=RenderCache(1 << 24))
    dialect = ResponsesDialect(READER)
    one = WebSocketUpstream(configured, dialect, runtime, models=["m"], key=key, limits=limits, warms_up=warms_up)
    await one.start()
    try:
        yield one
    finally:
        await one.aclose()


class Conversation:
    """The turns of one client: its `parent` is the newest, and what the model must be asked is known at any time."""

    _numbers = itertools.count(1)

    def __init__(self, upstream: WebSocketUpstream, tenant: str = "ann", parent: Turn | None = None) -> None:
        self.upstream = upstream
        self.tenant = tenant
        self.parent = parent

    def fork(self) -> Conversation:
        """Another conversation that goes on from here."""
        return Conversation(self.upstream, self.tenant, self.parent)

    def request(self, *items: Item, asked: Settings = SETTINGS, held: bool = True, **more: Any) -> UpstreamRequest:  # noqa: ANN401 - fields of the request
        """The next turn as an upstream is asked to run it."""
        parent = self.parent
        response_id = new_response_id(
            next(self._numbers).to_bytes(ENTROPY_BYTES, "big"), None if parent is None else parent.id
        )
        return UpstreamRequest(
            more.pop("model", "m"), response_id, self.tenant, History(parent, items or (HI,)), asked, held=held, **more
        )

    async def run(self, *items: Item, asked: Settings = SETTINGS, held: bool = True, **more: Any) -> Finished:  # noqa: ANN401 - as above
        """Run the next turn. Unless it fails, it is the parent of the one after it."""
        request = self.request(*items, asked=asked, held=held, **more)
        finished = await finish(self.upstream, request)
        if finished.status != "failed":
            self.parent = turn_of(request, finished.output)
        else:
            self.upstream.forget(self.tenant, [request.response_id])
        return finished

    async def warm_up(self, *items: Item) -> int:
        """Have a prompt prepared; return how many tokens it had. The turn is the parent of the next one."""
        request = self.request(*items)
        counted = await self.upstream.prefill(request)
        self.parent = turn_of(request, ())
        return counted.input_tokens

    async def refused(self, *items: Item, asked: Settings = SETTINGS, **more: Any) -> Problem:  # noqa: ANN401 - as above
        """Run the next turn, which is refused."""
        with pytest.raises(Refused) as caught:
            await self.run(*items, asked=asked, **more)
        return caught.value.problem

    @property
    def items(self) -> list[Json]:
        """The history up to here, as the model knows it."""
        return known(History(self.parent, ()).items())


async def finish(upstream: WebSocketUpstream, request: UpstreamRequest) -> Finished:
    """Run a turn to its end."""
    echo = encode_echo(request.settings, store=False, background=False, thread=None)
    stream = TurnStream(request.response_id, None, echo, 0.0, encrypted=True, sources=None)
    stream.open()
    events: list[Event] = []
    async for batch in upstream.stream(request):
        events += stream.feed(batch)
    assert stream.ended is not None, "an upstream ends its turn"
    return stream.close(stream.ended, 0.0)


def turn_of(request: UpstreamRequest, output: tuple[Item, ...]) -> Turn:
    """The turn that a request has become."""
    history = request.history
    calls = calls_of((*history.input, *output))
    return Turn(
        id=request.response_id, parent=history.parent, input=history.input, output=output, calls=calls, stored=False
    )


def known(items: Iterable[Item]) -> list[Json]:
    """Items as the model's server has them: its own reasoning without our mark."""
    return [_unsealed(json.loads(item)) for item in items]


def _unsealed(item: Json) -> Json:
    if item.get("type") != "reasoning" or not item.get("encrypted_content"):
        return item
    return item | {"encrypted_content": unseal(item["encrypted_content"]).content}


def prompts(executions: Sequence[Execution]) -> list[list[Json]]:
    """What the model was asked each time."""
    return [list(one.history) for one in executions]


def texts_of(finished: Finished) -> str:
    """The text of an answer."""
    items = [json.loads(item) for item in finished.output]
    return "".join(part["text"] for item in items for part in item.get("content") or () if "text" in part)


def id_of(turn: Turn | None) -> ResponseId:
    """The id of a turn that is there."""
    assert turn is not None
    return turn.id
