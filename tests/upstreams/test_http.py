"""The client for providers, against a provider that does what each test says: its requests, retries and faults."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AsyncExitStack
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from segue import __version__
from segue.dialects.render_cache import RenderCache
from segue.http_client import connector as http_connector
from segue.protocol.events import Ended, Event
from segue.protocol.items import user_message
from segue.protocol.problems import Problem
from segue.upstreams.http import HttpUpstream, Provider, UpstreamRuntime
from segue.upstreams.interface import UpstreamFailed
from segue.upstreams.retries import RetryPolicy
from tests.loop_clock import LoopClock
from tests.upstreams.http_turns import ANSWERS, HI, answer, refusal, request, text_of, upstream
from tests.upstreams.plain_dialect import END, PlainDialect, fail, say
from tests.upstreams.provider import PATIENCE_S, Exchange, Play, hangs, providing, refuses, resets, streams

# --- what is sent ----------------------------------------------------------------------------------------------------


async def test_a_turn_is_one_request_and_its_stream() -> None:
    async with providing(ANSWERS) as provider, upstream(f"{provider.url}/v1/", "sk-1", headers=(("X-A", "b"),)) as one:
        text, ended = await answer(one)
    (got,) = provider.got
    assert (text, ended.status) == ("Hello", "completed")
    assert (got.method, got.target, got.body) == ("POST", "/v1/ask/m", b'{"model":"m","items":[%b]}' % HI)
    del got.headers["host"]
    assert got.headers == {
        "accept": "text/event-stream",
        "accept-encoding": "identity",
        "authorization": "Bearer sk-1",
        "content-length": str(len(got.body)),
        "content-type": "application/json",
        "user-agent": f"segue/{__version__}",
        "x-a": "b",
    }


async def test_configured_headers_replace_those_of_the_dialect() -> None:
    """The names are compared without case, so that two keys are never sent."""
    headers = (("authorization", "Basic eDp5"), ("X-A", "b"))
    async with providing(ANSWERS) as provider, upstream(provider.url, "sk-1", headers=headers) as one:
        await answer(one)
    assert (provider.got[0].headers["authorization"], provider.got[0].headers["x-a"]) == ("Basic eDp5", "b")
    assert provider.got[0].count("authorization") == 1


async def test_a_large_body_arrives_whole() -> None:
    """Its pieces have all sizes."""
    items = tuple(user_message("x" * size) for size in (10, 200_000, 3, 70_000, 500, 3_000_000, 0))
    async with providing(ANSWERS) as provider, upstream(provider.url) as one:
        assert (await answer(one, request(*items)))[0] == "Hello"
    assert provider.got[0].body == b'{"model":"m","items":[%b]}' % b",".join(items)


@pytest.mark.parametrize(
    ("items", "size", "beside"),
    [
        ([HI], 0, False),
        ([HI] * 1001, 0, True),
        ([user_message("x" * 300_000)], 0, True),
        ([HI] * 900, 0, False),
        ([HI], 300_000, True),
    ],
    ids=["small", "many", "large", "some", "large settings"],
)
async def test_a_large_request_is_rendered_beside_the_event_loop(
    items: list[bytes], size: int, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the same, and whatever its dialect cannot say is refused as ever."""
    render, threads = PlainDialect.render, []

    def noted(self: PlainDialect, *given: Any, **named: Any) -> Any:  # noqa: ANN401 - as they come
        threads.append(threading.current_thread() is not threading.main_thread())
        return render(self, *given, **named)

    monkeypatch.setattr(PlainDialect, "render", noted)
    async with providing(ANSWERS) as provider, upstream(provider.url) as one:
        asked = msgspec.structs.replace(request(*items), size_bytes=size)
        assert (await answer(one, asked))[0] == "Hello"
    assert threads == [beside]


async def test_what_a_dialect_cannot_say_is_refused_before_anything_is_sent() -> None:
    async with providing(ANSWERS) as provider, upstream(provider.url) as one:
        assert await refusal(one, request(model="never")) == Problem("unsupported_parameter", "This cannot be said.")
        assert (provider.got, one.admission.running) == ([], 0)


async def test_a_clients_own_key_is_passed_on() -> None:
    """The gateway's own key is not sent."""
    async with providing(ANSWERS) as provider, upstream(provider.url, None, pass_key=True) as one:
        await answer(one, request(credential="sk-client"))
        assert provider.got[0].headers["authorization"] == "Bearer sk-client"


