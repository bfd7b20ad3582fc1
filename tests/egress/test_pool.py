"""Connections: which are kept, which are not used any more, and that no request is ever sent twice."""

from __future__ import annotations

import asyncio

import pytest

from segue.egress.client import Egress
from segue.egress.errors import EgressError
from segue.egress.limits import EgressLimits
from segue.http.routes import Resolved, parse_target
from tests.egress.asking import Early, error_of, fetch, request, to, until, whole
from tests.egress.provider import CLOSE, HANG, RESET, Connection, Provider, Step, answer, head, sse
from tests.loop_clock import LoopClock


async def test_a_connection_read_to_its_end_is_used_again(egress: Egress) -> None:
    """One after the other; at once there are two."""
    gate = asyncio.Event()
    async with Provider([answer(b"1"), answer(b"2"), [gate, answer(b"3")], answer(b"4")]) as provider:
        await fetch(egress, provider)
        await fetch(egress, provider)
        assert len(provider.connections) == 1
        provider.asked.clear()
        third = asyncio.ensure_future(fetch(egress, provider))
        await provider.asked.wait()
        assert (await fetch(egress, provider))[1] == b"4"
        gate.set()
        assert (await third)[1] == b"3"
        assert len(provider.connections) == 2


@pytest.mark.parametrize("how", [CLOSE, RESET])
async def test_a_connection_that_died_while_it_was_kept_is_not_used(egress: Egress, how: Step) -> None:
    """The request goes out once, on a new one."""
    async with Provider([[answer(b"1"), how], answer(b"2")]) as provider:
        await fetch(egress, provider)
        await provider.connections[0].closed.wait()
        assert (await fetch(egress, provider))[1] == b"2"
        assert len(provider.requests) == 2
        assert len(provider.connections) == 2


async def test_what_comes_unasked_is_not_taken_for_an_answer(egress: Egress) -> None:
    """Some servers say 408 before they close an idle connection."""
    async with Provider([[answer(b"1"), answer(b"unasked", status=408)], answer(b"2")]) as provider:
        await fetch(egress, provider)
        await until(lambda: provider.connections[0].sent_bytes > len(answer(b"1")))
        assert (await fetch(egress, provider))[1] == b"2"


@pytest.mark.parametrize("how", [CLOSE, RESET])
@pytest.mark.parametrize("kept", [False, True])
async def test_a_request_is_never_sent_twice(egress: Egress, how: Step, kept: bool) -> None:
    """Once it went out, on a kept connection or a new one, nobody knows what it did."""
    first = [answer(b"1")] if kept else []
    async with Provider([*first, [how]]) as provider:
        for _ in first:
            await fetch(egress, provider)
        error = await error_of(egress, to(provider, b"/x?key=secret"))
        assert (error.code, error.sent) == ("upstream_closed", True)
        assert f"127.0.0.1:{provider.port} closed the connection before it answered" in error.message
        assert len(provider.requests) == len(first) + 1
        assert len(provider.connections) == 1


async def test_closing_an_answer_early_closes_its_connection(egress: Egress) -> None:
    """So that the provider stops making it."""
    async with Provider([[*sse([b"1"])[:2], HANG], answer(b"next")]) as provider:
        reply = await egress.open(to(provider), request(), b"{}")
        assert await reply.read() == b"data: 1\n\n"
        await reply.aclose()
        await provider.connections[0].closed.wait()
        with pytest.raises(EgressError):
            await reply.read()
        await reply.aclose()
        assert (await fetch(egress, provider))[1] == b"next"


async def test_closing_an_answer_that_somebody_reads_wakes_him(egress: Egress) -> None:
    """With an error: it did not end."""
    async with Provider([[head(200), HANG]]) as provider:
        reply = await egress.open(to(provider), request(), b"{}")
        reader = asyncio.ensure_future(reply.read())
        await asyncio.sleep(0)
        await reply.aclose()
        with pytest.raises(EgressError):
            await reader
        await provider.connections[0].closed.wait()


@pytest.mark.parametrize("has_head", [False, True])
async def test_a_cancelled_request_closes_its_connection(egress: Egress, has_head: bool) -> None:
    """That is how an agent hangs up."""
    async with Provider([[head(200) if has_head else b"", HANG]]) as provider:
        task = asyncio.ensure_future(fetch(egress, provider))
        await provider.asked.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if has_head:
            await egress.aclose()
        await provider.connections[0].closed.wait()


