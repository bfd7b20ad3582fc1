"""The OpenAI SDK and HTTPX against the sidecar's listener, as against a provider."""

from __future__ import annotations

import asyncio
import json

import httpx2 as httpx
import pytest

from segue.http.heads import Line, ReplyHead
from segue.sidecar.agent_request import AgentRequest
from tests.sidecar.agents import listening

SSE = ReplyHead(200, b"OK", (Line(b"Content-Type", b"text/event-stream"),))


def chunk(text: str) -> bytes:
    delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    event = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [delta]}
    return b"data: " + json.dumps(event).encode() + b"\n\n"


async def test_a_streamed_reply_arrives_event_by_event_on_one_connection() -> None:
    from openai import AsyncOpenAI

    seen: list[str] = []
    arrived = asyncio.Event()
    connections: set[int] = set()

    async def handler(request: AgentRequest) -> None:
        connections.add(id(request.gone))
        assert json.loads(request.body or b"")["stream"] is True
        await request.start(SSE)
        for word in ("one", "two", "three"):
            arrived.clear()
            await request.send(chunk(word))
            await arrived.wait()  # the next event leaves only when the client has this one
        await request.send(b"data: [DONE]\n\n")
        await request.end()

    async with listening(handler) as server, AsyncOpenAI(base_url=f"{server.url}/v1", api_key="k") as client:
        for _ in range(3):
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            async for event in stream:
                seen.append(event.choices[0].delta.content or "")
                arrived.set()
    assert seen == ["one", "two", "three"] * 3
    assert len(connections) == 1


async def test_a_refusal_of_ours_is_read_by_the_sdk() -> None:
    from openai import AsyncOpenAI, BadRequestError

    async def handler(request: AgentRequest) -> None:
        raise AssertionError("the handler was called")

    async with listening(handler) as server, AsyncOpenAI(base_url=server.url, api_key="k", max_retries=0) as client:
        with pytest.raises(BadRequestError) as refused:
            await client.models.list(extra_headers={"Transfer-Encoding": "chunked", "Content-Length": "3"})
    assert refused.value.code == "invalid_request"
    assert "not both" in refused.value.message


async def test_a_client_keeps_its_connection_over_replies_of_every_framing() -> None:
    connections: set[int] = set()

    async def handler(request: AgentRequest) -> None:
        connections.add(id(request.gone))
        body = request.body or b""
        lines = (Line(b"Content-Length", b"%d" % len(body)),) if request.head.target == b"/sized" else ()
        status = 204 if request.head.target == b"/none" else 200
        await request.start(ReplyHead(status, b"", lines))
        await request.send(body)
        await request.end()

    async with listening(handler) as server, httpx.AsyncClient(base_url=server.url) as client:
        for target in ("/sized", "/chunked", "/none", "/sized"):
            reply = await client.post(target, content=b"x" * 100_000)
            assert reply.content == (b"" if target == "/none" else b"x" * 100_000)
        assert (await client.head("/chunked")).status_code == 200
        assert (await client.request("QUERY", "/sized", content=b"q")).content == b"q"
    assert len(connections) == 1
