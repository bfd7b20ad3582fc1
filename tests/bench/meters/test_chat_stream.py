"""The times of a streamed answer, and what is not one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from segue.bench.meters.chat_stream import ChatStreamError, TimedAnswer, ask

ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'
TEXT = b'data: {"choices":[{"delta":{"content":"one "}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":5}}\n\ndata: [DONE]\n\n'


@asynccontextmanager
async def served(lines: Sequence[bytes], status: int = 200) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        assert (asked["model"], asked["max_tokens"], asked["temperature"]) == ("m", 5, 0)
        reply = web.StreamResponse(status=status)
        await reply.prepare(request)
        for line in lines:
            await reply.write(line)
        return reply

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def asked(url: str) -> TimedAnswer:
    async with aiohttp.ClientSession() as session:
        return await ask(session, url, [{"role": "user", "content": "Count."}], model="m", tokens=5)


async def test_an_answer_is_told_with_its_times_and_counts() -> None:
    async with served([ROLE, TEXT, b": a comment\n\n", TEXT, USAGE]) as url:
        answer = await asked(url)
    assert (answer.text, answer.prompt_tokens, answer.output_tokens) == ("one one ", 7, 5)
    assert 0 < answer.first_token_s <= answer.time_s
    assert answer.tokens_s is not None


async def test_a_speed_needs_a_second_token() -> None:
    answer = TimedAnswer(text="a", prompt_tokens=1, output_tokens=1, first_token_s=1, time_s=2)
    assert answer.tokens_s is None


@pytest.mark.parametrize(
    ("lines", "status", "said"),
    [([b"busy"], 503, "HTTP 503: busy"), ([TEXT], 200, "without an answer"), ([USAGE], 200, "without an answer")],
)
async def test_what_is_no_answer_is_an_error(lines: list[bytes], status: int, said: str) -> None:
    async with served(lines, status) as url:
        with pytest.raises(ChatStreamError, match=said):
            await asked(url)
