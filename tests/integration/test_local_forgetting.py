"""What the local model keeps of a response, seen by clients: it goes when the response does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from segue.config import DAY_S, Config, ServerConfig
from segue.engine import ModelFile
from segue.engine.upstream import LocalUpstream
from segue.gateway.app import Gateway
from segue.testing.response_schemas import Json
from segue.testing.tiny_model import write_tiny_model
from segue.upstreams.router import ModelRule, Router
from tests.faults.gateways import until
from tests.integration.clients import Http, Socket

pytestmark = pytest.mark.local_engine

WORDS = "many words about the number of people " * 10
ASKED: Json = {"model": "tiny", "max_output_tokens": 8}
UNSTORED: Json = {**ASKED, "store": False}


class Running:
    """A gateway with a tiny model, whose time a test moves: days at the store, seconds at the engine."""

    def __init__(self, gateway: Gateway, upstream: LocalUpstream, url: str, time: list[float]) -> None:
        self.gateway = gateway
        self.upstream = upstream
        self.url = url
        self.time = time

    async def kept(self) -> int:
        """Return how many sequences the engine keeps; looking moves them out of the context."""
        await self.upstream.evict("host")
        await self.upstream.evict("host")  # what has just become idle too long goes in the step behind the first
        return sum(self.upstream.counters.sequences.values())


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Running]:
    file = folder / "tiny.gguf"
    write_tiny_model(file)
    time = [1_700_000_000.0]
    upstream = LocalUpstream(ModelFile(file, "tiny", 1024, 1, kv_bytes=1, idle_s=600), lambda: time[0])
    config = Config(server=ServerConfig(port=0, store="memory:", sweep_interval_s=1e6, retention_s=DAY_S))
    gateway = await Gateway.open(config, Router([ModelRule(upstream, ("tiny",))]), lambda: time[0])
    try:
        yield Running(gateway, upstream, await gateway.listen(), time)
    finally:
        await gateway.aclose()


def cached(response: Json | None) -> int:
    """The tokens of a response's input that were not computed."""
    assert response is not None
    return int(response["usage"]["input_tokens_details"]["cached_tokens"])


async def test_a_deleted_response_is_not_computed_upon(tmp_path: Path) -> None:
    """Neither by who asks the same again; a child that lives keeps what it has seen, until it goes too."""
    async with running(tmp_path) as one, Http(one.url) as client:
        parent = (await client.create(**ASKED, input=WORDS)).body
        child = (await client.create(**ASKED, input="go on", previous_response_id=parent["id"])).body
        assert cached(child) > 60
        await client.request("DELETE", f"/v1/responses/{parent['id']}")
        grandchild = (await client.create(**ASKED, input="and", previous_response_id=child["id"])).body
        assert cached(grandchild) > cached(child)
        for gone in (child, grandchild):
            assert await one.kept() > 0
            await client.request("DELETE", f"/v1/responses/{gone['id']}")
        assert await one.kept() == 0
        assert cached((await client.create(**ASKED, input=WORDS)).body) == 0


async def test_an_expired_response_goes_when_it_is_swept(tmp_path: Path) -> None:
    async with running(tmp_path) as one, Http(one.url) as client:
        await client.create(**ASKED, input=WORDS)
        one.time[0] += DAY_S / 2
        young = (await client.create(**ASKED, input=f"other {WORDS}")).body
        assert await one.kept() == 2
        one.time[0] += DAY_S / 2
        await one.gateway.services.executor.sweep()
        assert await one.kept() == 1
        assert cached((await client.create(**ASKED, input="go on", previous_response_id=young["id"])).body) > 60


async def test_unstored_responses_die_with_their_connection(tmp_path: Path) -> None:
    """And not before, however long it is silent; what is stored stays."""
    async with running(tmp_path) as one:
        async with Socket(one.url) as socket:
            stored = (await socket.ask(**ASKED, input=f"stored {WORDS}")).response
            assert stored is not None
            first = (await socket.ask(**UNSTORED, input=WORDS)).response
            assert first is not None
            one.time[0] += 10_000
            again = (await socket.ask(**UNSTORED, input="go on", previous_response_id=first["id"])).response
            assert cached(again) > 60
            assert await one.kept() == 2
        await until(lambda: not one.gateway.services.drain.connections)
        assert await one.kept() == 1
        async with Socket(one.url) as socket:
            assert cached((await socket.ask(**UNSTORED, input=WORDS)).response) < 30
            on = (await socket.ask(**ASKED, input="go on", previous_response_id=stored["id"])).response
            assert cached(on) > 60


async def test_a_client_that_sends_everything_again_is_fast_for_a_while(tmp_path: Path) -> None:
    """It has no connection and no id: each of its turns finds the state of the last, until it pauses too long."""
    async with running(tmp_path) as one, Http(one.url) as client:
        said: list[Json] = []
        answers: list[Json] = []
        for number in range(4):
            said.append({"role": "user", "content": f"{number} {WORDS[:60]}"})
            answers.append((await client.create(**UNSTORED, input=said)).body)
            said += answers[-1]["output"]
            one.time[0] += 500
        assert max(answer["usage"]["input_tokens"] - cached(answer) for answer in answers[1:]) <= 60
        assert answers[-1]["usage"]["input_tokens"] > 150
        assert await one.kept() == 1
        one.time[0] += 100
        assert await one.kept() == 0
        said.append({"role": "user", "content": "late"})
        assert cached((await client.create(**UNSTORED, input=said)).body) == 0
