"""Load: each session continues its own last response, and a pace is kept."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from segue.bench.meters.turn_load import LoadResult, SessionLoad


class Answers:
    """A server that gives each turn an id, and keeps what it was asked."""

    def __init__(self, status: str = "200 OK") -> None:
        self.asked: list[dict[str, object]] = []
        self._status = status
        self._served: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._served.add(asyncio.create_task(self._serve(reader, writer)))

    def hang_up(self) -> None:
        for served in self._served:
            served.cancel()

    async def ended(self) -> None:
        await asyncio.gather(*self._served, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(asyncio.IncompleteReadError):  # the client has left
                await self._answer(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            self.asked.append(json.loads(await reader.readexactly(length)))
            body = json.dumps({"id": f"resp_{len(self.asked)}"}, separators=(",", ":"))
            answer = f"HTTP/1.1 {self._status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            writer.write(answer[:20])  # in two pieces
            await writer.drain()
            writer.write(answer[20:])
            if self._status != "200 OK":
                break


@asynccontextmanager
async def loaded(answers: Answers, connections: int) -> AsyncIterator[SessionLoad]:
    async with await asyncio.start_server(answers.accept, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        load = SessionLoad(host, port, model="m", text="hello")
        await load.connect(connections)
        try:
            yield load
        finally:
            load.close()
            await answers.ended()


async def test_each_session_continues_its_own_last_response() -> None:
    answers = Answers()
    async with loaded(answers, 1) as load:
        done = await load.run([0, 1], seconds=0.05)
        again = await load.run([0, 1], seconds=0.05)
    previous = [asked.get("previous_response_id") for asked in answers.asked]
    assert previous[:4] == [None, None, "resp_1", "resp_2"]
    assert previous[done.turns] is not None, "a later load goes on"
    assert done.turns + again.turns == len(answers.asked)
    assert answers.asked[0] == {"model": "m", "input": "hello", "store": True}
    assert done.sent_bytes > done.turns * len('{"model":"m","input":"hello","store":true}')


async def test_a_paced_load_has_its_rate_and_lasts_its_time() -> None:
    answers = Answers()
    async with loaded(answers, 2) as load:
        done = await load.run(range(4), seconds=0.2, every_s=0.1)
        assert 6 <= done.turns <= 8, "one in each part of the time, at random; the last may fall behind its end"
        assert done.seconds >= 0.2
        nothing = await load.run([], seconds=0.01)
        assert nothing.turns == 0


async def test_a_load_may_use_a_part_of_its_connections() -> None:
    answers = Answers()
    async with loaded(answers, 3) as load:
        await load.run([0, 1], seconds=0.05, lanes=1)
    first = [asked.get("previous_response_id") for asked in answers.asked[:3]]
    assert first == [None, None, "resp_1"], "one turn after the other"


async def test_a_connection_that_was_closed_while_it_was_idle_is_opened_again() -> None:
    answers = Answers()
    async with loaded(answers, 2) as load:
        await load.run([0], seconds=0.02)
        answers.hang_up()
        await answers.ended()
        while load.connected:  # noqa: ASYNC110 - the client is told by no event
            await asyncio.sleep(0)
        before = len(answers.asked)
        again = await load.run([0, 1], seconds=0.02)
    assert again.turns == len(answers.asked) - before > 0
    assert answers.asked[before].get("previous_response_id") is not None, "the session goes on"


async def test_what_is_refused_ends_the_load() -> None:
    async with loaded(Answers("503 Busy"), 1) as load:
        with pytest.raises(ConnectionError, match="503 Busy"):
            await load.run([0], seconds=1)
        with pytest.raises(ConnectionError):
            await load.run([0], seconds=1)


def test_latency_is_told_by_its_part() -> None:
    done = LoadResult(turns=4, seconds=1.0, latencies_s=[0.4, 0.1, 0.3, 0.2], sent_bytes=0)
    assert [done.latency_s(part) for part in (0.0, 0.5, 0.99)] == [0.1, 0.3, 0.4]
