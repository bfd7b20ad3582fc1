"""Warm-ups: turns that make no output but can be continued, in both spellings and over every transport; and the model,
which gets to see them if it can make use of them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence

import pytest

from segue.engine import ModelFile, find_model
from segue.engine.upstream import LocalUpstream
from segue.protocol.events import Ended, OutputWriter
from segue.protocol.problems import Problem, Refused
from segue.protocol.responses import Usage, usage
from segue.testing.protocol_checker import Json, StreamChecker
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.scripted import MODEL, say
from tests.integration.clients import Http, Socket
from tests.integration.gateway import Running, Start, listening

SPELLINGS: list[Json] = [
    {"generate": False},
    {"prompt_cache_options": {"prewarm": True}},
    {"prompt_cache_options": {"prewarm": True, "mode": "explicit"}, "generate": True},
]


async def warm(gateway: Running, transport: str, **fields: object) -> Json:
    """Ask for a warm-up, and return its response."""
    if transport == "json":
        return (await (await gateway.http()).create(**fields)).body
    turn: StreamChecker
    if transport == "sse":
        turn = await (await gateway.http()).stream(**fields)
    else:
        turn = await (await gateway.socket()).ask(**fields)
    kinds = [frame["type"] for frame in turn.frames]
    assert kinds == ["response.created", "response.in_progress", "response.completed"]
    assert turn.response is not None
    return turn.response


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("transport", ["json", "sse", "websocket"])
async def test_a_warm_up_makes_no_output_and_calls_no_model(start: Start, transport: str, spelling: Json) -> None:
    gateway = await start(say("ready"))
    response = await warm(gateway, transport, input="hi", instructions="Be brief.", **spelling)
    assert (response["status"], response["output"], response["usage"]["output_tokens"]) == ("completed", [], 0)
    assert (gateway.upstream.started, len(gateway.upstream.prefilled)) == (0, 1)
    http = await gateway.http()
    child = (await http.create(input="go", previous_response_id=response["id"])).body
    assert (child["previous_response_id"], child["instructions"]) == (response["id"], None)
    assert [len(items) for items in gateway.seen()] == [2]


async def test_a_chain_may_be_warmed_up_in_its_middle(start: Start) -> None:
    """The model is shown the whole of it, under the id that it will be continued by."""
    gateway = await start(say("one"), say("two"))
    socket = await gateway.socket(lanes="a")
    parent: str | None = None
    for fields in ({"input": "1"}, {"input": "2", "generate": False}, {"input": "3"}):
        turn = await socket.ask(**fields, store=False, stream_id="a", previous_response_id=parent)
        assert turn.response is not None
        parent = turn.response["id"]
    (prefilled,) = gateway.upstream.prefilled
    assert len([json.loads(item) for item in prefilled.history.items()]) == 3
    assert [len(items) for items in gateway.seen()] == [1, 4]


async def test_a_warm_up_needs_no_input(start: Start) -> None:
    """Instructions and tools may be all there is to get ready for."""
    gateway = await start()
    response = await warm(gateway, "websocket", instructions="Be brief.", generate=False)
    assert response["instructions"] == "Be brief."


class Warming:
    """A model that takes its time to get ready, or refuses."""

    models: Sequence[str] = (MODEL,)

    def __init__(self, problem: Problem | None = None) -> None:
        self.began = asyncio.Event()
        self.ready = asyncio.Event()
        self.stopped = asyncio.Event()
        self._problem = problem

    async def start(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to release."""

    async def prefill(self, request: UpstreamRequest) -> Usage:
        """Take in the history."""
        self.began.set()
        if self._problem is not None:
            raise Refused(self._problem)
        try:
            await self.ready.wait()
        except asyncio.CancelledError:
            self.stopped.set()
            raise
        return usage(7, 0)

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Say nothing much."""
        writer = OutputWriter(request.response_id)
        yield [*writer.text("hi"), *writer.end_item(), Ended("completed", usage(1, 1))]


async def test_what_the_model_took_in_is_counted() -> None:
    model = Warming()
    async with listening(model) as (_, url), Http(url) as http:
        asked = asyncio.create_task(http.create(input="1", generate=False))
        await model.began.wait()
        model.ready.set()
        assert (await asked).body["usage"]["input_tokens"] == 7


async def test_a_warm_up_that_the_model_refuses_is_refused() -> None:
    model = Warming(Problem("context_length_exceeded", "Too long for this model.", "input"))
    async with listening(model) as (_, url), Http(url) as http, Socket(url) as socket:
        assert (await http.create(input="1", generate=False)).error["code"] == "context_length_exceeded"
        assert (await socket.ask(input="1", generate=False)).error is not None


async def test_a_client_that_goes_away_stops_its_warm_up() -> None:
    model = Warming()
    async with listening(model) as (_, url), Socket(url) as socket:
        await socket.create(input="1", generate=False)
        await model.began.wait()
        socket.vanish()
        await model.stopped.wait()


async def test_a_model_that_cannot_prefill_is_not_asked_to() -> None:
    class Bare:
        models: Sequence[str] = (MODEL,)

        def __init__(self) -> None:
            self._other = Warming()

        async def start(self) -> None:
            """Nothing to do."""

        async def aclose(self) -> None:
            """Nothing to release."""

        def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
            return self._other.stream(request)

    async with listening(Bare()) as (_, url), Http(url) as http:
        first = (await http.create(input="1", generate=False)).body
        assert first["usage"]["total_tokens"] == 0
        assert (await http.create(input="2", previous_response_id=first["id"])).status == 200


@pytest.mark.local_model
async def test_what_the_local_model_has_taken_in_is_not_read_again() -> None:
    """Its warm-up counts the tokens that it read; the turn after it finds them."""
    path = find_model()
    assert path is not None
    upstream = LocalUpstream(ModelFile(path, context=1024))
    settings: Json = {"model": "smollm2", "instructions": "Answer in one word. " * 20, "store": False}
    async with listening(upstream, model="smollm2") as (_, url), Socket(url) as socket:
        warmed = (await socket.ask(input="I like the sea.", generate=False, **settings)).response
        assert warmed is not None
        read = warmed["usage"]["input_tokens"]
        assert (read > 50, warmed["output"]) == (True, [])
        asked = {"input": "Where?", "previous_response_id": warmed["id"], "max_output_tokens": 16}
        turn = (await socket.ask(**asked, **settings)).response
        assert turn is not None
        assert turn["usage"]["input_tokens_details"]["cached_tokens"] > read - 20
