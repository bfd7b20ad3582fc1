"""How clients of the nodes ask: one request after the other through the balancer, and what each of them was told.

A client does not repeat anything by itself and follows no rule of its own: it says what it saw, whether the model may
have run by what it was told, and how far a stream came. Everything that arrives is checked as the protocol asks. Not
here: what is asked, and what may be true afterwards (`sessions`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Literal

import aiohttp
import msgspec
from websockets.exceptions import WebSocketException

from segue.testing.protocol_checker import Json, check_error, check_event, check_response, parse_json
from tests.faults.clients import Socket, opened, output_text

#: How a client learns that its connection is lost; a node that stands still is noticed by waiting.
GONE = (aiohttp.ClientError, WebSocketException, OSError, TimeoutError, asyncio.IncompleteReadError)
#: How long a client waits for a node that says nothing.
_SILENCE_S = 5.0


class Told(msgspec.Struct, kw_only=True):
    """What a client was told of a turn, as far as it came."""

    how: Literal["completed", "begun", "refused", "failed", "lost"] = "lost"
    status: int = 0
    code: str = ""
    may_have_run: bool = False
    response_id: str | None = None
    text: str = ""
    last: int = -1
    """The number of the last event that came."""

    def take_event(self, event: Json) -> None:
        """Take an event of a stream; none may be missing, and none may come twice."""
        check_event(event, transport="sse")
        assert event["sequence_number"] == self.last + 1, f"{event} follows {self.last}"
        self.last += 1
        match event["type"]:
            case "response.created":
                self.response_id = event["response"]["id"]
            case "response.output_text.delta":
                self.text += event["delta"]
            case "response.completed" | "response.failed" | "response.incomplete":
                self.take_end(event["response"])
            case _:
                pass  # the others are about the item

    def take_end(self, response: Json) -> None:
        """Take the response object at the end of a turn."""
        self.response_id = response["id"]
        if response["status"] == "completed":
            self.how = "completed"
            assert self.text in ("", output_text(response)), "the events say something else than the response"
            self.text = output_text(response)
            return
        self.how, self.may_have_run = "failed", True
        self.code = response["status"] if response["error"] is None else response["error"]["code"]

    def take_refusal(self, status: int, headers: Mapping[str, str], body: Json) -> None:
        """Take an error in place of a turn."""
        check_error(body)
        self.how, self.status, self.code = "refused", status, body["error"]["code"]
        self.may_have_run = headers.get("x-should-retry") == "false"


class Client:
    """A client of one tenant."""

    def __init__(self, session: aiohttp.ClientSession, url: str, key: str) -> None:
        self.http = session
        self._url = url
        self._key = key

    async def call(self, method: str, path: str, body: Json | None = None) -> tuple[int, Json] | None:
        """Send a request; return the status and the JSON of the answer, or None if it was lost."""
        with suppress(*GONE):
            async with self.http.request(method, path, json=body) as reply:
                answer = parse_json(await reply.text())
                if reply.status >= 400:
                    check_error(answer)
                return reply.status, answer
        return None

    async def post(self, body: Json) -> Told:
        """Ask for a turn, and for its response in one piece."""
        told = Told()
        with suppress(*GONE):
            async with self.http.post("/v1/responses", json=body) as reply:
                answer = parse_json(await reply.text())
                if reply.status != 200:
                    told.take_refusal(reply.status, reply.headers, answer)
                    return told
                check_response(answer)
                if answer["status"] in {"queued", "in_progress"}:
                    told.how, told.response_id = "begun", answer["id"]
                else:
                    told.take_end(answer)
        return told

    async def stream(self, body: Json) -> Told:
        """Ask for a turn, and for its events."""
        told = Told()
        with suppress(*GONE):
            async with self.http.post("/v1/responses", json={**body, "stream": True}) as reply:
                await self._read(reply, told)
        return told

    async def resume(self, told: Told) -> None:
        """Go on with a stream that was lost, at whatever node."""
        told.how = "lost"
        path = f"/v1/responses/{told.response_id}?stream=true&starting_after={told.last}"
        with suppress(*GONE):
            async with self.http.get(path) as reply:
                await self._read(reply, told)

    async def _read(self, reply: aiohttp.ClientResponse, told: Told) -> None:
        if reply.status != 200:
            told.take_refusal(reply.status, reply.headers, parse_json(await reply.text()))
            return
        async for line in reply.content:
            if line.startswith(b"data: {"):
                told.take_event(parse_json(line[6:].decode()))

    @asynccontextmanager
    async def socket(self) -> AsyncIterator[SocketClient]:
        """Open a WebSocket around a block; one that cannot be opened loses each turn."""
        async with AsyncExitStack() as stack:
            made: Socket | None = None
            with suppress(*GONE):
                async with asyncio.timeout(_SILENCE_S):
                    made = await stack.enter_async_context(opened(self._url, key=self._key))
            yield SocketClient(made)
            if made is not None:
                made.connection.transport.abort()  # a node that stands still would not answer a close


class SocketClient:
    """One WebSocket."""

    def __init__(self, socket: Socket | None) -> None:
        self._socket = socket

    async def turn(self, body: Json) -> Told:
        """Ask for a turn, and for its events."""
        told, socket = Told(), self._socket
        if socket is None:
            return told
        try:
            await socket.connection.send(json.dumps({"type": "response.create", **body}))
            while told.how == "lost":
                async with asyncio.timeout(_SILENCE_S):
                    frame = await socket.frame()
                if frame["type"] == "error":
                    told.take_refusal(frame["status"], frame.get("headers") or {}, {"error": frame["error"]})
                else:
                    told.take_event(frame)
        except GONE:
            self._socket = None
        return told


@asynccontextmanager
async def client_of(url: str, key: str) -> AsyncIterator[Client]:
    """Open a client, which uses each connection for one request."""
    timeout = aiohttp.ClientTimeout(total=4 * _SILENCE_S, sock_read=_SILENCE_S)
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(url, headers=headers, timeout=timeout, connector=connector) as session:
        yield Client(session, url, key)
