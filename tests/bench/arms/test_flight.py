"""Both ways of a flight meet the same troubles; the certificates keep a captive portal out of each."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from segue.bench.arms.flight import FlownWay, flown_profile, plain_way, sidecar_way, troubled
from segue.bench.arms.retrying_player import RetryingPlayer
from segue.bench.arms.tls import Authority
from segue.bench.links.profiles import LINKS
from segue.bench.workloads.flight_plan import FlightEvent
from segue.bench.workloads.retry_rules import RULES
from segue.bench.workloads.sessions import make_session
from segue.testing.link import PLAIN
from segue.testing.provider import replying
from tests.bench.arms.processes import end_here

SESSION = make_session("claude-code", turns=1)


def opened(name: str) -> AbstractAsyncContextManager[FlownWay]:
    return (
        plain_way(replying(SESSION), PLAIN)
        if name == "plain"
        else sidecar_way(replying(SESSION), PLAIN, start=end_here)
    )


@pytest.mark.parametrize("name", ["plain", "sidecar"])
async def test_a_turn_goes_over_tls_and_the_link(name: str) -> None:
    async with (
        opened(name) as way,
        RetryingPlayer(SESSION, RULES["claude-code"], way.host, way.port, context=way.context) as player,
    ):
        before = way.link.sent_up_bytes
        fate = await player.turn(0)
        assert (fate.requests, fate.given_up) == (1, None)
        assert [request.body for request in way.provider.requests] == [SESSION.turns[0].body]
        sent = way.link.sent_up_bytes - before
        assert (sent > len(SESSION.turns[0].body)) == (name == "plain")


async def test_a_portal_is_not_trusted_and_gone_when_it_is_over() -> None:
    happened: list[FlightEvent | None] = []
    begun, over = asyncio.Event(), asyncio.Event()

    def note(event: FlightEvent | None) -> None:
        happened.append(event)
        (over if event is None else begun).set()

    event = FlightEvent("portal", 0, 0.2)
    async with (
        opened("plain") as way,
        troubled([event], way.link, context=Authority().server_context(), on_event=note) as portal,
        RetryingPlayer(SESSION, RULES["claude-code"], way.host, way.port, context=way.context) as player,
    ):
        await begun.wait()
        assert (await player.turn(0)).given_up == "certificate not trusted"
        await over.wait()
        assert (await player.turn(0)).given_up is None
        assert (len(portal.requests), len(way.provider.requests)) == (0, 1)
    assert happened == [event, None]


@pytest.mark.parametrize(("what", "reset"), [("dark", False), ("handover", True)])
async def test_a_dark_link_carries_nothing_until_it_is_over(what: str, reset: bool) -> None:
    event = FlightEvent(what, 0, 0.05)  # type: ignore[arg-type] # it is one of them
    happened: list[FlightEvent | None] = []
    begun = asyncio.Event()

    def note(event: FlightEvent | None) -> None:
        happened.append(event)
        begun.set()

    async with opened("plain") as way:
        reader, writer = await asyncio.open_connection(way.host, way.port, ssl=way.context)
        async with troubled([event], way.link, context=None, on_event=note):
            await begun.wait()
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            if reset:
                with pytest.raises(ConnectionResetError):
                    await reader.readuntil(b"\r\n")
            else:
                assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 400")
                assert happened == [event, None]
        writer.transport.abort()


def test_tls_is_not_counted_twice() -> None:
    link = LINKS["geo-in-flight"]
    assert (link.profile.setup_rtts, flown_profile(link, 7).setup_rtts, flown_profile(link, 7).seed) == (2, 1, 7)
