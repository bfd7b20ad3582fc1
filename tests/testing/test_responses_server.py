"""What clients see of a double of a Responses server over HTTP and WebSocket, while nothing goes wrong."""

from __future__ import annotations

import asyncio
import json

import pytest
from msgspec.structs import replace

from segue.testing.protocol_checker import SocketChecker, StreamChecker, check_error, check_response
from segue.testing.responses_faults import (
    HoldAt,
)
from segue.testing.responses_rules import OPEN_RESPONSES, OPENAI, ServerRules
from tests.testing.responses_client import (
    EVENTS,
    KINDS,
    browsing,
    creating,
    events_in,
    received,
    response_id,
    sent,
    turn,
)

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("rules", KINDS.values(), ids=list(KINDS))
async def test_a_stream_over_http_keeps_every_rule(rules: ServerRules) -> None:
    async with browsing(rules) as browser:
        status, body, headers = await browser.post(stream=True)
        assert (status, body.endswith(b"data: [DONE]\n\n")) == (200, True)
        assert headers["Content-Type"] == "text/event-stream"
        assert (b"\nid: 3\n" in body) is rules.sse_ids
        checker = StreamChecker("sse")
        for event in events_in(body):
            checker.feed(event)
        checker.finish()
        assert len(checker.frames) == EVENTS
        assert [run.state for run in browser.server.executions] == ["completed"]


async def test_a_whole_answer_over_http_is_the_response() -> None:
    async with browsing() as browser:
        _, body, _ = await browser.post()
        check_response(json.loads(body))
        (create,) = browser.server.creates
        assert (create.transport, create.connection, create.create) == ("http", None, creating())
        assert json.loads(create.body) == creating()


@pytest.mark.parametrize("rules", KINDS.values(), ids=list(KINDS))
async def test_a_socket_keeps_every_rule_and_continues(rules: ServerRules) -> None:
    async with browsing(rules) as browser, browser.socket() as socket:
        checker = SocketChecker()
        first = await turn(socket, store=False)
        second = await turn(socket, store=False, previous_response_id=response_id(first))
        lost = await turn(socket, previous_response_id="resp_x")
        for event in [*first, *second, *lost]:
            checker.feed(event)
        checker.finish()
        assert lost[0]["error"]["code"] == "previous_response_not_found"
        assert [len(run.history) for run in browser.server.executions] == [1, 3]
        assert browser.server.open_sockets == 1
    assert browser.server.creates[1].connection == 0


async def test_lanes_run_at_once_and_each_in_order() -> None:
    async with browsing() as browser, browser.socket() as socket:
        gate = asyncio.Event()
        browser.server.plan(HoldAt(gate=gate, events=2))
        for lane in ("a", "a", "b"):
            await sent(socket, stream_id=lane)
        events = [(await socket.receive_json()) for _ in range(2 + EVENTS)]
        assert [event["stream_id"] for event in events].count("b") == EVENTS
        gate.set()
        rest = [(await socket.receive_json()) for _ in range(2 * EVENTS - 2)]
        assert {event["stream_id"] for event in rest} == {"a"}
        assert [event["sequence_number"] for event in rest[-EVENTS:]] == list(range(EVENTS))


@pytest.mark.parametrize(("rules", "running"), [(OPENAI, 16), (OPEN_RESPONSES, 1)], ids=list(KINDS))
async def test_only_so_many_turns_run_on_a_socket(rules: ServerRules, running: int) -> None:
    async with browsing(rules) as browser, browser.socket() as socket:
        gate = asyncio.Event()
        browser.server.plan(*[HoldAt(gate=gate, events=2)] * 20)
        for number in range(20):
            await sent(socket, **({"stream_id": f"lane{number}"} if rules.named_lanes else {}))
        await browser.server.seen(20)
        for _ in range(2 * running):
            await socket.receive_json()
        assert len(browser.server.executions) == running
        gate.set()
        for _ in range(20 * EVENTS - 2 * running):
            await socket.receive_json()
        assert len(browser.server.executions) == 20


async def test_a_refused_lane_runs_nothing() -> None:
    async with browsing(OPEN_RESPONSES) as browser, browser.socket() as socket:
        (error,) = await turn(socket, stream_id="a")
        assert error["error"]["param"] == "stream_id"
        assert browser.server.executions == []


@pytest.mark.parametrize("message", ["no JSON", "[]", '{"type": "response.cancel"}'])
async def test_a_message_that_means_nothing_is_answered_with_an_error(message: str) -> None:
    async with browsing() as browser, browser.socket() as socket:
        await socket.send_str(message)
        (error,), _ = await received(socket)
        assert error["status"] == 400
        assert (await turn(socket))[-1]["type"] == "response.completed"
        async with browser.session.post(f"{browser.server.base_url}/responses", data="no JSON") as response:
            assert response.status == 400
            check_error(await response.json() | {"error": (await response.json())["error"] | {"param": None}})


async def test_a_binary_message_closes_the_socket() -> None:
    async with browsing() as browser, browser.socket() as socket:
        await socket.send_bytes(b"{}")
        assert await received(socket) == ([], 1003)


async def test_a_message_that_is_too_long_closes_the_socket() -> None:
    async with browsing(replace(OPENAI, message_bytes=1000)) as browser, browser.socket() as socket:
        await sent(socket, given="x" * 1000)
        assert await received(socket) == ([], 1009)


async def test_stored_responses_can_be_retrieved() -> None:
    async with browsing() as browser:
        events = await browser.stream()
        url = f"{browser.server.base_url}/responses/{response_id(events)}"
        async with browser.session.get(url) as response:
            assert await response.json() == events[-1]["response"]
        async with browser.session.get(url, params={"stream": "true", "starting_after": "3"}) as response:
            assert response.status == 400
        async with browser.session.get(f"{browser.server.base_url}/responses/resp_x") as response:
            assert response.status == 404
        assert browser.server.retrieved == [response_id(events)] * 2 + ["resp_x"]


async def test_a_plain_server_retrieves_nothing_and_has_no_capabilities() -> None:
    async with browsing(OPEN_RESPONSES) as browser:
        events = await browser.stream()
        for path in (f"/v1/responses/{response_id(events)}", "/segue/capabilities"):
            async with browser.session.get(browser.server.url + path) as response:
                assert response.status == 404


async def test_a_forgotten_response_is_not_found() -> None:
    async with browsing() as browser, browser.socket() as socket:
        first = response_id(await turn(socket))
        browser.server.forget(first)
        (error,) = await turn(socket, previous_response_id=first)
        assert error["error"]["code"] == "previous_response_not_found"


async def test_a_client_that_leaves_abandons_its_turns() -> None:
    async with browsing() as browser:
        never = asyncio.Event()
        browser.server.plan(HoldAt(gate=never, events=3), HoldAt(gate=never, events=3))
        async with browser.socket() as socket:
            await sent(socket)
            await socket.receive()
        await browser.server.left()
        await browser.server.abandoned(1)
        async with browser.session.post(f"{browser.server.base_url}/responses", json=creating(stream=True)) as response:
            await response.content.readany()
            response.close()
        await browser.server.abandoned(2)
        assert browser.server.memory.stored == {}
