"""Raw clients, over HTTP and in WebSocket mode, that let nothing pass unjudged: every body, event and frame that they
receive goes through the checker. They are thin on purpose: what they send is what the test wrote.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from io import BytesIO
from typing import Any, NamedTuple, Self, TypeAlias

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from segue.testing.lean_checker import LeanStreamChecker
from segue.testing.protocol_checker import (
    Json,
    SocketChecker,
    StreamChecker,
    Transport,
    check_error,
    check_response,
    check_sse,
    parse_json,
    parse_sse,
)
from segue.upstreams.scripted import MODEL

Message: TypeAlias = Json | str | bytes

#: Far more than anything here takes: a client that waits for what never comes fails here, with a trace.
PATIENCE_S = 30.0


class Reply(NamedTuple):
    """An HTTP reply whose body is a JSON object."""

    status: int
    headers: dict[str, str]
    body: Json

    @property
    def error(self) -> Json:
        """The error object, of a reply that must have one."""
        assert self.status >= 400, f"not an error but {self.status}"
        error: Json = self.body["error"]
        return error


class Http:
    """A client over HTTP. Headers given to a request come on top of the key's.

    `last` is the last object received, as it came: a body, or the data of the last event of a stream.
    """

    def __init__(self, url: str, secret: str | None = None) -> None:
        self.last = ""
        self._url = url
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        self._client = aiohttp.ClientSession(headers=headers, timeout=timeout, skip_auto_headers=["Accept-Encoding"])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()

    async def request(
        self, method: str, path: str, *, data: Message | None = None, headers: dict[str, str] | None = None
    ) -> Reply:
        """Send a request whose reply is a JSON object, and check the reply."""
        async with self._client.request(method, self._url + path, data=_body(data), headers=headers) as reply:
            assert reply.content_type == "application/json"
            self.last = await reply.text("utf-8")
            body = parse_json(self.last)
            if reply.status >= 400 and "status" not in body:  # as /readyz answers to probes
                check_error(body)
            elif body.get("object") == "response" and "deleted" not in body:
                check_response(body)
            return Reply(reply.status, dict(reply.headers), body)

    async def text(self, path: str, headers: dict[str, str] | None = None) -> str:
        """Get a page that is not JSON."""
        async with self._client.get(self._url + path, headers=headers) as reply:
            assert (reply.status, reply.content_type) == (200, "text/plain")
            return await reply.text("utf-8")

    async def create(self, **fields: object) -> Reply:
        """Make a response, not streamed."""
        return await self.request("POST", "/v1/responses", data={"model": MODEL, **fields})

    async def stream(self, **fields: object) -> StreamChecker:
        """Make a response, streamed."""
        return await self.follow({"model": MODEL, "stream": True, **fields})

    async def begin(self, count: int, **fields: object) -> list[Json]:
        """Ask for a stream, and go away after so many events."""
        body = {"model": MODEL, "stream": True, **fields}
        frames: list[Json] = []
        async with self._client.post(self._url + "/v1/responses", data=_body(body)) as reply:
            assert reply.status == 200
            async for line in reply.content:
                if line.startswith(b"data: "):
                    frames.append(parse_json(line.removeprefix(b"data: ").decode()))
                    if len(frames) == count:
                        break
            reply.close()
        return frames

    async def rest(self, response_id: str, after: int | None = None, *, lean: bool = False) -> list[Json]:
        """Get the events of a response after a number, to its end."""
        query = ("" if after is None else f"&starting_after={after}") + ("&lean=true" if lean else "")
        async with self._client.get(f"{self._url}/v1/responses/{response_id}?stream=true{query}") as reply:
            assert (reply.status, reply.content_type) == (200, "text/event-stream"), await reply.text()
            events = parse_sse(await reply.read())
        return [parse_json(text) for _, text in events]

    async def lean(self, **fields: object) -> LeanStreamChecker:
        """Make a response, streamed lean."""
        checker, options = LeanStreamChecker("sse"), fields.pop("segue", {})
        segue = {"lean": True, **(options if isinstance(options, dict) else {})}
        await self.follow({"model": MODEL, "stream": True, "segue": segue, **fields}, checker)
        return checker

    async def follow(self, body: Message, checker: StreamChecker | None = None) -> StreamChecker:
        """Send a whole body that asks for a stream, and follow the stream to its end."""
        async with self._client.post(self._url + "/v1/responses", data=_body(body)) as reply:
            assert (reply.status, reply.content_type) == (200, "text/event-stream")
            written = [b""]
            async for piece, is_last in reply.content.iter_chunks():
                written[-1] += piece
                if is_last:
                    written.append(b"")
            for write in written:
                assert not write or write.endswith(b"\n\n"), "a block is spread over two writes"
            data = b"".join(written)
            self.last = parse_sse(data)[-1][1]
            return check_sse(data, checker)


class Cut:
    """A stream whose first part was received; the rest is added, and the whole is judged as one stream."""

    def __init__(self, frames: list[Json], *, transport: Transport = "sse", lane: str | None = None) -> None:
        self.checker = StreamChecker(transport, stream_id=lane)
        for frame in frames:
            self.add(frame)

    def add(self, frame: Json) -> None:
        """Add a frame, from whatever lane it came."""
        plain = {key: value for key, value in frame.items() if key != "stream_id"}
        lane = self.checker.stream_id
        self.checker.feed(plain if lane is None else {**plain, "stream_id": lane})

    def whole(self, rest: list[Json]) -> StreamChecker:
        """Add the rest, and see that it was all there was to come."""
        for frame in rest:
            self.add(frame)
        self.checker.finish()
        return self.checker


class Socket:
    """A connection in WebSocket mode, with the lanes given. `last` is the last frame received, as it came.

    With `lean`, all its creates ask for lean streams.
    """

    def __init__(
        self,
        url: str,
        secret: str | None = None,
        *,
        lanes: Iterable[str] = (),
        lean: bool = False,
        **options: object,
    ) -> None:
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        settings: dict[str, Any] = {"compression": None, "max_size": None, "additional_headers": headers, **options}
        self._connect = connect(f"{url.replace('http', 'ws', 1)}/v1/responses", proxy=None, **settings)
        self.last = ""
        self._lean = lean
        self._checker = SocketChecker(lanes, stream=LeanStreamChecker if lean else StreamChecker)
        self._vanished = False
        self.connection: ClientConnection

    async def __aenter__(self) -> Self:
        self.connection = await self._connect
        return self

    async def __aexit__(self, kind: object, *error: object) -> None:
        await self.connection.close()
        if kind is None and not self._vanished:
            self._checker.finish()

    async def send(self, message: Message) -> None:
        """Send one message: text is sent as it is, an object as its JSON, bytes as a binary message."""
        await self.connection.send(json.dumps(message) if isinstance(message, dict) else message)

    async def create(self, **fields: object) -> None:
        """Ask for a response."""
        if self._lean:
            options = fields.get("segue")
            fields["segue"] = {"lean": True, **(options if isinstance(options, dict) else {})}
        await self.send({"type": "response.create", "model": MODEL, **fields})

    async def frame(self) -> Json:
        """Receive one frame."""
        async with asyncio.timeout(PATIENCE_S):
            message = await self.connection.recv()
        assert isinstance(message, str), "a frame must be text"
        self.last = message
        frame = parse_json(message)
        self._checker.feed(frame)
        return frame

    def expect(self, frames: list[Json], lane: str | None = None) -> None:
        """Say that the rest of a stream that began with these frames will come in this lane."""
        self._checker.expect(Cut(frames, transport="websocket", lane=lane).checker)

    async def resume(self, frames: list[Json], lane: str | None = None, after: int | None = None) -> StreamChecker:
        """Ask for the rest of a stream that began with these frames, and receive it to its end."""
        ident = frames[0]["response"]["id"]
        number = frames[-1]["sequence_number"] if after is None else after
        fields = {} if lane is None else {"stream_id": lane}
        self.expect(frames, lane)
        await self.send({"type": "segue.resume", "response_id": ident, "starting_after": number, **fields})
        return await self.turn()

    async def turn(self) -> StreamChecker:
        """Receive the frames of one turn, to its end."""
        before = len(self._checker.turns)
        while len(self._checker.turns) == before:
            await self.frame()
        return self._checker.turns[-1]

    async def turns(self, count: int) -> dict[str, StreamChecker]:
        """Receive until this many turns have ended since the last was taken; by lane, the default lane as ''."""
        ended = [await self.turn() for _ in range(count)]
        return {turn.frames[-1].get("stream_id", "") if turn.frames else "": turn for turn in ended}

    async def ask(self, **fields: object) -> StreamChecker:
        """Ask for a response and receive it."""
        await self.create(**fields)
        return await self.turn()

    def vanish(self) -> None:
        """Break the connection without a word, in the middle of a turn or not."""
        self._vanished = True
        self.connection.transport.abort()

    async def closing(self) -> int:
        """Wait until the gateway closes the connection, with nothing more said, and return the close code."""
        with pytest.raises(ConnectionClosed) as caught:
            await self.frame()
        assert caught.value.rcvd is not None, "the connection broke without a close frame"
        return int(caught.value.rcvd.code)


def _body(message: Message | None) -> BytesIO | None:
    """A body as a file: aiohttp warns of large ones that are not."""
    if message is None:
        return None
    text = json.dumps(message) if isinstance(message, dict) else message
    return BytesIO(text.encode() if isinstance(text, str) else text)
