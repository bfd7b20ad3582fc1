"""Providers for benchmarks: they read a request, count its bytes, and send the same answer every time.

`AnsweringProvider` runs in the process of the client and speaks just enough HTTP for the gateway's own client.
`BareUpstream` runs in the gateway. It joins the items of the history and sends them untranslated with the same HTTP
library: no gateway that sends a whole history to a provider can cost less.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from segue.http_client.body import JsonBody
from segue.listening import stop_listening
from segue.protocol.events import Ended, OutputWriter
from segue.protocol.responses import usage
from segue.testing.replies import Api, ReplyContext, make_reply
from segue.upstreams.interface import Batch, UpstreamRequest

_PATHS: dict[bytes, Api] = {b"/responses": "responses", b"/chat/completions": "chat", b"/messages": "messages"}


def answer(api: Api, text: str) -> bytes:
    """Write the HTTP reply of a provider that answers with a text."""
    outputs: dict[Api, Any] = {
        "chat": {"role": "assistant", "content": text},
        "messages": [{"type": "text", "text": text}],
        "responses": [_message(text)],
    }
    asked = ReplyContext(
        request={"model": api, "stream_options": {}}, identity="made_1", created_at=1_790_000_000, seed=api
    )
    stream = b"".join(make_reply(api, outputs[api], asked).events)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(stream)
    return head + stream


def _message(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


class AnsweringProvider:
    """The server side of one provider. `received_bytes` counts the bytes of all bodies, over all connections."""

    def __init__(self, text: str) -> None:
        self.received_bytes = 0
        self.requests = 0
        self.url = ""
        self._answers = {path: answer(api, text) for path, api in _PATHS.items()}

    def answer_to(self, target: bytes) -> bytes:
        """Return the reply for a request's target."""
        return next(reply for path, reply in self._answers.items() if target.endswith(path))


class _CountingConnection(asyncio.Protocol):
    """Reads requests with a Content-Length; it counts the bytes of a body and drops them as they come."""

    def __init__(self, provider: AnsweringProvider) -> None:
        self._provider = provider
        self._head = bytearray()
        self._missing = 0
        self._target = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._write = transport.write  # type: ignore[attr-defined] # uvloop's transports do not derive from asyncio's

    def data_received(self, data: bytes) -> None:
        """Take in a piece of a request; answer after the last one."""
        if not self._missing:
            self._head += data
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head.clear()
            lines = bytes(head).lower().split(b"\r\n")
            self._target = lines[0].split(b" ")[1]
            self._missing = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            self._provider.received_bytes += self._missing
            data = bytes(rest)
        self._missing -= len(data)
        if not self._missing:
            self._provider.requests += 1
            self._write(self._provider.answer_to(self._target))


@asynccontextmanager
async def answering(text: str) -> AsyncIterator[AnsweringProvider]:
    """Run a provider around a block."""
    provider = AnsweringProvider(text)
    server = await asyncio.get_running_loop().create_server(lambda: _CountingConnection(provider), "127.0.0.1", 0)
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield provider
    finally:
        await stop_listening(server)


class BareUpstream:
    """Sends the items of the history, joined, and answers with the same text whatever it receives."""

    def __init__(self, base_url: str, text: str) -> None:
        self._url = f"{base_url}/responses"
        self._text = text
        self._session: aiohttp.ClientSession | None = None

    @property
    def models(self) -> Sequence[str]:
        """None: the router's rule has the name."""
        return ()

    async def start(self) -> None:
        """Make ready to connect."""
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Run one turn."""
        assert self._session is not None, "start() comes first"
        body = JsonBody((b'{"input":[', b",".join(request.history.items()), b"]}"))
        async with self._session.post(self._url, data=body) as response:
            yield ()
            async for _ in response.content.iter_any():
                pass
        writer = OutputWriter(request.response_id)
        yield [*writer.text(self._text), *writer.end_item(), Ended("completed", usage(1, 1))]
