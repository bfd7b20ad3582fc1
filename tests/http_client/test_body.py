"""The body in pieces: how pieces are coalesced, and what aiohttp is given."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.http_client.body import WRITE_BYTES, JsonBody, coalesce
from tests.upstreams.provider import PATIENCE_S, providing, refuses, streams


@given(st.lists(st.integers(0, 300), max_size=12))
def test_pieces_are_coalesced_and_never_cut(sizes: list[int]) -> None:
    pieces = [bytes([65 + number]) * size for number, size in enumerate(sizes)]
    made = list(coalesce(pieces, size=100))
    assert b"".join(made) == b"".join(pieces)
    assert all(max(len(block), len(following)) >= 100 for block, following in pairwise(made))
    assert all(piece in made for piece in pieces if len(piece) >= 100)


def test_a_document_is_the_joined_pieces() -> None:
    body = JsonBody((b'{"a":', '"ü"'.encode(), b"}"))
    assert (body.decode(), body.size, body.content_type) == ('{"a":"ü"}', 10, "application/json")


@pytest.mark.parametrize(
    "sizes", [(), (0,), (1, 2, 3), (WRITE_BYTES, 1, WRITE_BYTES + 1), (300_000, 5, 20_000, 70_000)]
)
async def test_a_body_is_sent_whole_and_can_be_sent_again(sizes: tuple[int, ...]) -> None:
    """It is sent with its length: some providers refuse a chunked body."""
    pieces = tuple(bytes([97 + number]) * size for number, size in enumerate(sizes))
    body = JsonBody(pieces)
    async with providing(streams()) as provider, aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.post(provider.url, data=body) as response:
                await response.read()
            assert body.written
    assert [got.body for got in provider.got] == [b"".join(pieces)] * 2
    assert {got.headers["content-length"] for got in provider.got} == {str(sum(sizes))}


async def test_a_document_that_was_written_can_be_given_up() -> None:
    """Before, that does nothing: it is needed still."""
    body = JsonBody((b"x" * 100,))
    body.forget()
    assert body.decode() == "x" * 100
    async with (
        providing(streams()) as provider,
        aiohttp.ClientSession() as session,
        session.post(provider.url, data=body) as response,
    ):
        await response.read()
    body.forget()
    assert (body.decode(), body.size, body.written) == ("", 100, True)


async def test_aborting_breaks_an_upload_off() -> None:
    """The provider reads nothing, so that the upload would never end."""
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    listening = await asyncio.start_server(lambda *ends: accepted.put_nowait(ends), "127.0.0.1", 0, limit=1024)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    body = JsonBody((b"x" * 20_000_000,))
    async with aiohttp.ClientSession() as session:
        asking = asyncio.create_task(session.post(url, data=body))
        reader, writer = await accepted.get()
        await reader.readuntil(b"\r\n\r\n")
        body.abort()
        with pytest.raises(aiohttp.ClientError):
            await asking
        async with asyncio.timeout(PATIENCE_S):
            assert len(await reader.read()) < 15_000_000  # what the kernels held of it, and then an end
        assert not body.written
        writer.close()
    listening.close()
    await listening.wait_closed()


async def test_aborting_what_was_never_sent_does_nothing() -> None:
    body = JsonBody((b"{}",))
    body.abort()
    async with (
        providing(refuses(200)) as provider,
        aiohttp.ClientSession() as session,
        session.post(provider.url, data=body) as response,
    ):
        assert response.status == 200
    assert provider.got[0].body == b"{}"
