"""Cancelled turns: their connections are broken, also in the middle of an upload, and no other turn's is."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from segue.protocol.items import user_message
from segue.upstreams.retries import RetryPolicy
from tests.upstreams.http_turns import ANSWERS, answer, request, upstream
from tests.upstreams.plain_dialect import END, say
from tests.upstreams.provider import PATIENCE_S, Exchange, hangs, providing, refuses, streams


async def test_whoever_stops_asking_breaks_the_connection() -> None:
    async def talks(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(say("Hel"))
        await exchange.gone.wait()

    async with providing(talks) as provider, upstream(provider.url) as one:
        async with aclosing(one.stream(request())) as batches:
            async for batch in batches:
                if batch:
                    break
        await provider.until(lambda: provider.gone == 1)
        assert one.admission.running == 0


async def test_a_turn_that_is_cancelled_before_the_answer_breaks_the_connection() -> None:
    async with providing(hangs) as provider, upstream(provider.url) as one:
        turn = asyncio.create_task(answer(one))
        await provider.until(lambda: len(provider.got) == 1)
        turn.cancel()
        await provider.until(lambda: provider.gone == 1)
        assert one.admission.running == 0


async def test_a_turn_that_is_cancelled_in_the_middle_of_its_upload_breaks_the_connection() -> None:
    """The connection breaks even though the provider does not read the upload."""
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    listening = await asyncio.start_server(lambda *ends: accepted.put_nowait(ends), "127.0.0.1", 0, limit=1024)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with upstream(url) as one:
        turn = asyncio.create_task(answer(one, request(user_message("x" * 20_000_000))))
        reader, writer = await accepted.get()
        await reader.read(1)
        turn.cancel()
        async with asyncio.timeout(PATIENCE_S):
            assert len(await reader.read()) < 15_000_000  # what the kernels held of it, and then an end
        writer.close()
    listening.close()
    await listening.wait_closed()


async def test_a_turn_that_is_cancelled_while_it_waits_for_another_try_is_over() -> None:
    patient = RetryPolicy(attempts=2, first_wait_s=60.0, longest_wait_s=60.0)
    async with providing(refuses(503)) as provider, upstream(provider.url, retry=patient) as one:
        turn = asyncio.create_task(answer(one))
        await provider.until(lambda: len(provider.got) == 1)
        await asyncio.sleep(0)
        turn.cancel()
        await asyncio.wait([turn])
        assert (turn.cancelled(), one.admission.running) == (True, 0)


async def test_giving_up_a_turn_whose_reply_has_arrived_does_not_break_anothers() -> None:
    """The connection of a reply that came to its end may be another turn's by now."""
    many = say("x" * 100) * 50 + END
    async with providing(streams(many), ANSWERS) as provider, upstream(provider.url) as one:
        first = one.stream(request())
        assert await anext(first) == ()
        while not (await anext(first)):
            pass
        await first.aclose()
        assert (await answer(one))[0] == "Hello"


async def test_a_slow_reader_slows_its_own_provider() -> None:
    """The client reads from the provider only when the turn's consumer asks for more."""
    sent = 0

    async def pours(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.head()
        while not exchange.gone.is_set():
            await exchange.chunk(say("x" * 10_000))
            sent += 10_000

    async with providing(pours) as provider, upstream(provider.url) as one:
        async with aclosing(one.stream(request())) as batches:
            assert await anext(batches) == ()
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.05)
            assert sent < 20_000_000
            await anext(batches)
        await provider.until(lambda: provider.gone == 1)


async def test_closing_ends_what_is_left() -> None:
    async def lingers(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(END)
        await exchange.gone.wait()

    async with providing(lingers) as provider:
        async with upstream(provider.url) as one:
            await answer(one)
        await provider.until(lambda: provider.gone == 1)
