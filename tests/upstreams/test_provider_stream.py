"""One reply stream of a provider: what its reads return, when its failure is one of the attempt, and what it leaves
behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from segue.dialects.interface import Awaited, Rendered
from segue.dialects.key_redaction import KeyRedactor
from segue.history.chains import History
from segue.http.sse import write_event
from segue.http_client.body import JsonBody
from segue.protocol.codec import encode
from segue.protocol.events import Ended, Event
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.items import user_message
from segue.protocol.problems import Problem
from segue.protocol.requests import Settings
from segue.protocol.responses import Failure
from segue.upstreams.interface import UpstreamRequest
from segue.upstreams.provider_stream import _END_S, ProviderStream
from segue.upstreams.retries import FailedAttempt
from segue.upstreams.sse_source import SseSource
from tests.loop_clock import LoopClock
from tests.upstreams.http_turns import text_of
from tests.upstreams.plain_dialect import END, PlainDialect, awaits, fail, say
from tests.upstreams.provider import Exchange, Play, Provider, providing, streams
from tests.upstreams.test_sse_source import at_once

KEY = "sk-abcd1234efgh5678wxyz"
REQUEST = UpstreamRequest(
    "m", new_response_id(bytes(ENTROPY_BYTES)), "ann", History(None, (user_message("Hi"),)), Settings(model="m")
)


@asynccontextmanager
async def opened(
    play: Play,
    *,
    idle_timeout_s: float = 20.0,
    clients_key: bool = False,
    own_fields: frozenset[str] = frozenset(),
    body: JsonBody | None = None,
) -> AsyncIterator[tuple[ProviderStream, Provider]]:
    """The stream of one reply."""
    body = JsonBody((b"{}",)) if body is None else body
    async with providing(play) as provider, aiohttp.ClientSession() as session:
        response = await session.post(provider.url, data=body)
        stream = ProviderStream(
            source := SseSource(response, body, turn=at_once),
            PlainDialect().decoder(REQUEST),
            name="acme",
            idle_timeout_s=idle_timeout_s,
            clients_key=clients_key,
            redactor=KeyRedactor([KEY]),
            rendered=Rendered((b"{}",), (), own_fields),
        )
        try:
            yield stream, provider
        finally:
            source.drop()


async def read_all(stream: ProviderStream) -> list[Event | Ended]:
    output: list[Event | Ended] = []
    while not stream.decoder.ended:
        output += await stream.read()
    return output


def cut(*chunks: bytes, request_id: str = "") -> Play:
    """Send these chunks, then break the connection."""

    async def play(exchange: Exchange) -> None:
        await exchange.head(x_request_id=request_id)
        for chunk in chunks:
            await exchange.chunk(chunk)
        exchange.reset()

    return play


async def test_reads_return_the_events_of_the_decoder() -> None:
    async with opened(streams(say("Hel"), say("lo"), END)) as (stream, _):
        *events, ended = await read_all(stream)
        assert [one.type for one in events if isinstance(one, Event)].count("response.output_text.delta") == 2
        assert isinstance(ended, Ended)
        assert (ended.status, ended.error, stream.broken) == ("completed", None, False)
        assert stream.failure_of([*events, ended]) is None


@pytest.mark.parametrize(
    ("play", "message", "broken"),
    [(streams(b": ping\n\n"), "closed", False), (cut(b": ping\n\n"), "cut", True)],
    ids=["closed", "cut"],
)
async def test_a_stream_that_ends_before_its_turn_fails(play: Play, message: str, *, broken: bool) -> None:
    """The failure is not transient: the provider had begun, and may have made an answer."""
    async with opened(play) as (stream, _):
        (ended,) = await read_all(stream)
        assert isinstance(ended, Ended)
        assert stream.broken is broken
        problem = Problem("upstream_protocol_error", message)
        assert stream.failure_of([ended]) == FailedAttempt(problem, unhealthy=True)


async def test_a_silent_stream_fails_and_is_not_attempted_again() -> None:
    async def silent(exchange: Exchange) -> None:
        await exchange.head(x_request_id="req_1")
        await exchange.gone.wait()

    async with opened(silent, idle_timeout_s=0.02) as (stream, provider):
        (ended,) = await read_all(stream)
        assert isinstance(ended, Ended)
        problem = Problem("upstream_timeout", "The upstream 'acme' said nothing for 0.02 s.")
        assert stream.failure_of([ended]) == FailedAttempt(problem, request_id="req_1", unhealthy=True)
        assert stream.release() is None
        await provider.until(lambda: provider.gone == 1)


async def test_pings_are_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pings come for longer than the idle time-out, all together."""
    clock, heard, output = LoopClock(monkeypatch), asyncio.Event(), list[Event | Ended]()

    async def thinks(exchange: Exchange) -> None:
        await exchange.head()
        for _ in range(3):
            heard.clear()
            await exchange.chunk(b": ping\n\n")
            await heard.wait()
        await exchange.chunk(END)
        await exchange.end()

    async with opened(thinks, idle_timeout_s=60.0) as (stream, _):
        while not stream.decoder.ended:
            output += await stream.read()
            clock.forward(40.0)
            heard.set()
    (ended,) = output
    assert isinstance(ended, Ended)
    assert ended.status == "completed"


