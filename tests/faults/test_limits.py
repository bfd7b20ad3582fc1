"""The limits of connections and of memory, on real sockets."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from websockets.exceptions import InvalidStatus

from segue.testing.protocol_checker import check_error, parse_json
from segue.upstreams.scripted import Say, ScriptedTurn, ScriptedUpstream, Wait, say
from tests.faults.clients import Socket, http, narrow, opened, output_text
from tests.faults.doubles import Gated
from tests.faults.gateways import listening, settled, until

SHORT_S = 0.05
#: Long enough for a request to arrive on a busy machine.
LONGER_S = 0.5
LIMIT = "websocket_connection_limit_reached"


async def test_an_idle_connection_at_its_age_limit_is_told_and_closed() -> None:
    """First the error, then the close, so that a client knows to connect again."""
    async with listening(max_age_s=SHORT_S) as local, opened(local.url) as socket:
        await socket.frame()
        (end,) = socket.checker.turns
        assert end.error is not None
        assert end.error["code"] == LIMIT
        assert await socket.close_code() == 1001


async def test_a_running_turn_ends_before_the_age_limit_closes() -> None:
    """Its terminal event comes, then what was queued is refused, each in its place, then the close."""
    gate = asyncio.Event()
    upstream = ScriptedUpstream([ScriptedTurn((Say(("half",)), Wait(gate), Say((" and half",))))])
    async with listening(upstream, max_age_s=LONGER_S) as local, opened(local.url) as socket:
        await socket.create()
        await socket.until("response.output_text.delta")
        for _ in range(3):
            await socket.create()
        # The session's own timer was set before this one, for an earlier time: the loop calls it first.
        asyncio.get_running_loop().call_later(LONGER_S, gate.set)
        answer = (await socket.answer()).response
        assert answer is not None
        assert output_text(answer) == "half and half"
        refusals = [await socket.answer() for _ in range(3)]
        assert [turn.error and turn.error["code"] for turn in refusals] == [LIMIT] * 3
        assert await socket.close_code() == 1001
        upstream.assert_done()


async def test_a_client_that_pipelines_into_the_age_limit_is_told() -> None:
    """With thousands of requests still on their way, the answers, the errors and the close arrive."""
    upstream = Gated()
    async with listening(upstream, max_age_s=LONGER_S) as local, opened(local.url) as socket:
        await socket.create()
        await socket.until("response.in_progress")
        sending = asyncio.create_task(_send_many(socket, 3000))
        await settled(local.received_bytes)
        asyncio.get_running_loop().call_later(LONGER_S, upstream.gate.set)
        assert (await socket.answer()).response is not None
        assert await socket.close_code(after_frames=True) == 1001
        refused = [turn.error and turn.error["code"] for turn in socket.checker.turns[1:]]
        assert refused == [LIMIT] * len(refused)
        assert len(refused) >= local.gateway.config.server.max_queued
        await asyncio.gather(sending, return_exceptions=True)


async def test_a_slow_client_gets_everything_before_the_close() -> None:
    """It reads only after the gateway is done with it, and it has sent what nobody will read: nothing is lost."""
    upstream = Gated(deltas=10, delta_bytes=100_000)
    async with listening(upstream, max_age_s=LONGER_S, max_queued=4) as local:
        async with opened(local.url, through=narrow(local.url)) as socket:
            await socket.create(store=False)
            await socket.until("response.in_progress")
            sending = asyncio.create_task(_send_many(socket, 300))
            await settled(local.received_bytes)
            asyncio.get_running_loop().call_later(LONGER_S, upstream.gate.set)
            await settled(socket.unread_bytes)
            answer = (await socket.answer()).response
            assert answer is not None
            assert len(output_text(answer)) == 1_000_000
            assert await socket.close_code(after_frames=True) == 1001
            await asyncio.gather(sending, return_exceptions=True)
        await local.rest()


async def test_a_connection_without_turns_is_closed_as_idle() -> None:
    """Without an error: nothing was asked."""
    async with listening(idle_timeout_s=SHORT_S) as local:
        async with opened(local.url) as socket:
            assert await socket.close_code() == 1001
        await local.rest()


async def test_a_long_turn_is_not_idle() -> None:
    """The timeout counts from the end of the last turn."""
    gate = asyncio.Event()
    upstream = ScriptedUpstream([ScriptedTurn((Say(("half",)), Wait(gate))), say("more")])
    async with listening(upstream, idle_timeout_s=LONGER_S) as local, opened(local.url) as socket:
        await socket.create()
        await socket.until("response.output_text.delta")
        asyncio.get_running_loop().call_later(1.5 * LONGER_S, gate.set)
        assert (await socket.answer()).response is not None
        assert await socket.close_code() == 1001


async def test_one_connection_too_many_is_refused_with_503() -> None:
    """A plain HTTP answer; when another connection closes there is room again."""
    async with listening(max_connections=1) as local:
        async with opened(local.url) as socket:
            with pytest.raises(InvalidStatus) as refusal:
                async with opened(local.url):
                    pass
            reply = refusal.value.response
            body = parse_json((reply.body or b"").decode())
            check_error(body)
            assert (reply.status_code, body["error"]["code"]) == (503, "server_overloaded")
            assert reply.headers["Retry-After"] == "1"
            assert (await socket.turn())["status"] == "completed"
        await until(lambda: not local.gateway.services.drain.connections)
        async with opened(local.url) as socket:
            assert (await socket.turn())["status"] == "completed"


async def test_connections_that_come_at_once_are_counted_too() -> None:
    """Not more than allowed get in, however they arrive."""
    async with listening(max_connections=5) as local, AsyncExitStack() as stack:
        sockets = [stack.enter_async_context(opened(local.url)) for _ in range(20)]
        opened_or_refused = await asyncio.gather(*sockets, return_exceptions=True)
        refused = [answer for answer in opened_or_refused if isinstance(answer, InvalidStatus)]
        assert (len(refused), local.gateway.services.drain.connections) == (15, 5)


async def test_memory_keeps_its_budget_at_the_cost_of_the_idlest() -> None:
    """Of many connections the ones that were idle longest lose what they could continue, and are told."""
    budget = 300_000
    async with listening(memory_budget_bytes=budget) as local, http(local.url) as client, AsyncExitStack() as stack:
        lanes = [await stack.enter_async_context(opened(local.url)) for _ in range(30)]
        latest = [(await lane.turn("x" * 20_000, store=False))["id"] for lane in lanes]
        assert local.gateway.services.cache.size_bytes <= budget
        assert (await lanes[-1].turn(store=False, previous_response_id=latest[-1]))["status"] == "completed"
        lost = await lanes[0].refusal(store=False, previous_response_id=latest[0])
        assert lost["code"] == "previous_response_not_found"
        assert (await lanes[0].turn("all of it again", store=False))["status"] == "completed"
        async with client.session.get("/metrics") as reply:
            metrics = await reply.text()
        evictions = next(line for line in metrics.splitlines() if line.startswith("segue_cache_evictions_total"))
        assert float(evictions.split()[1]) > 10
        await stack.aclose()
        await client.session.close()
        await local.rest()


async def _send_many(socket: Socket, count: int) -> None:
    for _ in range(count):
        await socket.create("x" * 4000)
