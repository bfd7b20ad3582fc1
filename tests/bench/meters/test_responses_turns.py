"""Turns on any server end as values, whatever the server does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from segue.bench.meters import responses_turns
from segue.bench.meters.responses_turns import (
    HttpTurns,
    ReplyReader,
    SocketTurns,
    TurnReply,
    open_turns,
    written_text,
)
from segue.client.recovery import TurnFault
from segue.client.settings import ConnectionSettings
from segue.client.transports.http import HttpTransport
from segue.http.heads import Line
from segue.testing.provider import ACCEPTED, Answer, SocketAnswer, provided
from segue.testing.response_events import said
from segue.testing.responses_faults import Cut, ErrorAt, FailAt, Fault
from segue.testing.responses_rules import OPEN_RESPONSES, OPENAI, CreateRefusal, playing
from segue.testing.responses_server import responding

CREATE = {"model": "m", "store": False, "input": [{"type": "message", "role": "user", "content": "Hi."}]}
BUSY = CreateRefusal(status=503, code="busy", message="Busy.")
ENDS = b'{"type":"response.completed","response":{"id":"resp_1","output":[]}}'
SSE = (Line(b"Content-Type", b"text/event-stream"),)


@asynccontextmanager
async def connected(server_url: str, deadline_s: float = 5.0) -> AsyncIterator[tuple[HttpTurns, SocketTurns]]:
    """Connect in both ways."""
    http = HttpTransport(ConnectionSettings(base_url=server_url, idle_timeout_s=deadline_s, deflate=False))
    socket = await open_turns(http.server, deadline_s)
    assert isinstance(socket, SocketTurns)
    try:
        yield HttpTurns(http, deadline_s), socket
    finally:
        await socket.aclose()
        await http.aclose()


def fault_of(reply: TurnReply) -> TurnFault:
    assert reply.ended in {"fault", "failed"}
    assert reply.fault is not None
    return reply.fault


@pytest.mark.parametrize("way", [0, 1])
async def test_a_turn_is_read_counted_and_timed(way: int) -> None:
    async with responding(OPENAI, model=playing([said("Hello there.")])) as server, connected(server.base_url) as ways:
        reply = await ways[way].turn(CREATE)
        (received,) = server.creates
    assert (reply.ended, reply.text, reply.fault, reply.answered) == ("completed", "Hello there.", None, True)
    assert (reply.response_id, reply.lane) == ("resp_0001", "")
    assert reply.input_tokens is not None
    assert reply.output_tokens is not None
    assert reply.bytes_up_payload == len(received.body)
    assert reply.bytes_up_wire > reply.bytes_up_payload
    assert reply.bytes_down_wire > 100
    assert reply.ttft_s is not None
    assert 0 < reply.ttft_s <= reply.time_s


@pytest.mark.parametrize("way", [0, 1])
async def test_refused_failed_and_broken_turns_have_faults(way: int) -> None:
    planned: list[Fault] = [
        ErrorAt(refusal=BUSY),
        FailAt(events=2, code="oops", message="No."),
        Cut(at="events", events=3),
    ]
    async with responding(OPENAI, model=playing([said("Hello there.")])) as server, connected(server.base_url) as ways:
        server.plan(*planned)
        refused, failed, broken = [await ways[way].turn(CREATE) for _ in planned]
    assert (fault_of(refused).kind, fault_of(refused).status, fault_of(refused).code) == ("refused", 503, "busy")
    assert (failed.ended, fault_of(failed).code, fault_of(failed).message) == ("failed", "oops", "No.")
    assert fault_of(broken).kind == "connection_lost"
    assert not broken.answered


async def test_turns_in_lanes_are_told_apart() -> None:
    creates = [{**CREATE, "stream_id": lane} for lane in ("a", "b")]
    async with responding(OPENAI, model=playing([said("Hello there.")])) as server, connected(server.base_url) as ways:
        assert [reply.lane for reply in await ways[1].run(creates)] == ["a", "b"]
    async with responding(OPEN_RESPONSES) as server, connected(server.base_url) as ways:
        refused = await ways[1].run(creates)
    assert {fault_of(reply).code for reply in refused} == {"unsupported_parameter"}


async def test_no_websocket_is_a_fault() -> None:
    async with provided(lambda _: Answer(status=404)) as provider:
        http = HttpTransport(ConnectionSettings(base_url=provider.url))
        fault = await open_turns(http.server, 5.0)
        await http.aclose()
    assert isinstance(fault, TurnFault)
    assert (fault.kind, fault.status) == ("upgrade_refused", 404)


@pytest.mark.parametrize("said_instead", [b"{}", b"[]", b"\xff{", b'{"type":"response.completed","response":7}'])
@pytest.mark.parametrize("way", [0, 1])
async def test_what_is_no_event_ends_the_turn(said_instead: bytes, way: int) -> None:
    def script(request: Any) -> Answer:  # noqa: ANN401 - the provider's request
        return ACCEPTED if request.upgrades else Answer(lines=SSE, pieces=(b"data: %b\n\n" % said_instead,))

    text = said_instead.decode("latin-1").encode()
    async with provided(script, lambda _: SocketAnswer(messages=(text,))) as provider, connected(provider.url) as ways:
        assert fault_of(await ways[way].turn(CREATE)).kind == "unreadable"


@pytest.mark.parametrize("way", [0, 1])
async def test_a_stream_without_its_end_is_no_answer(way: int) -> None:
    event = b'{"type":"response.output_text.delta","delta":"Hi"}'

    def script(request: Any) -> Answer:  # noqa: ANN401 - the provider's request
        return ACCEPTED if request.upgrades else Answer(lines=SSE, pieces=(b"data: %b\n\n" % event,))

    closed = SocketAnswer(messages=(event,), close_code=1011)
    async with provided(script, lambda _: closed) as provider, connected(provider.url) as ways:
        fault = fault_of(await ways[way].turn(CREATE))
    assert fault.kind == ("connection_lost" if way else "stream_ended")


@pytest.mark.parametrize("way", [0, 1])
async def test_a_turn_has_a_deadline_and_a_bound(way: int, monkeypatch: pytest.MonkeyPatch) -> None:
    event = b'{"type":"response.output_text.delta","delta":"%b"}' % (b"x" * 1000)

    def script(request: Any) -> Answer:  # noqa: ANN401 - the provider's request
        return ACCEPTED if request.upgrades else Answer(lines=SSE, pieces=(b"data: %b\n\n" % event,) * 10, pace_s=0.03)

    slow = SocketAnswer(messages=(event,) * 10, pace_s=0.03)
    async with provided(script, lambda _: slow) as provider:
        async with connected(provider.url, 0.1) as ways:
            assert fault_of(await ways[way].turn(CREATE)).kind == "timeout"
        monkeypatch.setattr(responses_turns, "MAX_TURN_BYTES", 1500)
        async with connected(provider.url) as ways:
            assert fault_of(await ways[way].turn(CREATE)).message == "The answer is too large."


def read(*events: bytes) -> TurnReply | None:
    reader = ReplyReader(0.0)
    for event in events:
        reader.feed(event, 1.0)
    return reader.ended


def test_a_whole_response_in_place_of_a_stream() -> None:
    output = [{"type": "reasoning"}, {"type": "message", "content": [{"type": "output_text", "text": "Hi."}, 7]}, 7]
    whole = {"object": "response", "id": "resp_1", "status": "completed", "output": output, "usage": {}}
    reply = read(json.dumps(whole).encode())
    assert reply is not None
    assert (reply.ended, reply.text, reply.response_id, reply.ttft_s) == ("completed", "Hi.", "resp_1", None)
    assert read(json.dumps({**whole, "status": "in_progress"}).encode()) is None
    cut_off = read(json.dumps({**whole, "status": "incomplete"}).encode())
    assert cut_off is not None
    assert (cut_off.ended, cut_off.answered) == ("incomplete", True)


@pytest.mark.parametrize("usage", [None, 7, {"input_tokens": "many"}, {"input_tokens": -1}, {"input_tokens": True}])
def test_odd_values_are_none(usage: object) -> None:
    response = {"id": ["resp_1"], "output": {"text": "no"}, "usage": usage}
    reply = read(json.dumps({"type": "response.completed", "response": response}).encode())
    assert reply is not None
    assert (reply.response_id, reply.text, reply.input_tokens) == (None, "", None)


def test_a_failed_response_may_say_little() -> None:
    for error in (None, "No.", {"code": 7}):
        reply = read(json.dumps({"type": "response.failed", "response": {"error": error}}).encode())
        assert reply is not None
        assert (reply.ended, fault_of(reply).code) == ("failed", None)


def test_of_a_long_text_the_start_is_kept() -> None:
    delta = json.dumps({"type": "response.output_text.delta", "delta": "x" * 3000, "stream_id": "a\x1b[0m"}).encode()
    odd = b'{"type":"response.output_text.delta","delta":7}'
    reply = read(delta, delta, delta, odd, ENDS)
    assert reply is not None
    assert (len(reply.text), reply.lane) == (4000, "a [0m")


@pytest.mark.parametrize("output", [None, 7, [], [7], [{"content": 7}], [{"content": [{"text": 7}]}]])
def test_output_without_text(output: Sequence[object] | None) -> None:
    assert written_text(output) == ""


async def test_events_that_are_not_of_a_response_are_passed_over() -> None:
    answer = SocketAnswer(messages=(b'{"type":"codex.rate_limits"}', ENDS))
    async with provided(lambda _: ACCEPTED, lambda _: answer) as provider, connected(provider.url) as (_, socket):
        assert (await socket.turn(CREATE)).answered


async def test_a_socket_that_the_server_has_dropped_is_lost() -> None:
    async with responding(OPENAI) as server, connected(server.base_url) as (_, socket):
        server.cut()
        await server.left()
        assert fault_of(await socket.turn(CREATE)).kind == "connection_lost"
