"""Each fault of a double of a Responses server happens at its point, and the double goes on after it."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Literal

import aiohttp
import pytest
from msgspec.structs import replace

from segue.testing.protocol_checker import SocketChecker
from segue.testing.response_events import Json, called, said
from segue.testing.responses_faults import (
    AgeLimit,
    Cut,
    ErrorAt,
    FailAt,
    Fault,
    RestartAt,
    Rewritten,
    Unreadable,
)
from segue.testing.responses_rules import OPEN_RESPONSES, ServerRules, playing
from tests.testing.responses_client import (
    BUSY,
    DOWN,
    EVENTS,
    KINDS,
    browsing,
    events_in,
    received,
    response_id,
    sent,
    turn,
)

pytestmark = pytest.mark.asyncio

CUTS = [
    (Cut(at="create"), 0, []),
    (Cut(at="events"), 0, ["abandoned"]),
    (Cut(at="events", events=4), 4, ["abandoned"]),
    (Cut(at="terminal"), EVENTS - 1, ["completed"]),
    (Cut(at="end"), EVENTS, ["completed"]),
    (RestartAt(events=4), 4, ["abandoned"]),
]


@pytest.mark.parametrize(("fault", "events", "states"), CUTS)
@pytest.mark.parametrize("rules", KINDS.values(), ids=list(KINDS))
async def test_a_socket_is_cut_at_the_point(rules: ServerRules, fault: Fault, events: int, states: list[str]) -> None:
    async with browsing(rules) as browser:
        browser.server.plan(fault)
        async with browser.socket() as socket:
            await sent(socket)
            got, _ = await received(socket)
            if got and got[-1]["type"] == "response.completed":
                assert await received(socket) == ([], 1006)
        assert len(got) == events
        assert [run.state for run in browser.server.executions] == states
        assert len(browser.server.creates) == len(states)
        async with browser.socket() as socket:
            assert len(await turn(socket)) == EVENTS


@pytest.mark.parametrize(("fault", "events", "states"), CUTS)
async def test_a_stream_is_cut_at_the_point(fault: Fault, events: int, states: list[str]) -> None:
    async with browsing() as browser:
        browser.server.plan(fault)
        got, rest = await browser.cut_stream()
        assert len(got) == events
        assert bool(rest) is (fault == Cut(at="terminal"))
        assert [run.state for run in browser.server.executions] == states
        assert len(await browser.stream()) == EVENTS


@pytest.mark.parametrize("at", ["create", "terminal", "end"])
async def test_a_whole_answer_is_cut(at: Literal["create", "terminal", "end"]) -> None:
    async with browsing() as browser:
        browser.server.plan(Cut(at=at))
        with pytest.raises(aiohttp.ClientError):
            await browser.post()


async def test_a_polite_close_in_the_middle_ends_stream_and_socket() -> None:
    async with browsing() as browser:
        browser.server.plan(*[Cut(at="events", events=4, close_code=1000)] * 3)
        status, body, _ = await browser.post(stream=True)
        assert (status, len(events_in(body)), b"[DONE]" in body) == (200, 4, False)
        assert (await browser.post())[1] == b""
        async with browser.socket() as socket:
            await sent(socket)
            got, code = await received(socket)
        assert (len(got), code) == (4, 1000)


@pytest.mark.parametrize("keeps_stored", [True, False])
async def test_a_restart_forgets(keeps_stored: bool) -> None:
    async with browsing() as browser:
        async with browser.socket() as socket:
            first = response_id(await turn(socket))
            browser.server.restart(keeps_stored=keeps_stored)
            assert await received(socket) == ([], 1006)
        async with browser.socket() as socket:
            got = await turn(socket, previous_response_id=first)
        assert got[-1]["type"] == ("response.completed" if keeps_stored else "error")


async def test_a_restart_in_a_turn_forgets_what_is_stored() -> None:
    async with browsing() as browser:
        first = response_id(await browser.stream())
        browser.server.plan(RestartAt(events=1, keeps_stored=False))
        await browser.cut_stream(previous_response_id=first)
        (error,) = events_in(b"data: " + (await browser.post(previous_response_id=first))[1])
        assert error["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize("flat", [True, False])
async def test_a_create_is_refused(flat: bool) -> None:
    async with browsing() as browser, browser.socket() as socket:
        browser.server.plan(ErrorAt(refusal=BUSY, flat=flat), ErrorAt(refusal=BUSY, flat=flat))
        (error,) = await turn(socket, stream_id="a")
        if flat:
            assert (error["code"], error["sequence_number"], error["stream_id"]) == ("rate_limit_exceeded", 0, "a")
        else:
            assert (error["status"], error["stream_id"]) == (429, "a")
            assert error["error"]["headers"] == {"retry-after": "7"}
        status, body, headers = await browser.post(stream=True)
        assert (status, headers["Retry-After"]) == (429, "7")
        assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"
        assert browser.server.executions == []
        assert len(browser.server.creates) == 2


async def test_an_error_in_the_middle_ends_the_turn_and_evicts_its_parent() -> None:
    async with browsing() as browser, browser.socket() as socket:
        first = response_id(await turn(socket, store=False))
        browser.server.plan(ErrorAt(refusal=DOWN, events=3))
        events = await turn(socket, store=False, previous_response_id=first)
        assert (len(events), events[-1]["status"]) == (4, 503)
        assert "headers" not in events[-1]["error"]
        assert browser.server.executions[-1].state == "failed"
        assert (await turn(socket, previous_response_id=first))[0]["error"]["code"] == "previous_response_not_found"
        browser.server.plan(ErrorAt(refusal=DOWN, events=3, flat=True), ErrorAt(refusal=DOWN, events=3))
        streamed = await browser.stream()
        assert (streamed[-1]["code"], streamed[-1]["sequence_number"]) == ("server_is_overloaded", 3)
        assert (await browser.post())[0] == 503


async def test_a_turn_fails_in_the_middle() -> None:
    async with browsing() as browser, browser.socket() as socket:
        browser.server.plan(FailAt(events=3), FailAt(events=3))
        checker = SocketChecker()
        events = await turn(socket)
        for event in events[:2]:
            checker.feed(event)
        assert events[-1]["response"]["error"]["code"] == "server_error"
        assert events[-1]["response"]["id"] == response_id(events[:1])
        assert (await browser.stream())[-1]["type"] == "response.failed"


async def test_a_socket_reaches_its_age() -> None:
    hours = itertools.count()
    async with browsing(clock=lambda: next(hours) * 1800.0) as browser, browser.socket() as socket:
        assert (await turn(socket))[-1]["type"] == "response.completed"
        (error,) = await turn(socket)
        assert error["error"]["code"] == "websocket_connection_limit_reached"
        assert await received(socket) == ([], 1001)


async def test_a_socket_is_told_of_its_age() -> None:
    async with browsing() as browser:
        browser.server.plan(AgeLimit(), AgeLimit())
        async with browser.socket() as socket:
            (error,) = await turn(socket, stream_id="a")
            assert "stream_id" not in error
        async with browser.socket() as socket:
            reading = asyncio.ensure_future(received(socket))
            await asyncio.sleep(0)
            await browser.server.age_out()
            assert (await reading)[0] == [error]
        assert len(await browser.stream()) == EVENTS  # it means nothing over HTTP


@pytest.mark.parametrize("status", [200, 404, 426, 500])
async def test_an_upgrade_is_answered_with_something_else(status: int) -> None:
    async with browsing() as browser:
        browser.server.plan_upgrades(Cut(at="create"), Cut(at="create"), Unreadable(status=status))
        with pytest.raises(aiohttp.ClientConnectionError):
            await browser.upgrade()  # aiohttp itself tries a GET twice
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await browser.upgrade()
        assert refused.value.status == status
        async with browser.socket():
            pass
        assert [headers["upgrade"] for headers in browser.server.upgrades] == ["websocket"] * 4


async def test_a_server_without_websocket_mode_says_so() -> None:
    async with browsing(replace(OPEN_RESPONSES, upgrades=False)) as browser:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await browser.upgrade()
        assert refused.value.status == 426
        async with browser.session.get(f"{browser.server.base_url}/responses") as response:
            assert response.status == 426


async def test_an_answer_is_unreadable() -> None:
    async with browsing() as browser, browser.socket() as socket:
        browser.server.plan(Unreadable(status=502), Unreadable())
        status, body, headers = await browser.post(stream=True)
        assert (status, headers["Content-Type"]) == (502, "text/html")
        await sent(socket)
        assert await socket.receive_str() == body.decode()


async def test_events_are_rewritten() -> None:
    def endless(events: Sequence[Json]) -> Iterator[Json]:
        yield from events[:2]
        yield from itertools.repeat(events[4])

    async with browsing() as browser, browser.socket() as socket:
        browser.server.plan(Rewritten(lambda events: [*events, events[-1]]), Rewritten(endless))
        assert (await turn(socket))[-1] == await socket.receive_json()
        await sent(socket)
        numbers = [(await socket.receive_json())["sequence_number"] for _ in range(50)]
        assert numbers == [0, 1, *[4] * 48]


async def test_faults_meet_creates_in_their_order() -> None:
    model = playing([called("look", call_id="call_1")], [said("Done.")])
    async with browsing(model=model) as browser:
        browser.server.plan(None, ErrorAt(refusal=DOWN), None)
        first = await browser.stream()
        outputs = [{"type": "function_call_output", "call_id": "call_1", "output": "{}"}]
        for status in (503, 200):
            got, _, _ = await browser.post(given=outputs, previous_response_id=response_id(first))
            assert got == status
        assert [run.create["input"] for run in browser.server.executions] == ["Hi", outputs]
