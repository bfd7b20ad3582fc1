"""Gateways that restart, die and leave: what may have been forwarded is never sent again, and all else is."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from segue.http.heads import Line
from segue.sidecar.app import SidecarSettings
from segue.sidecar.link_status import LinkTimeouts
from segue.testing.link import EmulatedLink, linked
from segue.testing.provider import Answer, ReceivedRequest, Script, ScriptedProvider, provided
from tests.faults.clients import address_of
from tests.faults.gateways import Process, serving, until
from tests.faults.tunnels import PATIENT, Way, body_of, is_whole, status_of, tunnelled
from tests.sidecar.agents import RawAgent
from tests.sidecar.sidecars import Running, post
from tests.sidecar.sidecars import running as sidecar_running

SSE = (Line(b"Content-Type", b"text/event-stream"),)
BODY = json.dumps({"messages": [{"role": "user", "content": "why? " * 400}]}).encode()
NEXT = BODY[:-2] + b', {"role": "user", "content": "and then?"}]}'


#: What keeps SDKs from sending a request again by themselves.
UNREPEATABLE = b"\r\nx-should-retry: false\r\n"


def at_once(_: ReceivedRequest) -> Answer:
    return Answer(lines=SSE, pieces=(b"data: 1\n\n", b"data: 2\n\n"))


def error_code(response: bytes) -> str:
    code: str = json.loads(body_of(response))["error"]["code"]
    return code


# --- a restart -------------------------------------------------------------------------------------------------------


async def test_a_restart_between_requests_loses_the_bases_and_nothing_else() -> None:
    async with tunnelled(at_once) as way:
        await way.post(BODY)
        await way.node.stop()
        await way.node.start()
        assert body_of(await way.post(NEXT)) == b"data: 1\n\ndata: 2\n\n"
        assert way.bodies == [BODY, NEXT]
        assert (await way.sidecar.stats())["base_misses"] == 1


async def test_a_restart_before_the_request_was_complete_is_a_pause() -> None:
    async with tunnelled(at_once) as way:
        cut = way.link.cut_after(up_bytes=60)
        asking = asyncio.create_task(way.post(BODY))
        async with way.link.refusing():
            await asyncio.wait_for(cut.wait(), 20)
            await way.node.stop()
            await way.node.start()
        response = await asking
        assert len(way.provider.requests) <= 1
        if way.provider.requests:
            assert body_of(response) == b"data: 1\n\ndata: 2\n\n"
        else:  # its last byte had left: it may have been forwarded, for all the sidecar knows
            assert (status_of(response), error_code(response)) == (424, "segue_outcome_unknown")
            assert UNREPEATABLE in response


async def test_a_restart_after_the_forward_and_before_the_head_is_told_and_nothing_is_sent_again() -> None:
    hanging = asyncio.Event()
    async with tunnelled(lambda _: Answer(before=hanging)) as way:
        asking = asyncio.create_task(way.post(BODY))
        await asyncio.wait_for(way.provider.seen(1), 20)
        await way.node.stop()
        await way.node.start()
        response = await asking
        assert (status_of(response), error_code(response)) == (424, "segue_outcome_unknown")
        assert UNREPEATABLE in response
        assert way.bodies == [BODY]


async def test_a_restart_within_the_reply_cuts_it_for_the_agent_too() -> None:
    hanging = asyncio.Event()

    def script(_: ReceivedRequest) -> Answer:
        return Answer(lines=SSE, pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: hanging})

    async with tunnelled(script) as way:
        agent = await way.connect()
        await agent.send(post(BODY, target="/v1/messages"))
        begun = await agent.until(b"data: 1\n\n")
        await way.node.stop()
        await way.node.start()
        rest = await asyncio.wait_for(agent.rest(), 30)
        assert status_of(begun) == 200
        assert not is_whole(begun + rest)
        assert way.bodies == [BODY]


async def test_a_drain_moves_new_requests_to_the_next_gateway_and_lets_old_ones_end() -> None:
    gate = asyncio.Event()

    def script(request: ReceivedRequest) -> Answer:
        return Answer(
            lines=SSE, pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: gate} if request.number == 0 else {}
        )

    async with tunnelled(script) as first, tunnelled(at_once) as second:
        urls = [f"ws://127.0.0.1:{way.node.port}" for way in (first, second)]
        async with sidecar_running(*urls, settings=PATIENT) as sidecar:
            await sidecar.linked()
            agent = await sidecar.connect()
            await agent.send(post(BODY, target="/v1/messages"))
            begun = await agent.until(b"data: 1\n\n")
            assert first.node.gateway is not None
            draining = asyncio.create_task(first.node.gateway.drain())
            await asyncio.wait_for(_until_at(sidecar, urls[1]), 20)
            assert body_of(await sidecar.post(NEXT, target="/v1/messages")) == b"data: 1\n\ndata: 2\n\n"
            gate.set()
            rest = await asyncio.wait_for(agent.rest(), 20)
            await asyncio.wait_for(draining, 20)
        assert body_of(begun + rest) == b"data: 1\n\ndata: 2\n\n"
        assert (first.bodies, second.bodies) == ([BODY], [NEXT])


@asynccontextmanager
async def draining_with_a_reply_begun(
    way: Way, gate: asyncio.Event
) -> AsyncIterator[tuple[asyncio.Task[None], RawAgent, bytes]]:
    """Begin a reply and then a drain; yields the drain, the agent and what it has. A failing test leaves at once."""
    gateway = way.node.gateway
    assert gateway is not None
    agent = await way.connect()
    await agent.send(post(BODY, target="/v1/messages"))
    begun = await agent.until(b"data: 1\n\n")
    draining = asyncio.create_task(gateway.drain())
    try:
        await until(lambda: way.sidecar.sidecar.report().link != "up")  # GOAWAY: the next session finds no gateway
        yield draining, agent, begun
    finally:
        gate.set()
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)


async def test_a_link_cut_while_its_node_drains_is_made_again_there() -> None:
    gate = asyncio.Event()

    def script(_: ReceivedRequest) -> Answer:
        return Answer(lines=SSE, pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: gate})

    async with tunnelled(script) as way, draining_with_a_reply_begun(way, gate) as (draining, agent, begun):
        way.link.cut()
        await until(lambda: way.sidecar.sidecar.stats.resumes == 1)
        gate.set()
        rest = await asyncio.wait_for(agent.rest(), 20)
        assert body_of(begun + rest) == b"data: 1\n\ndata: 2\n\n"
        await asyncio.wait_for(draining, 20)
        assert way.bodies == [BODY]


async def test_a_drain_waits_for_the_sidecar_whose_reply_is_complete_but_has_not_arrived() -> None:
    gate = asyncio.Event()

    def script(_: ReceivedRequest) -> Answer:
        return Answer(lines=SSE, pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: gate})

    async with tunnelled(script) as way, draining_with_a_reply_begun(way, gate) as (draining, agent, begun):
        assert way.node.gateway is not None
        tunnel = way.node.gateway.tunnel
        async with way.link.refusing():
            way.link.cut()
            gate.set()
            await until(lambda: not tunnel.exchanges)
        rest = await asyncio.wait_for(agent.rest(), 20)
        assert body_of(begun + rest) == b"data: 1\n\ndata: 2\n\n"
        await asyncio.wait_for(draining, 20)


async def test_a_drain_ends_as_soon_as_the_last_reply_has_arrived() -> None:
    """A sidecar that leaves acknowledges what it has, so that nobody waits for it."""
    gate = asyncio.Event()

    def script(_: ReceivedRequest) -> Answer:
        return Answer(lines=SSE, pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: gate})

    async with tunnelled(script) as way, draining_with_a_reply_begun(way, gate) as (draining, agent, begun):
        gate.set()
        rest = await asyncio.wait_for(agent.rest(), 20)
        assert is_whole(begun + rest)
        await asyncio.wait_for(draining, 10)


async def test_what_a_sidecar_has_when_it_stops_is_not_waited_for() -> None:
    async with tunnelled(at_once) as way:
        await way.post(BODY)
        await way.sidecar.sidecar.aclose()
        assert way.node.gateway is not None
        await asyncio.wait_for(way.node.gateway.drain(), 10)


async def _until_at(sidecar: Running, gateway: str) -> None:
    while not (sidecar.sidecar.report().gateway == gateway and sidecar.sidecar.report().link == "up"):  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.005)


async def test_the_second_gateway_is_used_when_the_first_is_not_there() -> None:
    async with tunnelled(at_once) as way:
        gone = "ws://127.0.0.1:1"
        async with sidecar_running(gone, f"ws://127.0.0.1:{way.node.port}", settings=PATIENT) as sidecar:
            assert body_of(await sidecar.post(BODY, target="/v1/messages")) == b"data: 1\n\ndata: 2\n\n"


async def test_without_any_gateway_the_agent_is_told_when_to_try_again() -> None:
    settings = SidecarSettings(gateways=(), timeouts=LinkTimeouts(wait_s=0.1))
    async with sidecar_running("ws://127.0.0.1:1", settings=settings) as sidecar:
        response = await sidecar.post(BODY, target="/v1/messages")
    assert (status_of(response), error_code(response)) == (503, "segue_gateway_unreachable")
    assert b"Retry-After: " in response
    assert UNREPEATABLE not in response


async def test_a_warm_start_sends_the_first_request_as_a_delta(tmp_path: Path) -> None:
    async with tunnelled(at_once, cache=tmp_path) as way:
        await way.post(BODY)
        first = way.link.up_bytes
        settings = msgspec.structs.replace(PATIENT, cache_directory=tmp_path)
        await way.sidecar.sidecar.aclose()
        async with sidecar_running(f"ws://127.0.0.1:{way.node.port}", settings=settings) as fresh:
            assert body_of(await fresh.post(NEXT, target="/v1/messages")) == b"data: 1\n\ndata: 2\n\n"
            stats = await fresh.stats()
        assert (stats["base_hits"], stats["base_misses"]) == (1, 0)
        assert stats["tunnel_bytes_up"] < first
        assert way.bodies == [BODY, NEXT]


async def test_bases_that_a_new_gateway_does_not_have_cost_one_full_send(tmp_path: Path) -> None:
    """The same task again, from a warm start, at a gateway that has started anew: only the first request misses."""
    said = [random.Random(turn).randbytes(1500).hex().encode() for turn in range(5)]
    bodies = [BODY + b"".join(said[: turn + 1]) for turn in range(5)]
    settings = msgspec.structs.replace(PATIENT, cache_directory=tmp_path)
    async with tunnelled(at_once, settings=settings, cache=tmp_path) as way:
        for body in bodies:
            await way.post(body)
        await way.sidecar.sidecar.aclose()
        await way.node.stop()
        await way.node.start()
        async with sidecar_running(f"ws://127.0.0.1:{way.node.port}", settings=settings) as fresh:
            for body in bodies:
                await fresh.post(body, target="/v1/messages")
            stats = await fresh.stats()
    assert (stats["base_misses"], stats["base_hits"]) == (1, 4)


# --- a process that is killed ----------------------------------------------------------------------------------------


@asynccontextmanager
async def killable(script: Script, folder: Path) -> AsyncIterator[tuple[Process, ScriptedProvider]]:
    """`segue serve` as a process, leading to a provider."""
    async with provided(script) as provider:
        config = folder / "segue.toml"
        config.write_text(
            f'[server]\nstore = "memory:"\n[[upstream]]\nname = "s"\ndialect = "scripted"\nmodels = ["s"]\n'
            f'[[route]]\npath = "/v1"\ntarget = "{provider.url}"\n'
        )
        async with serving(folder, "--config", str(config)) as process:
            yield process, provider


async def test_sigterm_waits_for_a_sidecar_whose_link_is_cut_meanwhile(tmp_path: Path) -> None:
    gate = asyncio.Event()
    said = [b"data: %s\n\n" % random.Random(number).randbytes(3000).hex().encode() for number in range(20)]

    def script(_: ReceivedRequest) -> Answer:
        return Answer(lines=SSE, pieces=tuple(said), gates={1: gate})

    async with (
        killable(script, tmp_path) as (process, provider),
        linked("127.0.0.1", address_of(process.url)[1]) as link,
        sidecar_running(link.url, settings=PATIENT) as sidecar,
    ):
        await sidecar.linked()
        agent = await sidecar.connect()
        await agent.send(post(BODY, target="/v1/messages"))
        begun = await agent.until(said[0])
        process.terminate()
        await until(lambda: sidecar.sidecar.report().link != "up")
        cut = link.cut_after(down_bytes=10_000)
        gate.set()
        await asyncio.wait_for(cut.wait(), 20)
        rest = await asyncio.wait_for(agent.rest(), 20)
        assert body_of(begun + rest) == b"".join(said)
        assert sidecar.sidecar.stats.resumes == 1
        assert await process.ended() == (0, "")
        assert [request.body for request in provider.requests] == [BODY]


async def test_kill_before_the_forward_is_told_since_nobody_can_know(tmp_path: Path) -> None:
    async with killable(at_once, tmp_path) as (process, provider), tunnelled(at_once) as way:
        async with linked("127.0.0.1", int(process.url.rpartition(":")[2])) as link:
            urls = (f"ws://{link.host}:{link.port}", f"ws://127.0.0.1:{way.node.port}")
            async with sidecar_running(*urls, settings=PATIENT) as sidecar:
                await sidecar.linked()
                link.blackhole()
                asking = asyncio.create_task(sidecar.post(BODY, target="/v1/messages"))
                await asyncio.wait_for(_until_sent(link), 20)
                process.kill()
                link.cut()
                link.restore()
                response = await asyncio.wait_for(asking, 40)
        # its last byte had left the sidecar, which cannot know that it went nowhere
        assert (status_of(response), error_code(response)) == (424, "segue_outcome_unknown")
        assert UNREPEATABLE in response
        assert (provider.requests, way.bodies) == ([], [])


async def _until_sent(link: EmulatedLink) -> None:
    before = link.sent_up_bytes
    while link.sent_up_bytes == before:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("begun", [False, True])
async def test_kill_during_the_forward_leaves_one_request_and_no_second(begun: bool, tmp_path: Path) -> None:
    hanging = asyncio.Event()

    def script(_: ReceivedRequest) -> Answer:
        if not begun:
            return Answer(before=hanging)
        return Answer(lines=SSE, pieces=(b"data: 1\n\n", b"data: 2\n\n"), gates={1: hanging})

    async with killable(script, tmp_path) as (process, provider), tunnelled(at_once) as way:
        urls = (process.url, f"ws://127.0.0.1:{way.node.port}")
        async with sidecar_running(*urls, settings=PATIENT) as sidecar:
            await sidecar.linked()
            agent = await sidecar.connect()
            await agent.send(post(BODY, target="/v1/messages"))
            await asyncio.wait_for(provider.seen(1), 20)
            head = await agent.until(b"data: 1\n\n") if begun else b""
            process.kill()
            response = head + await asyncio.wait_for(agent.rest(), 40)
        if begun:
            assert not is_whole(response)
        else:
            assert (status_of(response), error_code(response)) == (424, "segue_outcome_unknown")
            assert UNREPEATABLE in response
        assert len(provider.requests) == 1
        assert way.bodies == []


async def test_kill_after_the_reply_changes_nothing_but_where_the_next_one_goes(tmp_path: Path) -> None:
    async with killable(at_once, tmp_path) as (process, provider), tunnelled(at_once) as way:
        urls = (process.url, f"ws://127.0.0.1:{way.node.port}")
        async with sidecar_running(*urls, settings=PATIENT) as sidecar:
            await sidecar.linked()
            assert body_of(await sidecar.post(BODY, target="/v1/messages")) == b"data: 1\n\ndata: 2\n\n"
            process.kill()
            await asyncio.wait_for(_until_at(sidecar, urls[1]), 20)
            assert body_of(await sidecar.post(NEXT, target="/v1/messages")) == b"data: 1\n\ndata: 2\n\n"
        assert [request.body for request in provider.requests] == [BODY]
        assert way.bodies == [NEXT]
