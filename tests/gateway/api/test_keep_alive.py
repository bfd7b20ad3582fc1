"""What is sent in the silences of a stream, and when nothing is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import aiohttp
import pytest

from segue.gateway.api.keep_alive import COMMENT, KeepAlive
from segue.testing.response_schemas import Json
from segue.upstreams.scripted import Say, ScriptedTurn, ScriptedUpstream, Wait
from tests.faults.gateways import listening, until

SOON_S = 0.001


class Reader:
    """A request, its connection and its reply, as far as a silence knows them. `buffered`: what was not taken yet."""

    def __init__(self, *, connected: bool = True) -> None:
        self.connected = connected
        self.buffered = 0
        self.looks = 0
        self.got: list[bytes] = []
        self.gone = False
        self.before_look: Callable[[], None] = lambda: None

    @property
    def transport(self) -> Reader | None:
        self.before_look()
        return self if self.connected else None

    def get_write_buffer_size(self) -> int:
        self.looks += 1
        return self.buffered

    async def write(self, data: bytes) -> None:
        self.got.append(data)
        if self.gone:
            raise ConnectionResetError


@contextmanager
def silence(reader: Reader, after_s: float = SOON_S) -> Iterator[KeepAlive]:
    one = cast("Any", reader)
    kept = KeepAlive(one, one, after_s, lambda: b"!")
    try:
        yield kept
    finally:
        kept.close()


async def some_time() -> None:
    """Wait until a silence that began together with those of a test has been filled several times."""
    reader = Reader()
    with silence(reader) as one:
        one.begin()
        await until(lambda: len(reader.got) > 3)


async def test_something_is_sent_after_each_silence() -> None:
    reader = Reader()
    with silence(reader) as one:
        one.begin()
        await until(lambda: len(reader.got) > 2)
        one.end()
        sent = len(reader.got)
        one.begin()
        await until(lambda: len(reader.got) > sent)


async def test_nothing_is_sent_to_a_reader_that_has_not_taken_what_there_was() -> None:
    reader = Reader()
    reader.buffered = 1
    with silence(reader) as one:
        one.begin()
        await until(lambda: reader.looks > 2)
        assert reader.got == []
        reader.buffered = 0
        await until(lambda: len(reader.got) > 0)


async def test_nothing_is_sent_where_there_is_no_silence_or_nobody_to_read() -> None:
    busy, gone, plain, closed = Reader(), Reader(connected=False), Reader(), Reader()
    with silence(busy) as first, silence(gone) as second, silence(plain, 0.0) as third, silence(closed) as fourth:
        for one in (first, second, third, fourth):
            one.begin()
        first.end()
        fourth.close()
        await some_time()
    assert [reader.got for reader in (busy, gone, plain, closed)] == [[], [], [], []]
    assert (busy.looks, closed.looks) == (0, 0)


async def test_nothing_is_sent_when_the_next_event_has_come_before_it_could_be() -> None:
    reader = Reader()
    with silence(reader) as one:
        reader.before_look = one.end
        one.begin()
        await some_time()
    assert (reader.looks, reader.got) == (0, [])


async def test_a_reader_that_is_gone_is_no_fault_of_the_silence() -> None:
    reader = Reader()
    reader.gone = True
    with silence(reader) as one:
        one.begin()
        await until(lambda: len(reader.got) > 1)


@pytest.mark.parametrize("fields", [{}, {"background": True}, {"segue": {"lean": True}}])
@pytest.mark.parametrize("resumed", [False, True])
async def test_every_stream_of_the_responses_api_is_kept_alive(fields: Json, resumed: bool) -> None:
    speak = asyncio.Event()
    turn = ScriptedTurn((Say(("hel",)), Wait(speak), Say(("lo",))))
    body = {"model": "m", "input": "x", "stream": True, **fields, **({"background": True} if resumed else {})}
    async with (
        listening(ScriptedUpstream([turn]), stream_keep_alive_s=SOON_S) as local,
        aiohttp.ClientSession(local.url) as client,
        client.post("/v1/responses", json=body) as created,
    ):
        reply = created
        if resumed:
            first = await created.content.readuntil(b"\n\n")
            ident = json.loads(first.partition(b"data: ")[2])["response"]["id"]
            reply = await client.get(f"/v1/responses/{ident}?stream=true")
        text = b""
        while text.count(COMMENT) < 3:
            text += await reply.content.readany()
        speak.set()
        text += await reply.content.read()
    assert text.endswith(b"data: [DONE]\n\n")
