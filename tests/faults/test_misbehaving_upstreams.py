"""Whatever an upstream does, a client gets a valid stream with one end, and the next turn works."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from segue.protocol.events import Ended, Event, OutputWriter
from segue.protocol.problems import Problem, Refused
from segue.protocol.responses import usage
from segue.testing.protocol_checker import Json, check_error, check_response, check_sse, parse_json
from segue.upstreams.interface import Batch, UpstreamRequest
from tests.faults.clients import Http, Socket, begin_post, http, opened, output_text, reset
from tests.faults.doubles import Model, Play
from tests.faults.gateways import listening, until

Stream = AsyncGenerator[Batch, None]

_DONE = Ended("completed", usage(1, 1))


async def raises_at_once(request: UpstreamRequest) -> Stream:
    for batch in _no_batches():
        yield batch
    raise RuntimeError("no connection")


async def raises_before_output(request: UpstreamRequest) -> Stream:
    yield []
    raise RuntimeError("connection lost")


async def raises_between_items(request: UpstreamRequest) -> Stream:
    yield _message(request, "whole")
    raise RuntimeError("connection lost")


async def raises_in_a_message(request: UpstreamRequest) -> Stream:
    yield OutputWriter(request.response_id).text("half")
    raise RuntimeError("connection lost")


async def raises_in_a_call(request: UpstreamRequest) -> Stream:
    writer = OutputWriter(request.response_id)
    yield [*writer.text("whole"), *writer.start_call("call_1", "look"), *writer.arguments('{"a":')]
    raise RuntimeError("connection lost")


async def is_cancelled_within(request: UpstreamRequest) -> Stream:
    yield _message(request, "whole")
    raise asyncio.CancelledError


async def refuses_late(request: UpstreamRequest) -> Stream:
    yield _message(request, "whole")
    raise Refused(Problem("upstream_error", "too late for a refusal"))


async def says_nothing(request: UpstreamRequest) -> Stream:
    for batch in _no_batches():
        yield batch


async def stops_without_end(request: UpstreamRequest) -> Stream:
    yield _message(request, "whole")


async def stops_in_a_message(request: UpstreamRequest) -> Stream:
    yield OutputWriter(request.response_id).text("half")


async def leaves_a_message_open(request: UpstreamRequest) -> Stream:
    yield [*OutputWriter(request.response_id).text("half"), _DONE]


async def fails_in_a_message(request: UpstreamRequest) -> Stream:
    yield [*OutputWriter(request.response_id).text("half"), Ended("failed")]


async def is_cut_without_a_reason(request: UpstreamRequest) -> Stream:
    yield [*_message(request, "whole"), Ended("incomplete")]


async def counts_nothing(request: UpstreamRequest) -> Stream:
    yield [*_message(request, "whole"), Ended("completed")]


async def goes_on_in_the_batch(request: UpstreamRequest) -> Stream:
    yield [*_message(request, "whole"), _DONE, *OutputWriter(request.response_id, 50).text("more"), _DONE]


async def goes_on_after_the_batch(request: UpstreamRequest) -> Stream:
    yield [*_message(request, "whole"), _DONE]
    yield OutputWriter(request.response_id).text("more")
    yield [_DONE]


async def raises_when_closed(request: UpstreamRequest) -> Stream:
    try:
        yield [*_message(request, "whole"), _DONE]
    finally:
        raise RuntimeError("the connection cannot be closed")


async def pauses_often(request: UpstreamRequest) -> Stream:
    for _ in range(100):
        yield []
    yield [*_message(request, "whole"), _DONE]


async def yields_a_huge_batch(request: UpstreamRequest) -> Stream:
    yield [*_message(request, *["whole"] * 5000), _DONE]


async def numbers_from_elsewhere(request: UpstreamRequest) -> Stream:
    writer = OutputWriter(request.response_id, 4711)
    yield [*writer.text("wh"), *writer.text("ole"), *writer.end_item(), _DONE]


async def numbers_backwards(request: UpstreamRequest) -> Stream:
    first, second = OutputWriter(request.response_id, 90), OutputWriter(request.response_id, 3)
    second.text("wh")
    yield first.text("wh")
    yield [*second.text("ole"), *second.end_item(), _DONE]


REFUSED: dict[Play, str] = {raises_at_once: "server_error"}
FAILED: dict[Play, str] = {
    raises_before_output: "server_error",
    raises_between_items: "server_error",
    raises_in_a_message: "server_error",
    raises_in_a_call: "server_error",
    is_cancelled_within: "server_error",
    refuses_late: "upstream_error",
    says_nothing: "upstream_protocol_error",
    stops_without_end: "upstream_protocol_error",
    stops_in_a_message: "upstream_protocol_error",
    leaves_a_message_open: "upstream_protocol_error",
    fails_in_a_message: "upstream_error",
    is_cut_without_a_reason: "upstream_protocol_error",
}
COMPLETED: Sequence[Play] = (
    counts_nothing,
    goes_on_in_the_batch,
    goes_on_after_the_batch,
    raises_when_closed,
    pauses_often,
    yields_a_huge_batch,
    numbers_from_elsewhere,
    numbers_backwards,
)
TRANSPORTS = ("websocket", "sse", "http")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("play", REFUSED)
async def test_an_upstream_that_never_begins_refuses_the_turn(play: Play, transport: str) -> None:
    """One error, no stream, and over HTTP its own status."""
    end, following = await _two_turns(play, transport)
    assert (end["code"], following["status"]) == (REFUSED[play], "completed")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("play", FAILED)
async def test_an_upstream_that_breaks_fails_the_turn(play: Play, transport: str) -> None:
    """One terminal event, response.failed, with everything before it valid; without a stream it is an error."""
    end, following = await _two_turns(play, transport)
    failure = end if transport == "http" else end["error"]
    assert (failure["code"], following["status"]) == (FAILED[play], "completed")


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("play", COMPLETED)
async def test_a_sloppy_upstream_is_put_right(play: Play, transport: str) -> None:
    """What does not matter for the answer does not reach the client."""
    end, following = await _two_turns(play, transport)
    assert (end["status"], following["status"]) == ("completed", "completed")
    assert set(output_text(end).split("whole")) == {""}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_silent_upstream_is_cancelled_by_hanging_up(transport: str) -> None:
    """It never yields; the client that gives up stops it, and nothing is left."""
    began, stopped = asyncio.Event(), asyncio.Event()

    async def is_silent(request: UpstreamRequest) -> Stream:
        began.set()
        try:
            await asyncio.Event().wait()
            yield []
        finally:
            stopped.set()

    async with listening(Model(is_silent)) as local:
        if transport == "websocket":
            async with opened(local.url) as socket:
                await socket.create()
                await began.wait()
        else:
            _, writer = await begin_post(local.url, stream=transport == "sse")
            await began.wait()
            reset(writer.transport)
        await stopped.wait()
        await local.rest()


async def test_a_failed_turn_is_nobodys_parent() -> None:
    """Its id resolves to nothing, on the connection and in the store."""
    async with listening(Model(raises_between_items)) as local, opened(local.url) as socket, http(local.url) as client:
        failed = await socket.turn()
        assert (await socket.refusal(previous_response_id=failed["id"]))["code"] == "previous_response_not_found"
        assert await client.status(failed["id"]) == 404


async def test_upstreams_do_not_hold_up_each_other() -> None:
    """While one hangs in the middle of its answer, and one before it, others answer."""
    hung = asyncio.Event()

    async def hangs(request: UpstreamRequest) -> Stream:
        yield []
        hung.set()
        await asyncio.Event().wait()

    async with listening(Model(hangs)) as local, opened(local.url) as waiting, opened(local.url) as other:
        await waiting.create()
        await hung.wait()
        assert (await other.turn())["status"] == "completed"
        await until(lambda: local.gateway.services.drain.connections == 2)


async def _two_turns(play: Play, transport: str) -> tuple[Json, Json]:
    """Run a turn on a model that plays this, then one that it answers well; return how they ended."""
    async with listening(Model(play)) as local:
        async with opened(local.url) as socket, http(local.url) as client:
            ends = [await _end_of_turn(transport, socket, client) for _ in range(2)]
            socket.checker.finish()
        await local.rest()
    return ends[0], ends[1]


async def _end_of_turn(transport: str, socket: Socket, client: Http) -> Json:
    """Run a turn and return its response object, or its error object."""
    if transport == "websocket":
        await socket.create(store=False)
        answer = await socket.answer()
        end = answer.response or answer.error
        assert end is not None
        return end
    body = {"model": "scripted", "input": "hello", "store": False, "stream": transport == "sse"}
    async with client.session.post("/v1/responses", json=body) as reply:
        data = await reply.read()
    if transport == "sse" and reply.status == 200:
        response = check_sse(data).response
        assert response is not None
        return response
    answered = parse_json(data.decode())
    if reply.status == 200:
        check_response(answered)
        return answered
    check_error(answered)
    error: Json = answered["error"]
    return error


def _message(request: UpstreamRequest, *pieces: str) -> list[Event | Ended]:
    writer = OutputWriter(request.response_id)
    return [*(event for piece in pieces for event in writer.text(piece)), *writer.end_item()]


def _no_batches() -> Sequence[Batch]:
    return ()
