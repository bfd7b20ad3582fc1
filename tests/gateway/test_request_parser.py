"""Large requests are read in another thread, one after the other and for tenants in turn; small ones at once."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from segue.gateway import request_parser
from segue.gateway.request_parser import LARGE_BYTES, RequestParser
from segue.http.client_frames import TextPieces
from segue.protocol.problems import Problem
from segue.protocol.request_size import RequestLimits
from segue.protocol.requests import Create
from segue.upstreams.time_slices import TimeSlices


def body(size: int = 0, **fields: object) -> bytes:
    return json.dumps({"type": "response.create", "model": "m", "input": "x" * size or "x", **fields}).encode()


async def test_where_a_request_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def read(*_: object) -> Problem:
        threads.append(threading.current_thread() is threading.main_thread())
        return Problem("invalid_json", "")

    monkeypatch.setattr(request_parser, "parse_create", read)
    monkeypatch.setattr(request_parser, "parse_message", read)
    parser = RequestParser(RequestLimits())
    for size in (0, LARGE_BYTES):
        await parser.create(body(size), "ann")
        await parser.message(body(size), "ann")
    assert threads == [True, True, False, False]


async def test_a_large_request_is_read_in_slices_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    paused: list[bool] = []
    monkeypatch.setattr(TimeSlices, "pause", lambda _: paused.append(threading.current_thread().name == "MainThread"))
    parser = RequestParser(RequestLimits())
    items = [{"role": "user", "content": "x"}]
    assert isinstance(await parser.create(body(input=items * 20), "ann"), Create)
    assert not paused
    assert isinstance(await parser.create(body(input=items * 5000), "ann"), Create)
    assert set(paused) == {False}


async def test_both_transports_have_the_limits() -> None:
    parser = RequestParser(RequestLimits(items=1))
    two = [{"role": "user", "content": "x" * LARGE_BYTES}] * 2
    for given, whole in (("x", True), ("x" * LARGE_BYTES, True), (two, False)):
        create = await parser.create(body(input=given), "ann")
        message = await parser.message(body(input=given), "ann")
        assert message is not None
        assert (isinstance(create, Create), isinstance(message.request, Create)) == (whole, whole)


async def test_a_tenant_with_many_delays_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one whose request takes very long."""
    gate = threading.Event()

    def read(data: bytes, *_: object) -> Problem:
        assert json.loads(data)["model"] == "bob" or gate.wait(60)
        return Problem("invalid_json", "")

    monkeypatch.setattr(request_parser, "parse_create", read)
    parser = RequestParser(RequestLimits())
    crowd = [asyncio.ensure_future(parser.create(body(LARGE_BYTES, model="ann"), "ann")) for _ in range(8)]
    await asyncio.sleep(0)
    other = asyncio.ensure_future(parser.create(body(LARGE_BYTES, model="bob"), "bob"))
    small = asyncio.ensure_future(RequestParser(RequestLimits()).message(body(), "bob"))
    await asyncio.wait_for(asyncio.gather(small, other), 60)
    assert not any(one.done() for one in crowd)
    gate.set()
    await asyncio.gather(*crowd)


@pytest.mark.parametrize("size", [1, LARGE_BYTES])
async def test_a_message_that_is_no_text_is_none(size: int) -> None:
    parser = RequestParser(RequestLimits())
    assert await parser.message(body(size).replace(b"x", b"\xff", 1), "ann") is None
    assert await parser.message(body(size).replace(b"x", "é".encode(), 1), "ann") is not None


@pytest.mark.parametrize("size", [10, LARGE_BYTES])
async def test_a_text_in_pieces_becomes_whole(size: int) -> None:
    text, whole = TextPieces(lambda mask, data: None), b"ab" * size
    for at in range(0, len(whole), 50_000):
        text.add(whole[at : at + 50_000], bytes(4))
    assert await RequestParser(RequestLimits()).whole(text, "alice") == whole
