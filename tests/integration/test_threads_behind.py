"""Message threads of a provider behind every door: each turn is sent as what is new, and its model reads all of it.

The provider is a double that keeps threads (`tests.thread_service`). It is not Anthropic's own, so that the first
continuation of a model asks for a reply that does not exist.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from segue.config import Config, ServerConfig, TenantConfig, UpstreamConfig
from segue.gateway.app import serving
from tests.thread_service import ThreadService, said
from tests.upstreams.provider import providing

Json = dict[str, Any]
WORDS = ["u1", "r1", "u2", "r2", "u3", "r3", "u4"]


class Client:
    """One client, and what the provider was sent for it."""

    def __init__(self, session: aiohttp.ClientSession, service: ThreadService) -> None:
        self.session = session
        self.service = service

    async def post(self, path: str, **fields: Any) -> Json:  # noqa: ANN401 - any field
        async with self.session.post(path, json={"model": "m", **fields}) as reply:
            body: Json = await reply.json()
            assert reply.status == 200, body
            return body

    async def respond(self, text: str, previous: str | None, **fields: Any) -> str:  # noqa: ANN401 - any field
        body = await self.post("/v1/responses", input=text, previous_response_id=previous, **fields)
        return str(body["id"])

    async def go_on(self, text: str, previous: str | None, **fields: Any) -> str:  # noqa: ANN401 - any field
        thread = {"type": "create"} if previous is None else {"type": "continue", "previous_message_id": previous}
        messages = [{"role": "user", "content": text}]
        body = await self.post("/v1/messages", messages=messages, max_tokens=9, thread=thread, **fields)
        return str(body["id"])

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.service.requests]

    @property
    def read(self) -> list[str]:
        """What the model was asked last."""
        return [text for _, text in said(self.service.prompts[-1])]


@asynccontextmanager
async def gateway(
    *tenants: TenantConfig,
    service: ThreadService | None = None,
    **upstream: Any,  # noqa: ANN401 - any setting
) -> AsyncIterator[Client]:
    service = service or ThreadService()
    async with providing(service.play) as provider:
        fields = {"name": "claude", "dialect": "messages", "models": ["m"], "base_url": f"{provider.url}/v1"}
        up = msgspec.convert({**fields, "message_threads": True, **upstream}, UpstreamConfig)
        server = msgspec.convert({"port": 0, "store": "memory:"}, ServerConfig)
        config = Config(server=server, upstream=[up], tenant=list(tenants))
        async with serving(config) as (_, url), aiohttp.ClientSession(url) as session:
            yield Client(session, service)
    assert not service.violations


async def test_responses_over_http() -> None:
    async with gateway() as client:
        last = None
        for number in range(1, 5):
            last = await client.respond(f"u{number}", last, instructions="S")
        assert client.kinds == ["create", "continue", "continue", "continue", "continue"]
        assert client.read == WORDS
        async with client.session.get("/metrics") as reply:
            page = await reply.text()
        assert 'segue_upstream_continuations_total{outcome="hit",upstream="claude"} 3.0' in page


async def test_responses_in_websocket_mode() -> None:
    """Unstored: the provider's memory is all that keeps them, beside this connection."""
    async with gateway() as client, client.session.ws_connect("/v1/responses") as socket:
        last = None
        for number in range(1, 5):
            create = {"type": "response.create", "model": "m", "input": f"u{number}", "store": False}
            await socket.send_json(create | ({} if last is None else {"previous_response_id": last}))
            event: Json = {}
            while event.get("type") != "response.completed":
                event = await socket.receive_json()
            last = event["response"]["id"]
        assert client.kinds == ["create", "continue", "continue", "continue", "continue"]
        assert client.read == WORDS


