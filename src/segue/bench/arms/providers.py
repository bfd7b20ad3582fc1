"""Providers for benchmarks: they read a request, count its bytes, and send the same answer every time.

`AnsweringProvider` runs in the process of the client and speaks just enough HTTP for the gateway's own client. Its
answers have names, and a request that goes on from one, as a message thread or over a WebSocket, must name one that
there was. What was said up to a message of a thread counts as read with the next one. `BareUpstream` runs in the
gateway. It joins the items of the history and sends them untranslated with the same HTTP library: no gateway that sends
a whole history to a provider can cost less.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec

from segue.bench.workloads.conversations import TOKEN_BYTES
from segue.http_client.body import JsonBody
from segue.listening import stop_listening
from segue.protocol.codec import encode
from segue.protocol.events import Ended, OutputWriter
from segue.protocol.responses import usage
from segue.testing.provider import ACCEPTED, SocketAnswer, SocketMessage, provided
from segue.testing.replies import Api, ProviderReply, ReplyContext, make_reply
from segue.upstreams.interface import Batch, UpstreamRequest

_PATHS: dict[bytes, Api] = {b"/responses": "responses", b"/chat/completions": "chat", b"/messages": "messages"}


#: What stands in an answer for its name, and is as long.
NAME = "msg_made_00000000"
#: Where an answer says how many tokens were read.
_TOKENS = b'"input_tokens":4'
_LOST_THREAD = encode(
    {
        "type": "error",
        "error": {
            "type": "not_found_error",
            "message": "There is no such message.",
            "details": {"error_code": "thread_not_found"},
        },
    }
)
_NOT_FOUND = (
    b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(_LOST_THREAD)
) + _LOST_THREAD
_LOST_PARENT = encode(
    {
        "type": "error",
        "status": 400,
        "error": {"type": "invalid_request_error", "code": "previous_response_not_found", "message": "There is none."},
    }
)
#: A body that goes on from an answer is small; of a larger one nothing is kept.
_MOST_KEPT = 64 * 1024


class _Thread(msgspec.Struct):
    previous_message_id: str | None = None


class _Continued(msgspec.Struct):
    """What a request goes on from."""

    thread: _Thread | None = None
    previous_response_id: str | None = None


_continued = msgspec.json.Decoder(_Continued)


def answer(api: Api, text: str) -> ProviderReply:
    """Write the reply of a provider that answers with a text."""
    outputs: dict[Api, Any] = {
        "chat": {"role": "assistant", "content": text},
        "messages": [{"type": "text", "text": text}],
        "responses": [_message(text)],
    }
    return make_reply(
        api,
        outputs[api],
        ReplyContext(request={"model": api, "stream_options": {}}, identity=NAME, created_at=1_790_000_000, seed=api),
    )


def _over_http(stream: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(stream)
    return head + stream


def _message(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


class AnsweringProvider:
    """The server side of one provider. `received_bytes` counts the bytes of all bodies and messages.

    `url` is where it is reached over HTTP, `socket_url` over WebSockets.
    """

    def __init__(self, text: str) -> None:
        self.received_bytes = 0
        self.requests = 0
        self.url = ""
        self.socket_url = ""
        replies = {path: answer(api, text) for path, api in _PATHS.items()}
        self._answers = {path: b"".join(reply.events) for path, reply in replies.items()}
        self._messages = replies[b"/responses"].messages
        self._read_tokens: dict[str | None, int] = {None: 0}  # up to an answer, by its name

    def answer_to(self, target: bytes, body: bytes = b"", *, size: int = 0) -> bytes:
        """Return the reply for a request of this size; of a large one the body is not needed."""
        path = next(path for path in self._answers if target.endswith(path))
        stream = self._named(self._answers[path])
        if path == b"/messages":
            thread = _continued.decode(body).thread if body else None
            previous = None if thread is None else thread.previous_message_id
            if previous not in self._read_tokens:
                return _NOT_FOUND
            tokens = self._read_tokens[previous] + size // TOKEN_BYTES
            self._read_tokens[_name(self.requests)] = tokens + len(stream) // TOKEN_BYTES
            stream = stream.replace(_TOKENS, b"%b%d" % (_TOKENS[:-1], tokens))
        return _over_http(stream)

    def answer_message(self, message: SocketMessage) -> SocketAnswer:
        """Return the reply for a message over a WebSocket."""
        self.received_bytes += len(message.data)
        self.requests += 1
        if not self._is_known(_continued.decode(message.data).previous_response_id):
            return SocketAnswer(messages=(_LOST_PARENT,))
        return SocketAnswer(messages=tuple(map(self._named, self._messages)))

    def _is_known(self, name: str | None) -> bool:
        """Whether a request may go on from an answer: there was one, or it goes on from none."""
        return name is None or 0 < int(name[-8:]) <= self.requests

    def _named(self, data: bytes) -> bytes:
        return data.replace(NAME.encode(), _name(self.requests).encode())


def _name(number: int) -> str:
    return f"{NAME[:-8]}{number:08}"


class _CountingConnection(asyncio.Protocol):
    """Reads requests with a Content-Length; it counts the bytes of a body, and drops those of a large one."""

    def __init__(self, provider: AnsweringProvider) -> None:
        self._provider = provider
        self._head = bytearray()
        self._body = bytearray()
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
            self._size = self._missing
            self._provider.received_bytes += self._size
            self._keeps = self._missing <= _MOST_KEPT
            data = bytes(rest)
        if self._keeps:
            self._body += data
        self._missing -= len(data)
        if not self._missing:
            self._provider.requests += 1
            self._write(self._provider.answer_to(self._target, bytes(self._body), size=self._size))
            self._body.clear()


@asynccontextmanager
async def answering(text: str) -> AsyncIterator[AnsweringProvider]:
    """Run a provider around a block."""
    provider = AnsweringProvider(text)
    server = await asyncio.get_running_loop().create_server(lambda: _CountingConnection(provider), "127.0.0.1", 0)
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        async with provided(lambda _: ACCEPTED, provider.answer_message) as sockets:
            provider.socket_url = f"{sockets.url}/v1"
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