async def test_without_a_key_to_pass_on_nothing_is_sent() -> None:
    async with providing(ANSWERS) as provider, upstream(provider.url, pass_key=True) as one:
        problem = await refusal(one)
        assert (problem.code, provider.got) == ("invalid_api_key", [])


async def test_a_clients_key_is_not_sent_where_it_is_not_asked_for() -> None:
    async with providing(ANSWERS) as provider, upstream(provider.url, "sk-gateway") as one:
        await answer(one, request(credential="sk-client"))
        assert provider.got[0].headers["authorization"] == "Bearer sk-gateway"


async def test_nothing_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would see what is sent."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with providing(ANSWERS) as provider, upstream(provider.url) as one:
        assert (await answer(one))[0] == "Hello"


async def test_cookies_are_not_kept() -> None:
    """A cookie would go from one tenant's turn to another's."""

    async def sets_cookie(exchange: Exchange) -> None:
        await exchange.head(set_cookie="session=1; Path=/")
        await exchange.chunk(END)
        await exchange.end()

    async with providing(sets_cookie) as provider, upstream(provider.url) as one:
        await answer(one)
        await answer(one, request(tenant="bob"))
    assert "cookie" not in provider.got[1].headers


async def test_it_is_called_as_it_is_configured_and_may_be_closed_unused() -> None:
    runtime = UpstreamRuntime(clock=lambda: 0.0, jitter=lambda: 1.0, render_cache=RenderCache(0))
    provider = Provider(name="acme", base_url="http://127.0.0.1:9")
    one = HttpUpstream(provider, PlainDialect(), runtime, models=["m", "n"], key=None)
    assert (one.name, one.models) == ("acme", ("m", "n"))
    await one.aclose()


# --- connections -----------------------------------------------------------------------------------------------------


async def test_turns_use_one_connection_after_the_other() -> None:
    async with providing(ANSWERS) as provider, upstream(provider.url) as one:
        for _ in range(3):
            await answer(one)
    assert [got.connection for got in provider.got] == [0, 0, 0]