async def test_threads_of_clients() -> None:
    """The two threads have nothing in common but what is said: each end has its own ids."""
    async with gateway() as client:
        last = None
        for number in range(1, 5):
            last = await client.go_on(f"u{number}", last, x=1, **({"system": "S"} if last is None else {}))
        assert client.kinds == ["create", "continue", "continue", "continue", "continue"]
        assert client.read == WORDS
        body = client.service.bodies[-1]
        assert (body["x"], body["messages"]) == (1, [{"role": "user", "content": "u4"}])
        assert body["thread"]["previous_message_id"] == f"msg_{3:024d}"
        assert "system" not in body


async def test_clients_that_send_everything() -> None:
    """One that speaks the provider's own API is passed on as it is. Of any other, what the provider has is left out."""
    async with gateway() as client:
        said_by_model: list[str] = []
        for number in (1, 2, 3, 4):
            messages = [{"role": "user", "content": "u1"}]
            for index, text in enumerate(said_by_model):
                messages += [{"role": "assistant", "content": text}, {"role": "user", "content": f"u{index + 2}"}]
            if number < 3:
                await client.post("/v1/messages", messages=messages, max_tokens=9)
                assert "thread" not in client.service.bodies[-1]
            reply = await client.post("/v1/chat/completions", messages=messages)
            said_by_model.append(reply["choices"][0]["message"]["content"])
            assert client.read == [message["content"] for message in messages]
        assert client.kinds == [*["stateless"] * 3, "create", "continue", "continue", "continue"]


async def test_from_door_to_door() -> None:
    """A client's own fields are other settings than those of a response: there, a thread begins anew."""
    async with gateway() as client:
        last = await client.respond("u1", None)
        last = await client.respond("u2", last)
        last = await client.go_on("u3", last)
        last = await client.go_on("u4", last)
        assert client.read == WORDS
        await client.respond("u5", last, store=False)
        assert client.read == [*WORDS, "r4", "u5"]
        assert client.kinds == ["create", "continue", "continue", "create", "continue", "stateless"]


@pytest.mark.parametrize("fault", ["lost", "ignored", "mismatch", "unsupported"])
async def test_what_the_provider_has_lost_is_sent_again(fault: str) -> None:
    """And nobody hears of it."""
    async with gateway() as client:
        last = None
        for number in range(1, 4):
            last = await client.respond(f"u{number}", last)
        client.service.faults.append(fault)
        await client.respond("u4", last)
        assert [word for word in client.read if word[0] == "u"] == ["u1", "u2", "u3", "u4"]


async def test_a_tenant_with_zero_retention() -> None:
    async with gateway(TenantConfig("local", zero_retention=True)) as client:
        await client.respond("u2", await client.respond("u1", None))
        assert client.kinds == ["stateless", "stateless"]


def speak_at_length(prompt: Json) -> list[Json]:
    return [{"type": "text", "text": f"r{prompt['count']} " + "y" * 4000}]


async def talk(client: Client) -> None:
    """From door to door, with a compaction on the way, forks, and settings that change."""
    managed = {"context_management": [{"type": "compaction", "compact_threshold": 1000}]}
    first = await client.respond("u1", None)
    last = await client.respond("u2", first)
    await client.respond("a fork", first)
    last = await client.respond("u3", last)
    last = await client.respond("compacted before this", last, **managed)
    last = await client.respond("u4", last)
    last = await client.go_on("u5", last)
    last = await client.go_on("u6", last, temperature=0.5)
    await client.respond("u7", last, store=False)
    thread = await client.go_on("u8", None, system="S")
    await client.go_on("u9", await client.go_on("u10", thread))
    await client.respond("u11", thread, store=False, instructions="S")


async def test_the_model_reads_what_it_would_read_without_threads() -> None:
    """Request by request, whatever a conversation goes through."""
    one, two = ThreadService(speak_at_length), ThreadService(speak_at_length)
    async with gateway(service=one) as client, gateway(service=two, message_threads=False) as other:
        await talk(client)
        await talk(other)
        assert client.service.prompts == other.service.prompts
        assert len(client.service.prompts) == 14, "thirteen turns and a summary"
        assert client.kinds.count("continue") > 5
        assert set(other.kinds) == {"stateless"}