@pytest.mark.parametrize(("awaited", "limit_s"), [("end", _END_S), ("usage", 60.0)])
async def test_a_stream_that_has_said_everything_ends_its_turn_though_it_goes_on_pinging(
    monkeypatch: pytest.MonkeyPatch, awaited: Awaited, limit_s: float
) -> None:
    clock = LoopClock(monkeypatch)

    async def play(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(say("Hello"))
        await exchange.chunk(awaits(awaited))
        while not exchange.gone.is_set():
            await exchange.chunk(b": ping\n\n")
            await asyncio.sleep(0.01)

    async with opened(play, idle_timeout_s=60.0) as (stream, provider):
        reading = asyncio.create_task(read_all(stream))
        while stream.decoder.awaited != awaited:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.001)
        clock.forward(limit_s)
        *_, ended = await reading
        assert isinstance(ended, Ended)
        assert (ended.status, stream.broken) == ("completed", True)
        assert stream.release() is None
        await provider.until(lambda: provider.gone == 1)


async def test_an_answer_that_goes_on_after_all_gets_its_time_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.upstreams.provider_stream._END_S", 0.0)
    play = streams(awaits("end") + say("Hel") + awaits("answer"), say("lo"), END)
    async with opened(play) as (stream, _):
        assert text_of(await read_all(stream)) == "Hello"


async def test_an_event_over_the_limit_breaks_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.upstreams.sse_source.MAX_EVENT_BYTES", 1000)
    async with opened(cut(b"data: " + b"x" * 5000)) as (stream, _):
        (ended,) = await read_all(stream)
        assert isinstance(ended, Ended)
        problem = Problem("upstream_protocol_error", "An event of the upstream 'acme' is too large.")
        assert stream.failure_of([ended]) == FailedAttempt(problem, unhealthy=True)


@pytest.mark.parametrize(("code", "transient"), [("server_overloaded", True), ("upstream_rejected", False)])
async def test_an_error_that_a_provider_sends_first_is_a_failed_attempt(code: str, *, transient: bool) -> None:
    async with opened(streams(fail(code))) as (stream, _):
        failed = stream.failure_of(await read_all(stream))
        assert failed is not None
        assert (failed.problem.code, failed.problem.message, failed.transient) == (code, "It fails.", transient)


async def test_a_code_of_the_providers_own_is_an_upstream_error() -> None:
    async with opened(streams(fail("kettle_on_fire"))) as (stream, _):
        failed = stream.failure_of(await read_all(stream))
        assert failed is not None
        assert (failed.problem.code, failed.transient) == ("upstream_error", True)


async def test_a_providers_server_error_is_no_error_of_the_gateway() -> None:
    async with opened(streams(fail("server_error"))) as (stream, _):
        failed = stream.failure_of(await read_all(stream))
        assert failed is not None
        assert (failed.problem.code, failed.transient) == ("upstream_error", True)


async def test_a_word_of_a_provider_decides_whether_to_try_again() -> None:
    async with opened(streams(fail("invalid_image_url"))) as (stream, _):
        failed = stream.failure_of(await read_all(stream))
        assert failed is not None
        assert (failed.problem.code, failed.transient) == ("upstream_rejected", False)
        assert failed.problem.told_code == "invalid_image_url"


