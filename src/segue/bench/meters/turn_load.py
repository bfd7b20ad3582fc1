"""Load for gateways: sessions that continue their own conversations over HTTP, made to cost little themselves.

A request is bytes made beforehand but for the id that it continues, and of an answer only its length and the id are
looked at. Sessions share connections, as those of an agent's host do. Not here: what the servers use (`cluster`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from time import perf_counter
from typing import Final, NamedTuple, cast

import msgspec

_LENGTH: Final = b"content-length: "
_ID: Final = b'"id":"resp_'


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a load has done."""

    turns: int
    seconds: float
    latencies_s: list[float]
    sent_bytes: int
    """The items of the turns: those of requests, and those of answers."""

    def latency_s(self, part: float) -> float:
        """Return what that part of the turns took at most."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


class _ArrivingAnswer:
    """One reply, as far as it has come."""

    __slots__ = ("body_bytes", "got", "length")

    def __init__(self) -> None:
        self.got = bytearray()
        self.length = -1
        self.body_bytes = 0


class _LoadConnection(asyncio.Protocol):
    """Sends one request at a time and waits for its answer."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer = _ArrivingAnswer()
        self._done: asyncio.Future[bytes] | None = None
        self._lost: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is of no class of asyncio

    def data_received(self, data: bytes) -> None:
        answer = self._answer
        answer.got += data
        if answer.length < 0:
            end = answer.got.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(answer.got[:end]).lower()
            answer.length = end + 4 + int(head.split(_LENGTH)[1].split(b"\r\n")[0])
        if len(answer.got) >= answer.length:
            self._answer = _ArrivingAnswer()
            assert self._done is not None, "an answer without a request"
            self._done.set_result(bytes(answer.got))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = exc or ConnectionError("the gateway has closed the connection")
        if self._done is not None and not self._done.done():
            self._done.set_exception(self._lost)

    @property
    def lost(self) -> bool:
        """Whether the gateway has closed it."""
        return self._lost is not None

    async def ask(self, request: bytes) -> bytes:
        assert self._transport is not None, "it is connected"
        if self._lost is not None:
            raise self._lost
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._done

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class _Schedule(NamedTuple):
    """When turns begin: without a pace, as soon as they can."""

    began: float
    until: float
    every_s: float

    def begins_at(self, done: int, sessions: int, drawn: float) -> float:
        """Return when a lane begins its next turn: one in each equal part of the time, at the place that was drawn.

        So all lanes together begin turns at random, as clients do that do not know of each other.
        """
        if not self.every_s:
            return perf_counter()
        return self.began + (done + drawn) * self.every_s / sessions


class SessionLoad:
    """Sessions of one model at one address; `text` is what each turn of a client says."""

    def __init__(self, host: str, port: int, *, model: str, text: str) -> None:
        self._address = (host, port)
        self._head = (
            f"POST /v1/responses HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nContent-Length: "
        ).encode()
        self._fields = msgspec.json.encode({"model": model, "input": text, "store": True})[:-1]
        self._connections: list[_LoadConnection] = []
        self._ids: dict[int, bytes] = {}

    async def connect(self, count: int) -> None:
        """Open connections: the turns of a session all go over one of them."""
        for _ in range(count):
            self._connections.append(await self._open())

    @property
    def connected(self) -> int:
        """How many of its connections are open."""
        return sum(not connection.lost for connection in self._connections)

    async def _open(self) -> _LoadConnection:
        _, connection = await asyncio.get_running_loop().create_connection(_LoadConnection, *self._address)
        return connection

    async def _open_again(self) -> None:
        """Replace connections that the gateway has closed since they were idle for long."""
        for place, connection in enumerate(self._connections):
            if connection.lost:
                self._connections[place] = await self._open()

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()

    async def run(
        self, sessions: Sequence[int], *, seconds: float, every_s: float = 0.0, lanes: int | None = None
    ) -> LoadResult:
        """Run turns of these sessions for a time: all the time, or so that each begins one every `every_s` seconds.

        They go over so many (`lanes`) of the connections, or all.
        """
        await self._open_again()
        began = perf_counter()
        latencies: list[float] = []
        sent: list[int] = []
        count = min(lanes or len(self._connections), len(self._connections))
        when = _Schedule(began, began + seconds, every_s)
        await asyncio.gather(
            *(self._lane(place, sessions[place::count], when, latencies, sent) for place in range(count))
        )
        return LoadResult(
            turns=len(latencies), seconds=perf_counter() - began, latencies_s=latencies, sent_bytes=sum(sent)
        )

    async def _lane(
        self, place: int, sessions: Sequence[int], when: _Schedule, latencies: list[float], sent: list[int]
    ) -> None:
        """Run the turns of some sessions one after the other; a paced one begins at its time, or late if it must."""
        done, drawing = 0, random.Random(place)
        while sessions and (at := when.begins_at(done, len(sessions), drawing.random())) < when.until:
            if at > (now := perf_counter()):
                await asyncio.sleep(at - now)
            session = sessions[done % len(sessions)]
            request, own_bytes = self._request(session)
            asked = perf_counter()
            answer = await self._connections[place].ask(request)
            latencies.append(perf_counter() - asked)
            self._ids[session] = _id_of(answer)
            sent.append(own_bytes + len(answer))
            done += 1
        await asyncio.sleep(max(0.0, when.until - perf_counter()))

    def _request(self, session: int) -> tuple[bytes, int]:
        previous = self._ids.get(session)
        tail = b"}" if previous is None else b',"previous_response_id":"%b"}' % previous
        body = b"%d\r\n\r\n%b%b" % (len(self._fields) + len(tail), self._fields, tail)
        return self._head + body, len(self._fields)


def _id_of(answer: bytes) -> bytes:
    if not answer.startswith(b"HTTP/1.1 200"):
        raise ConnectionError(answer[:300].decode("utf-8", "replace"))
    at = answer.index(_ID) + len(_ID) - len(b"resp_")
    return answer[at : answer.index(b'"', at)]
