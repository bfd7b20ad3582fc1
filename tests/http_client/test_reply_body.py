"""What arrived of a reply is read, also when its connection is broken by then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from segue.http_client.reply_body import read_piece, read_start
from segue.testing.provider import Answer, Framing, provided

PIECES = tuple(b"%d" % number * 5_000 for number in range(8))
WHOLE = b"".join(PIECES)


@asynccontextmanager
async def reply(answer: Answer) -> AsyncIterator[aiohttp.StreamReader]:
    async with (
        provided(lambda _: answer) as provider,
        aiohttp.ClientSession() as session,
        session.get(provider.url) as response,
    ):
        yield response.content


async def broken(content: aiohttp.StreamReader) -> None:
    """Wait until the connection below a reply has broken; it tells nobody."""
    async with asyncio.timeout(10):
        while content.exception() is None:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)


async def read_to_its_end(content: aiohttp.StreamReader) -> bytes:
    read = b""
    try:
        while piece := await read_piece(content):
            read += piece
    except aiohttp.ClientPayloadError:
        return read + b"!"
    return read


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("cut_after", [1, 6_000, len(WHOLE) - 1])
async def test_what_came_before_a_reset_is_read_first(framing: Framing, cut_after: int) -> None:
    async with reply(Answer(pieces=PIECES, framing=framing, cut_after=cut_after)) as content:
        await broken(content)
        assert await read_to_its_end(content) == WHOLE[:cut_after] + b"!"
        assert await read_to_its_end(content) == b"!"


async def test_a_whole_reply_ends_without_an_error() -> None:
    async with reply(Answer(pieces=PIECES)) as content:
        assert await read_to_its_end(content) == WHOLE


@pytest.mark.parametrize(
    ("answer", "limit", "expected"),
    [
        (Answer(pieces=(b"no, ", b"never"), framing="chunked"), 100, b"no, never"),
        (Answer(pieces=(b"no, ", b"never"), framing="chunked"), 3, b"no,"),
        (Answer(pieces=(b"no", b""), framing="chunked", gates={1: asyncio.Event()}), 100, b"no"),
    ],
    ids=["whole", "too long", "never ends"],
)
async def test_as_much_of_an_error_is_read_as_may_matter(answer: Answer, limit: int, expected: bytes) -> None:
    async with (
        provided(lambda _: answer) as provider,
        aiohttp.ClientSession() as session,
        session.get(provider.url) as response,
    ):
        assert await read_start(response, limit=limit, patience_s=0.1) == expected
        response.close()