async def test_more_requests_than_allowed_wait_for_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not for ever."""
    gate = asyncio.Event()
    limits = EgressLimits(connect_s=60.0, requests=2)
    async with Egress(limits=limits) as egress, Provider(lambda _: [gate, answer(b"x")]) as provider:
        tasks = [asyncio.ensure_future(fetch(egress, provider)) for _ in range(5)]
        await until(lambda: len(provider.requests) == 2)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(provider.requests) == 2
        tasks.pop().cancel()
        gate.set()
        assert [body for _, body in await asyncio.gather(*tasks)] == [b"x"] * 4
        assert len(provider.connections) <= 2
    async with Egress(limits=EgressLimits(connect_s=60.0, requests=1)) as egress, Provider([[HANG]]) as provider:
        first = asyncio.ensure_future(fetch(egress, provider))
        await provider.asked.wait()
        error = await LoopClock(monkeypatch).hurry(error_of(egress, to(provider)))
        assert (error.code, error.sent) == ("upstream_busy", False)
        first.cancel()


async def test_a_hundred_requests_run_at_once(egress: Egress) -> None:
    """None waits for another."""
    everybody = asyncio.Barrier(101)

    async def together(_: Connection) -> None:
        await everybody.wait()

    async with Provider(lambda asked: [together, answer(asked.body or b"")]) as provider:
        bodies = [b"%d" % number for number in range(100)]
        tasks = [asyncio.ensure_future(fetch(egress, provider, body)) for body in bodies]
        await everybody.wait()
        assert [body for _, body in await asyncio.gather(*tasks)] == bodies


async def test_a_kept_connection_is_closed_after_a_while() -> None:
    """Before the server would."""
    async with Egress(limits=EgressLimits(idle_s=0.02)) as egress, Provider([answer(b"1"), answer(b"2")]) as provider:
        await fetch(egress, provider)
        await provider.connections[0].closed.wait()
        assert (await fetch(egress, provider))[1] == b"2"


async def test_only_so_many_connections_are_kept() -> None:
    """The others are closed when they are not used any more."""
    gate = asyncio.Event()
    limits = EgressLimits(idle_connections=1, idle_s=60.0)
    async with Egress(limits=limits) as egress, Provider(lambda _: [gate, answer(b"x")]) as provider:
        tasks = [asyncio.ensure_future(fetch(egress, provider)) for _ in range(3)]
        await until(lambda: len(provider.requests) == 3)
        gate.set()
        await asyncio.gather(*tasks)
        await until(lambda: sum(connection.closed.is_set() for connection in provider.connections) == 2)
        await fetch(egress, provider)
        assert len(provider.connections) == 3


async def test_closing_closes_everything() -> None:
    """What is kept, and what is in use, which fails."""
    async with Provider([answer(b"1"), [head(200), HANG], [head(200), HANG]]) as provider:
        egress = Egress()
        await fetch(egress, provider)
        used = await egress.open(to(provider), request(), b"")
        other = await egress.open(to(provider), request(), b"")
        await egress.aclose()
        for reply in (used, other):
            with pytest.raises(EgressError):
                await reply.read()
        await asyncio.gather(*(connection.closed.wait() for connection in provider.connections))


async def test_targets_with_different_paths_share_connections(egress: Egress) -> None:
    """They are one server."""
    async with Provider([answer(b"1"), answer(b"2")]) as provider:
        for path in ("/a", "/b"):
            where = Resolved(target=parse_target(provider.url + path), path=path.encode())
            await whole(await egress.open(where, request(), b""))
        assert len(provider.connections) == 1


async def test_an_answer_that_comes_before_the_request_is_out_is_given_at_once(egress: Egress) -> None:
    """The provider reads no more of it; its connection is not used again."""

    async def refuse(connection: Connection) -> None:
        await connection.write(answer(b"no", status=429))
        await asyncio.Event().wait()

    async with Early(refuse) as provider:
        for number in (1, 2):
            got, body = await fetch(egress, provider, b"x" * 30_000_000)
            assert (got.status, body) == (429, b"no")
            assert len(provider.connections) == number


async def test_silence_is_counted_from_the_end_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long upload is no silence; a provider that stops reading is."""
    clock, slow = LoopClock(monkeypatch), asyncio.Event()

    async def read_late(connection: Connection) -> None:
        slow.set()
        await asyncio.Event().wait()

    limits = EgressLimits(silence_s=60.0)
    async with Egress(limits=limits) as egress, Early(read_late) as deaf:
        asking = asyncio.create_task(error_of(egress, to(deaf), b"x" * 30_000_000))
        await slow.wait()
        error = await clock.hurry(asking)
        assert error.sent
    async with Egress(limits=limits) as egress, Provider([[HANG]]) as provider:
        asking = asyncio.create_task(error_of(egress, to(provider), b"x" * 1_000_000))
        await provider.asked.wait()
        error = await clock.hurry(asking)
        assert (error.code, error.sent) == ("upstream_timeout", True)
        assert len(provider.requests[0].body or b"") == 1_000_000