async def test_what_follows_the_end_is_read_so_that_the_connection_serves_again() -> None:
    """The turn itself does not wait for the tail."""
    gate = asyncio.Event()

    async def talks_on(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(say("Hello") + END)
        await gate.wait()
        await exchange.chunk(b"data: [DONE]\n\n")
        await exchange.end()

    async with providing(talks_on) as provider, upstream(provider.url) as one:
        assert (await answer(one))[0] == "Hello"
        gate.set()
        await asyncio.gather(*one._tails)  # noqa: SLF001 - nothing else tells when it was read
        await answer(one)
    assert [got.connection for got in provider.got] == [0, 0]


async def test_what_a_provider_says_unasked_is_nobodys_answer() -> None:
    """The next turn, perhaps another tenant's, would get that reply, and so on."""
    gate, sent = asyncio.Event(), asyncio.Event()

    async def talks_unasked(exchange: Exchange) -> None:
        await ANSWERS(exchange)
        await gate.wait()
        await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 0\r\n\r\n")
        sent.set()

    async with providing(talks_unasked, ANSWERS) as provider, upstream(provider.url) as one:
        assert (await answer(one))[0] == "Hello"
        await asyncio.gather(*one._tails)  # noqa: SLF001 - nothing else tells when the connection is kept
        gate.set()
        await sent.wait()
        assert [(await answer(one, request(tenant="bob")))[0] for _ in range(2)] == ["Hello"] * 2
    assert [got.connection for got in provider.got] == [0, 1, 1]


async def test_a_reply_that_never_ends_does_not_keep_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither does it keep the turn."""
    monkeypatch.setattr("segue.upstreams.sse_source._TAIL_S", 0.01)

    async def lingers(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(END)
        await exchange.gone.wait()

    async with providing(lingers) as provider, upstream(provider.url) as one:
        await answer(one)
        await provider.until(lambda: provider.gone == 1)


async def test_places_are_limited() -> None:
    gate = asyncio.Event()

    async def waits(exchange: Exchange) -> None:
        await gate.wait()
        await ANSWERS(exchange)

    async with providing(waits) as provider, upstream(provider.url, max_concurrent=2) as one:
        turns = [asyncio.create_task(answer(one)) for _ in range(5)]
        await provider.until(lambda: len(provider.got) == 2)
        assert (one.admission.running, one.admission.waiting) == (2, 3)
        gate.set()
        assert [(await turn)[0] for turn in turns] == ["Hello"] * 5
        assert provider.connections == 2


# --- what is tried again ---------------------------------------------------------------------------------------------

OVERLOADED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}


@pytest.mark.parametrize(
    "breaks",
    [
        refuses(429),
        refuses(500),
        refuses(503),
        refuses(529, OVERLOADED),
        refuses(408),
        streams(fail("server_overloaded")),
        streams(fail("rate_limit_exceeded"), say("too late")),
    ],
)
async def test_what_fails_before_it_says_anything_is_tried_again(breaks: Play) -> None:
    """The client sees one turn."""
    async with providing(breaks, breaks, ANSWERS) as provider, upstream(provider.url) as one:
        assert await answer(one) == ("Hello", await _end_of_answer())
    assert len({got.body for got in provider.got}) == 1
    assert len(provider.got) == 3


async def _end_of_answer() -> Ended:
    async with providing(ANSWERS) as provider, upstream(provider.url) as one:
        return (await answer(one))[1]


@pytest.mark.parametrize(
    ("breaks", "code"),
    [
        (refuses(429), "rate_limit_exceeded"),
        (refuses(529, OVERLOADED), "server_overloaded"),
    ],
)
async def test_the_last_refusal_is_told(breaks: Play, code: str) -> None:
    async with providing(breaks) as provider, upstream(provider.url) as one:
        assert (await refusal(one)).code == code
        assert one.admission.running == 0
    assert len(provider.got) == 3


async def test_a_stream_that_only_fails_ends_the_turn_that_it_began() -> None:
    async with providing(streams(fail("server_overloaded"))) as provider, upstream(provider.url) as one:
        text, ended = await answer(one)
    assert ended.error is not None
    assert (text, ended.status, ended.error.code, len(provider.got)) == ("", "failed", "server_overloaded", 3)


@pytest.mark.parametrize("breaks", [resets, refuses(504)])
async def test_a_request_that_may_have_been_carried_out_is_not_sent_again(breaks: Play) -> None:
    async with providing(breaks) as provider, upstream(provider.url) as one:
        assert (await refusal(one)).code in {"upstream_unreachable", "upstream_timeout"}
    assert len(provider.got) == 1


@pytest.mark.parametrize("breaks", [streams(), streams(b": ping\n\n")])
async def test_a_stream_that_stops_before_it_says_anything_is_not_asked_for_again(breaks: Play) -> None:
    """The provider had begun."""
    async with providing(breaks) as provider, upstream(provider.url) as one:
        assert (await answer(one))[1].status == "failed"
    assert len(provider.got) == 1


async def test_an_upload_that_breaks_off_is_sent_again() -> None:
    """What has not arrived whole cannot have been carried out."""
    ends: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def breaks_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        ends.put_nowait(writer)

    listening = await asyncio.start_server(breaks_off, "127.0.0.1", 0, limit=1024)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with upstream(url) as one:
        problem = await refusal(one, request(user_message("x" * 20_000_000)))
    assert (problem.code, problem.repeat, ends.qsize()) == ("upstream_unreachable", "free", 3)
    listening.close()
    await listening.wait_closed()


async def test_a_refusal_that_is_cut_is_read_by_its_status() -> None:
    async def cut(exchange: Exchange) -> None:
        await exchange.head(404, content_type="application/json")
        await exchange.chunk(b'{"error":')
        exchange.reset()

    async with providing(cut) as provider, upstream(provider.url) as one:
        problem = await refusal(one)
    assert problem == Problem("model_not_found", "The upstream 'acme' answered 404.")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_what_cannot_pass_is_told_at_once(status: int) -> None:
    async with providing(refuses(status)) as provider, upstream(provider.url) as one:
        await refusal(one)
    assert len(provider.got) == 1


@pytest.mark.parametrize("breaks", [fail("server_overloaded"), b""], ids=["fails", "is cut"])
async def test_nothing_is_tried_again_after_the_first_output(breaks: bytes) -> None:
    """The client would get the beginning twice."""

    async def play(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(say("Hel"))
        if breaks:
            await exchange.chunk(breaks)
        exchange.reset()

    async with providing(play) as provider, upstream(provider.url) as one:
        text, ended = await answer(one)
    assert (text, ended.status, len(provider.got)) == ("Hel", "failed", 1)


@pytest.mark.parametrize("begun", [False, True], ids=["before the head", "after the head"])
async def test_where_another_upstream_stands_by_a_turn_is_tried_once(*, begun: bool) -> None:
    """If it is certain that nothing was generated; what the other may not have is told as ever."""
    breaks = streams(fail("server_overloaded")) if begun else refuses(503)
    async with providing(breaks) as server, upstream(server.url) as one:
        with pytest.raises(UpstreamFailed) as caught:
            await answer(one, replace(request(), standby=True))
        assert (caught.value.failed.elsewhere, len(server.got)) == (True, 1)
        assert one.failures == {"server_overloaded": 1}


@pytest.mark.parametrize("rerun", [False, True])
@pytest.mark.parametrize("play", [resets, streams(b": ping\n\n")], ids=["no head", "no output"])
async def test_a_turn_of_unknown_outcome_is_for_another_only_if_it_costs_nothing(play: Play, *, rerun: bool) -> None:
    async with providing(play) as server, upstream(server.url, rerun=rerun) as one:
        try:
            _, ended = await answer(one, replace(request(), standby=True))
            assert (ended.status, rerun) == ("failed", False)
        except UpstreamFailed as error:
            assert error.failed.elsewhere is rerun  # noqa: PT017 - a stream that has begun ends as failed instead


async def test_it_says_whether_it_has_a_place() -> None:
    async with upstream("http://127.0.0.1:9", max_concurrent=1) as one:
        assert one.has_place()
        async with one.admission.permit("ann"):
            assert not one.has_place()


async def test_retry_after_is_obeyed() -> None:
    """Without the provider's 5 ms the policy would wait for a minute."""
    patient = RetryPolicy(attempts=2, first_wait_s=60.0, longest_wait_s=60.0)
    plays = (refuses(429, retry_after_ms="5"), ANSWERS)
    async with providing(*plays) as provider, upstream(provider.url, retry=patient) as one:
        assert (await answer(one))[0] == "Hello"


async def test_a_retry_after_that_is_too_long_goes_to_the_client() -> None:
    async with providing(refuses(529, retry_after="120")) as provider, upstream(provider.url) as one:
        problem = await refusal(one)
    assert (problem.code, problem.retry_after_s, len(provider.got)) == ("server_overloaded", 120.0, 1)


async def test_what_is_not_there_is_tried_again() -> None:
    """The provider may be restarting."""
    async with providing(ANSWERS) as provider:
        url = provider.url
    async with upstream(url) as one:
        assert (await refusal(one)).code == "upstream_unreachable"


async def test_a_connection_that_was_closed_meanwhile_is_not_noticed() -> None:
    """A provider may close an idle connection at any time."""

    async def says_goodbye(exchange: Exchange) -> None:
        await ANSWERS(exchange)
        exchange.reset()

    async with providing(says_goodbye, ANSWERS) as provider, upstream(provider.url) as one:
        assert (await answer(one))[0] == "Hello"
        assert (await answer(one))[0] == "Hello"


async def closes(exchange: Exchange) -> None:
    """Close the connection instead of answering, as a server does with an idle one."""
    exchange.close()


@pytest.mark.parametrize("leaves", [resets, closes])
async def test_a_kept_connection_that_is_closed_while_a_request_comes_is_replaced(leaves: Play) -> None:
    """Whatever `attempts` says: the provider has not failed, and has not read the request."""
    plays = (ANSWERS, leaves, ANSWERS)
    async with providing(*plays) as provider, upstream(provider.url, retry=RetryPolicy(attempts=1)) as one:
        assert [(await answer(one))[0] for _ in range(2)] == ["Hello", "Hello"]
    assert [got.connection for got in provider.got] == [0, 0, 1]


@pytest.mark.parametrize("leaves", [resets, closes])
async def test_a_provider_that_breaks_off_later_may_have_worked(leaves: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_connector, "_IDLE_CLOSE_S", 0.0)
    async with providing(ANSWERS, leaves) as provider, upstream(provider.url) as one:
        assert (await answer(one))[0] == "Hello"
        problem = await refusal(one)
    assert (problem.code, problem.repeat, len(provider.got)) == ("upstream_unreachable", "paid", 2)


# --- faults ----------------------------------------------------------------------------------------------------------


async def test_a_provider_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn is not attempted again: the provider may still be working on it, and charge for it."""
    clock = LoopClock(monkeypatch)
    async with providing(hangs) as provider, upstream(provider.url, first_byte_timeout_s=60.0) as one:
        problem = await clock.outlast(refusal(one), 60.0, after=provider.seen(1))
        await provider.until(lambda: provider.gone == 1)
    assert (problem.code, len(provider.got)) == ("upstream_timeout", 1)


async def test_a_stream_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, output = LoopClock(monkeypatch), list[Event | Ended]()

    async def falls_silent(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(say("Hel"))
        await exchange.gone.wait()

    async with providing(falls_silent) as provider, upstream(provider.url, idle_timeout_s=60.0) as one:
        async for batch in one.stream(request()):
            output += batch
            if text_of(batch) == "Hel":
                asyncio.get_running_loop().call_soon(clock.forward, 60.0)  # when the next bytes are waited for
        await provider.until(lambda: provider.gone == 1)
    ended = output[-1]
    assert isinstance(ended, Ended)
    assert ended.error is not None
    assert (text_of(output), ended.error.code, len(provider.got)) == ("Hel", "upstream_timeout", 1)


async def test_a_stream_that_never_begins_is_given_up_and_not_asked_again() -> None:
    async def says_nothing(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.gone.wait()

    async with providing(says_nothing) as provider, upstream(provider.url, idle_timeout_s=0.05) as one:
        _, ended = await answer(one)
    assert ended.error is not None
    assert (ended.error.code, len(provider.got)) == ("upstream_timeout", 1)


async def test_a_connection_that_does_not_come_about_is_given_up() -> None:
    """An address reserved for documentation does not answer, or the network reports at once that it is unreachable."""
    async with upstream("http://192.0.2.1:9", connect_timeout_s=0.05) as one:
        assert (await refusal(one)).code == "upstream_unreachable"


async def test_a_provider_that_speaks_no_tls_is_not_trusted() -> None:
    async def answers_anyway(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listening = await asyncio.start_server(answers_anyway, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening, upstream(url) as one:
        assert (await refusal(one)).code == "upstream_unreachable"


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 banana\r\n\r\n", id="no status"),
        pytest.param(b"\x16\x03\x01\x00\xee", id="TLS"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: " + b"x" * 99_999, id="a huge head"),
    ],
)
async def test_what_is_no_http_is_an_error_of_the_upstream(raw: bytes) -> None:
    async def play(exchange: Exchange) -> None:
        await exchange.send(raw)
        exchange.reset()

    async with providing(play) as provider, upstream(provider.url) as one:
        assert (await refusal(one)).code in {"upstream_protocol_error", "upstream_unreachable"}
        assert (one.admission.running, one.admission.waiting) == (0, 0)


async def test_a_redirect_is_not_followed() -> None:
    """The key would be sent to a host that nobody configured."""
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(providing(ANSWERS))
        provider = await stack.enter_async_context(providing(refuses(307, location=other.url)))
        one = await stack.enter_async_context(upstream(provider.url, "sk-1"))
        assert (await refusal(one)).code == "upstream_error"
    assert other.got == []


async def test_a_reply_that_is_no_stream_is_refused() -> None:
    plays = refuses(200, {"id": "chatcmpl-1"})
    async with providing(plays) as provider, upstream(provider.url) as one:
        assert (await refusal(one)).code == "upstream_protocol_error"


async def test_a_refusal_that_does_not_end_is_cut() -> None:
    async def rambles(exchange: Exchange) -> None:
        await exchange.head(400, content_type="text/plain")
        while True:
            await exchange.chunk(b"x" * 16_384)

    async with providing(rambles) as provider, upstream(provider.url) as one:
        problem = await refusal(one)
        await provider.until(lambda: provider.gone == 1)
    assert problem.code == "upstream_rejected"
    assert len(problem.message) < 1000


async def test_a_refusal_in_the_middle_of_an_upload_is_told() -> None:
    """A provider may refuse a body before it has read all of it."""
    bodies: list[int] = []

    async def refuses_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\n{}")
        bodies.append(len(await reader.read()))
        writer.close()

    listening = await asyncio.start_server(refuses_early, "127.0.0.1", 0, limit=1024)
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening, upstream(url) as one:
        assert (await refusal(one, request(user_message("x" * 20_000_000)))).code == "upstream_rejected"
        async with asyncio.timeout(PATIENCE_S):
            while not bodies:  # noqa: ASYNC110 - the end of a connection of another task has no event
                await asyncio.sleep(0.005)
    assert bodies[0] < 20_000_000


async def test_an_event_that_does_not_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a provider could fill the gateway's memory."""
    monkeypatch.setattr("segue.upstreams.sse_source.MAX_EVENT_BYTES", 100_000)

    async def rambles(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(b"data: ")
        while True:
            await exchange.chunk(b"x" * 16_384)

    async with providing(rambles) as provider, upstream(provider.url) as one:
        _, ended = await answer(one)
        await provider.until(lambda: provider.gone == 1)
    assert ended.error is not None
    assert (ended.error.code, len(provider.got)) == ("upstream_protocol_error", 1)