@pytest.mark.parametrize(
    ("body", "code", "transient"),
    [
        (b'{"error":{"message":"Slow.","code":429}}', "rate_limit_exceeded", True),
        (b'{"error":{"message":"No.","code":400}}\n', "upstream_rejected", False),
        (b'{"detail":"broken"}', "upstream_error", True),
        (b'{"id":"chatcmpl-1","choices":[]}', "upstream_protocol_error", False),
        (b"<html>Bad Gateway</html>\n\n", "upstream_protocol_error", False),
        (b"[1, 2, 3, 4,", "upstream_protocol_error", False),
    ],
)
async def test_a_body_that_is_announced_as_a_stream_and_is_none(body: bytes, code: str, *, transient: bool) -> None:
    """An error in it is read, whatever the pieces are that it comes in."""
    async with opened(streams(body[:7], body[7:])) as (stream, _):
        failed = stream.failure_of(await read_all(stream))
        assert failed is not None
        assert (failed.problem.code, failed.transient) == (code, transient)


async def test_an_error_behind_a_stream_is_no_end_of_it() -> None:
    """What follows an event without being one is left out, as the standard says."""
    async with opened(streams(say("Hel"), b'{"error":{"message":"No.","code":400}}')) as (stream, _):
        *_, ended = await read_all(stream)
        assert isinstance(ended, Ended)
        assert ended.error == Failure("upstream_protocol_error", "closed")


@pytest.mark.parametrize("clients_key", [False, True])
async def test_the_end_is_told_without_any_part_of_a_key(*, clients_key: bool) -> None:
    """What is said about the gateway's own key is told to nobody."""
    refused = write_event("", encode({"fail": "upstream_unauthorized", "message": f"Not {KEY[-6:]}."}))
    async with opened(streams(refused), clients_key=clients_key) as (stream, _):
        (ended,) = await read_all(stream)
        assert isinstance(ended, Ended)
        if clients_key:
            assert ended.error == Failure("invalid_api_key", "Not [redacted].")
        else:
            message = "The upstream 'acme' does not accept the gateway's key."
            assert ended.error == Failure("upstream_unauthorized", message)
        failed = stream.failure_of([ended])
        assert failed is not None
        assert not failed.transient


async def test_when_to_come_back_is_read_from_the_stream() -> None:
    slow = write_event("", encode({"fail": "rate_limit_exceeded", "after": 7.5}))
    async with opened(streams(slow)) as (stream, _):
        failed = stream.failure_of(await read_all(stream))
        assert failed is not None
        assert failed.problem.retry_after_s == 7.5


async def test_after_the_first_event_no_failure_is_one_of_the_attempt() -> None:
    """The client has seen a part of the answer."""
    async with opened(streams(say("Hel"), fail("server_overloaded"))) as (stream, _):
        output = await read_all(stream)
        assert stream.failure_of([]) is None
        assert stream.failure_of(output[:1]) is None
        assert stream.failure_of(output[-1:]) is None


@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ("upstream_rejected", {"stream_options"}),
        ("invalid_request_error", {"stream_options"}),
        ("rate_limit_exceeded", set()),
    ],
)
async def test_a_stream_that_only_refuses_names_the_fields_that_it_refuses(code: str, refused: set[str]) -> None:
    """As a refusal with a status does."""
    play = streams(fail(code, "Unknown parameter: 'stream_options'."))
    async with opened(play, own_fields=frozenset({"stream_options", "include"})) as (stream, _):
        failed = stream.failure_of(await read_all(stream))
        assert failed is not None
        assert failed.refused_fields == refused


@pytest.mark.parametrize(("said", "kept"), [(say("Hi"), ""), (fail("busy"), "{}")])
async def test_a_request_is_given_up_once_it_is_answered(said: bytes, kept: str) -> None:
    """A failure before that may lead to another attempt."""
    body = JsonBody((b"{}",))
    async with opened(streams(said), body=body) as (stream, _):
        batch: list[Event | Ended] = []
        while not batch:
            batch = await stream.read()
        assert (stream.failure_of(batch) is None) is (not kept)
        assert body.decode() == kept
