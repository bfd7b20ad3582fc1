"""Whatever a provider does, a client gets a valid stream with one end, or an error that it can act on; and nothing more
is made, or paid for, for a client that has gone away.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, get_args

import pytest

from segue.config import KeyConfig, UpstreamConfig
from segue.http.sse import write_event
from segue.testing.protocol_checker import check_error, check_sse, parse_json
from segue.testing.replies import ReplyContext, make_reply
from tests.faults.clients import begin_post, http, opened, output_text, reset
from tests.integration.gateway import key
from tests.integration.providers import Api, Turn, calls, gateway, says
from tests.loop_clock import LoopClock
from tests.upstreams.provider import Exchange, Play, Provider, hangs, providing, refuses, resets, streams

APIS: tuple[Api, ...] = get_args(Api)
TRANSPORTS = ("websocket", "sse", "http")
HELLO = "Hello there."


def stream_of(api: Api, output: Turn) -> bytes:
    request = {"model": "m", "stream_options": {"include_usage": True}}
    asked = ReplyContext(request=request, identity="made_1", created_at=1_790_000_000, seed="1")
    return b"".join(make_reply(api, output, asked).events)


@asynccontextmanager
async def behind(
    *plays: Play, api: Api = "chat", keys: Sequence[KeyConfig] = (), **settings: object
) -> AsyncIterator[tuple[Provider, str]]:
    """A provider that plays these, and the URL of a gateway in front of it; its model is called `m`."""
    async with providing(*plays) as provider:
        fields: dict[str, Any] = {"idle_timeout_s": 5.0, "longest_wait_s": 0.01, **settings}
        up = UpstreamConfig(name="acme", dialect=api, models=["m"], base_url=f"{provider.url}/v1", **fields)
        async with gateway(up, keys=keys) as url:
            yield provider, url


async def ask(url: str, transport: str, text: str = "hello", own_key: str | None = None) -> dict[str, Any]:
    """Run a turn over a transport; return its response object, or its error object."""
    if transport == "websocket":
        async with opened(url, key=own_key) as socket:
            await socket.create(text, model="m", store=False)
            answer = await socket.answer()
            socket.checker.finish()
            return answer.response or answer.error or {}
    async with http(url, key=own_key) as client:
        body = {"model": "m", "store": False, "input": text, "stream": transport == "sse"}
        async with client.session.post("/v1/responses", json=body) as reply:
            data = await reply.read()
            if reply.status == 200 and transport == "sse":
                return check_sse(data).response or {}
            answered = parse_json(data.decode())
            if reply.status >= 400:
                check_error(answered)
                after, again = (reply.headers.get(name) for name in ("Retry-After", "x-should-retry"))
                return {**answered["error"], "http_status": reply.status, "retry_after": after, "again": again}
            return answered


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("api", APIS)
async def test_a_busy_provider_is_asked_again(api: Api, transport: str) -> None:
    """The client notices nothing."""
    answers = streams(stream_of(api, says(api, HELLO)))
    async with behind(refuses(429, retry_after_ms="1"), refuses(529), answers, api=api) as (provider, url):
        assert output_text(await ask(url, transport)) == HELLO
    assert len(provider.got) == 3


@pytest.mark.parametrize(
    ("play", "status", "code", "after", "again"),
    [
        (refuses(429, retry_after="7"), 429, "rate_limit_exceeded", "7", None),
        (refuses(529, retry_after="90"), 503, "server_overloaded", "90", None),
        (refuses(503), 503, "server_overloaded", "1", None),
        (refuses(500), 502, "upstream_error", None, "false"),
        (refuses(500, x_should_retry="true"), 502, "upstream_error", None, None),
        (refuses(503, x_should_retry="false"), 503, "server_overloaded", None, "false"),
        (refuses(400, {"error": {"message": "Bad tool."}}), 400, "upstream_rejected", None, None),
        (refuses(401, {"error": {"message": "Bad key sk-…."}}), 502, "upstream_unauthorized", None, "false"),
        (refuses(200, {"choices": []}), 400, "upstream_protocol_error", None, "false"),
        (resets, 400, "upstream_unreachable", None, "false"),
    ],
)
async def test_what_does_not_pass_is_told_as_an_error(
    play: Play, status: int, code: str, after: str | None, again: str | None
) -> None:
    """Over HTTP with its status, when to come back, and whether not to ask again; on a WebSocket as a frame."""
    async with behind(play) as (_, url):
        for transport in TRANSPORTS:
            error = await ask(url, transport)
            assert error["code"] == code
            if transport != "websocket":
                assert (error["http_status"], error["retry_after"], error["again"]) == (status, after, again)


async def test_a_provider_that_cannot_be_reached_may_be_asked_again() -> None:
    """It got nothing."""
    async with providing(hangs) as provider:
        gone = f"{provider.url}/v1"
    up = UpstreamConfig(name="acme", dialect="chat", models=["m"], base_url=gone, attempts=1)
    async with gateway(up) as url:
        for transport in ("http", "sse"):
            error = await ask(url, transport)
            assert (error["code"], error["again"]) == ("upstream_unreachable", None)


@pytest.mark.parametrize("kept", [False, True])
async def test_a_turn_that_failed_after_it_began_is_not_to_be_sent_again(kept: bool) -> None:
    """It was paid for; unless its stream began with a refusal."""
    whole = stream_of("chat", says("chat", HELLO))
    busy = b'data: {"error":{"type":"overloaded_error","message":"Busy."}}\n\n'

    async def cut(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(whole[: len(whole) // 2])
        exchange.reset()

    async with behind(cut, streams(busy), attempts=1) as (_, url), http(url) as client:
        for code, again in (("upstream_error", "false"), ("server_overloaded", None)):
            body = {"model": "m", "input": "hi", **({"segue": {"resume": True}} if kept else {})}
            async with client.session.post("/v1/responses", json=body) as reply:
                error = parse_json(await reply.text())["error"]
                assert (error["code"], reply.headers.get("x-should-retry")) == (code, again)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_openai_sdk_has_a_turn_paid_for_once(stream: bool) -> None:
    """As it comes, it sends a request again after any 5xx."""
    from openai import AsyncOpenAI, BadRequestError

    async with behind(resets) as (provider, url), AsyncOpenAI(base_url=f"{url}/v1", api_key="k") as client:
        assert client.max_retries > 0
        with pytest.raises(BadRequestError) as failed:
            await client.responses.create(model="m", input="hi", stream=stream)
        assert failed.value.code == "upstream_unreachable"
    assert len(provider.got) == 1


# --- errors in streams -----------------------------------------------------------------------------------------------

KEY = "sk-proj-qrst1234uvwx5678ghjk"
SECRETS = ("qrst", "uvwx", "ghjk")


def error_stream(api: Api, error: object) -> Play:
    """A stream that begins well, and then brings an error in place of an event of its API."""
    created = {"type": "response.created", "sequence_number": 0, "response": {"id": "r", "status": "in_progress"}}
    events = [created] if api == "responses" else []
    return streams(*(write_event("", json.dumps(event).encode()) for event in (*events, error)))


def failure_in(end: dict[str, Any]) -> dict[str, Any]:
    """The error of a refused turn, or of a response that failed."""
    return end if "code" in end else end["error"]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("api", APIS)
async def test_an_error_in_a_stream_is_told_like_one_of_a_reply(
    api: Api, transport: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With the code of the same error as a reply, and as many requests; without any part of the key.

    The status is the same too, except that a stream which fails has begun: it may be paid for.
    """
    monkeypatch.setenv("ACME_KEY", KEY)
    said = f"Said of sk-proj-qrst****ghjk, ...ghjk, the key ending in ghjk and {KEY}."
    cases: list[tuple[object, str, int, int]] = [
        ({"error": {"message": said, "code": 400}}, "upstream_rejected", 400, 1),
        ({"error": {"message": said, "code": 401}}, "upstream_unauthorized", 502, 1),
        ({"error": {"message": said, "type": "authentication_error"}}, "upstream_unauthorized", 502, 1),
        ({"error": {"message": f"Incorrect API key provided: {KEY}"}}, "upstream_unauthorized", 502, 1),
        ({"error": {"message": said, "code": "402"}}, "insufficient_quota", 429, 1),
        ({"error": {"message": said, "code": 404}}, "model_not_found", 404, 1),
        ({"error": {"message": said, "code": 429}}, "rate_limit_exceeded", 429, 2),
        ({"error": {"message": said, "code": "RESOURCE_EXHAUSTED"}}, "rate_limit_exceeded", 429, 2),
        ({"object": "error", "message": said, "code": 503}, "server_overloaded", 503, 2),
        ({"detail": said}, "upstream_error", 400, 2),
        ({"error": {"message": "prompt is too long: 9 > 8"}}, "context_length_exceeded", 400, 1),
    ]
    plays = [error_stream(api, error) for error, _, _, requests in cases for _ in range(requests)]
    async with behind(*plays, api=api, key_env="ACME_KEY", attempts=2) as (provider, url):
        for _, code, status, requests in cases:
            before = len(provider.got)
            end = await ask(url, transport)
            assert failure_in(end)["code"] == code
            assert end.get("http_status", status) == status
            assert len(provider.got) - before == requests
            assert not any(part in json.dumps(end) for part in SECRETS)
        async with http(url) as client, client.session.get("/metrics") as reply:
            metrics = await reply.text()
    assert not any(part in caplog.text + metrics for part in SECRETS)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("api", APIS)
async def test_a_clients_own_key_that_is_refused_in_a_stream_is_told_to_it(api: Api, transport: str) -> None:
    error = {"error": {"message": f"No such key: {KEY}", "code": 401}}
    async with behind(error_stream(api, error), api=api, pass_key=True) as (provider, url):
        end = await ask(url, transport, own_key=KEY)
        assert failure_in(end)["code"] == "invalid_api_key"
        assert end.get("http_status", 401) == 401
        assert KEY not in json.dumps(end)
    assert [KEY in json.dumps(got.headers) for got in provider.got] == [True]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("api", APIS)
async def test_a_stream_without_an_answer_is_no_success(api: Api, transport: str) -> None:
    """However it ends; nor is a body that is no stream at all."""
    plays = [
        streams(b"data: [DONE]\n\n"),
        streams(b": ping\n\n", b": ping\n\n"),
        streams(),
        streams(b'{"error":{"message":"No.","code":400}}'),
        refuses(200, {"error": {"message": "No.", "code": 400}}),
        refuses(200, {"id": "x", "object": "chat.completion", "choices": [{"message": {"content": "Hi"}}]}),
        refuses(200, b"<html>Hi</html>"),
    ]
    codes = []
    for play in plays:
        async with behind(play, api=api, attempts=1) as (_, url):
            codes.append(failure_in(await ask(url, transport))["code"])
    none = "upstream_protocol_error"
    assert codes == [none, none, none, "upstream_rejected", "upstream_rejected", none, none]


async def test_when_to_come_back_is_read_from_a_stream_too() -> None:
    error = {"error": {"message": "Please try again in 7.2s.", "code": 429}}
    async with behind(error_stream("chat", error)) as (provider, url):
        end = await ask(url, "http")
        assert (end["http_status"], end["retry_after"], len(provider.got)) == (429, "8", 1), "longer than it may wait"


# --- terminal events -------------------------------------------------------------------------------------------------

MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Hi", "annotations": [], "logprobs": []}],
}
CALL = {
    "type": "function_call",
    "id": "fc_1",
    "call_id": "call_1",
    "name": "look",
    "arguments": '{"a":1}',
    "status": "completed",
}


def response_stream(*events: dict[str, Any]) -> Play:
    created = {"type": "response.created", "sequence_number": 0, "response": {"id": "r", "status": "in_progress"}}
    return streams(*(write_event(event["type"], json.dumps(event).encode()) for event in (created, *events)))


def completed(**response: object) -> dict[str, Any]:
    return {"type": "response.completed", "response": {"id": "r", "status": "completed", **response}}


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_a_responses_server_says_only_at_its_end_is_told(transport: str) -> None:
    """In events that keep to the protocol, and as the status that it means; nothing is lost or doubled."""
    begun = {
        "type": "response.output_item.added",
        "output_index": 1,
        "item": {**CALL, "arguments": "", "status": "in_progress"},
    }
    written = {"type": "response.function_call_arguments.done", "output_index": 1, "item_id": "fc_1", "name": "look"}
    plays = [
        response_stream(completed(output=[CALL])),
        response_stream(
            {"type": "response.output_text.delta", "output_index": 0, "delta": "Hi"}, completed(output=[MESSAGE])
        ),
        response_stream(
            begun,
            {
                "type": "response.function_call_arguments.delta",
                "output_index": 1,
                "item_id": "fc_1",
                "delta": '{"a":1}',
            },
            {**written, "arguments": '{"a":1}'},
            {"type": "response.output_item.done", "output_index": 1, "item": CALL},
            completed(output=[CALL]),
        ),
        response_stream(
            completed(status="incomplete", incomplete_details={"reason": "content_filter"}, output=[MESSAGE])
        ),
        response_stream(completed(status="failed", error={"code": "invalid_prompt", "message": "boom"})),
    ]
    async with behind(*plays, api="responses", attempts=1) as (_, url):
        only, delta, shifted, cut, failed = [await ask(url, transport) for _ in plays]
    for whole in (only, shifted):
        assert (whole["status"], [item["arguments"] for item in whole["output"]]) == ("completed", ['{"a":1}'])
    assert (delta["status"], output_text(delta)) == ("completed", "Hi")
    assert (cut["status"], cut["incomplete_details"], output_text(cut)) == (
        "incomplete",
        {"reason": "content_filter"},
        "Hi",
    )
    if transport == "http":
        assert (failed["http_status"], failed["code"], failed["message"]) == (400, "invalid_prompt", "boom")
    else:
        assert (failed["status"], failed["error"]) == ("failed", {"code": "invalid_prompt", "message": "boom"})


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("code", ["invalid_prompt", "image_too_large", "bio_policy", "server_error", "nonsense"])
async def test_an_error_has_one_code_however_a_provider_says_it(code: str, transport: str) -> None:
    """In place of a reply, in the first event of a stream, or after the answer began."""
    error = {"code": code, "message": "boom"}
    failed = {"type": "response.failed", "response": {"id": "r", "status": "failed", "error": error}}
    begun = {
        "type": "response.output_item.added",
        "output_index": 0,
        "item": {**MESSAGE, "content": [], "status": "in_progress"},
    }
    status = 502 if code in {"server_error", "nonsense"} else 400
    plays = [
        refuses(500 if status == 502 else 400, {"error": error}),
        response_stream({"type": "error", **error}),
        response_stream(failed),
        response_stream(begun, failed),
    ]
    async with behind(*plays, api="responses", attempts=1) as (_, url):
        for play in plays:
            answer = await ask(url, transport)
            told = answer.get("error", answer)
            assert told["code"] == ("upstream_error" if status == 502 else code)
            assert "boom" in told["message"]
            expected = status if play is plays[0] else 400  # a stream that fails has begun: it may be paid for
            assert answer.get("http_status", expected) == expected


# --- broken streams --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["cut", "ended"])
@pytest.mark.parametrize("api", APIS)
async def test_a_stream_that_stops_anywhere_fails_its_turn(api: Api, ending: str) -> None:
    """In one `response.failed`, with everything before it valid; and the next turn works."""
    whole = stream_of(api, calls(api, "call_1", "look", {"where": "here"}, HELLO))
    ends = [at for at in range(1, len(whole)) if whole[at - 1 : at + 1] == b"\n\n"]
    points = sorted({*ends[:: max(1, len(ends) // 6)], len(whole) // 3, len(whole) // 2 + 1})

    def stops(at: int) -> Play:
        async def play(exchange: Exchange) -> None:
            await exchange.head()
            await exchange.chunk(whole[:at])
            if ending == "ended":
                await exchange.end()
            else:
                exchange.reset()

        return play

    plays = [stops(at) for at in points]
    async with behind(*plays, streams(whole), api=api, attempts=1) as (provider, url), opened(url) as socket:
        for _ in points:
            await socket.create(model="m", store=False)
            answer = await socket.answer()
            assert answer.response is not None
            assert answer.response["status"] in {"failed", "completed"}  # the last bytes may be only ornament
            if answer.response["status"] == "failed":
                assert answer.response["error"]["code"] in {"upstream_error", "upstream_protocol_error"}
        assert (await socket.turn(model="m", store=False))["status"] == "completed"
        socket.checker.finish()
    assert len(provider.got) == len(points) + 1


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("api", APIS)
async def test_a_stream_that_hangs_fails_its_turn(api: Api, transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that is set for it; the connection to the provider is closed."""
    whole, clock = stream_of(api, says(api, HELLO)), LoopClock(monkeypatch)

    async def stalls(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(whole[: len(whole) // 2])
        await exchange.gone.wait()

    async with behind(stalls, streams(whole), api=api, idle_timeout_s=9.0) as (provider, url):
        asking = asyncio.create_task(ask(url, transport))
        await provider.seen(1)
        end = await clock.hurry(asking)
        assert end.get("code", (end.get("error") or {}).get("code")) == "upstream_timeout"
        await provider.until(lambda: provider.gone == 1)
        assert output_text(await ask(url, transport)) == HELLO


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_provider_that_says_nothing_refuses_the_turn(transport: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never began."""
    clock = LoopClock(monkeypatch)
    async with behind(hangs, first_byte_timeout_s=9.0) as (provider, url):
        asking = asyncio.create_task(ask(url, transport))
        await provider.seen(1)
        assert (await clock.hurry(asking))["code"] == "upstream_timeout"
        await provider.until(lambda: provider.gone == 1)


# --- clients that go away --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("moment", ["before the head", "in the stream"])
@pytest.mark.parametrize("api", APIS)
async def test_a_client_that_goes_away_closes_the_providers_connection(api: Api, moment: str, transport: str) -> None:
    """At once: nothing more is made, or paid for."""
    whole = stream_of(api, says(api, HELLO))

    async def talks(exchange: Exchange) -> None:
        if moment == "in the stream":
            await exchange.head()
            await exchange.chunk(whole[: len(whole) // 2])
        await exchange.gone.wait()

    async with behind(talks, api=api) as (provider, url):
        await _ask_and_vanish(url, transport, provider)
        await provider.until(lambda: provider.gone == 1)


async def _ask_and_vanish(url: str, transport: str, provider: Provider) -> None:
    if transport == "websocket":
        async with opened(url) as socket:
            await socket.create(model="m", store=False)
            await provider.until(lambda: len(provider.got) == 1)
            socket.connection.transport.abort()
        return
    _, writer = await begin_post(url, stream=transport == "sse", model="m")
    await provider.until(lambda: len(provider.got) == 1)
    reset(writer.transport)


async def test_a_client_that_goes_away_while_it_waits_for_a_place_is_never_asked_for() -> None:
    gate = asyncio.Event()

    async def waits(exchange: Exchange) -> None:
        await gate.wait()
        await streams(stream_of("chat", says("chat", HELLO)))(exchange)

    async with behind(waits, max_concurrent=1) as (provider, url), opened(url) as first:
        await first.create(model="m", store=False)
        await provider.until(lambda: len(provider.got) == 1)
        async with opened(url) as second:
            await second.create(model="m", store=False)
        gate.set()
        assert (await first.answer()).response is not None
        assert (await first.turn(model="m", store=False))["status"] == "completed"
    assert len(provider.got) == 2


async def test_a_gateway_that_stops_closes_its_connections_to_providers() -> None:
    """A turn that does not end in the time for draining is ended at both its ends."""

    async def talks(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(stream_of("chat", says("chat", HELLO))[:300])
        await exchange.gone.wait()

    async with providing(talks) as provider:
        up = UpstreamConfig(name="acme", dialect="chat", models=["m"], base_url=f"{provider.url}/v1")
        async with gateway(up, drain_s=0.05) as url:
            _, writer = await begin_post(url, stream=True, model="m")
            await provider.until(lambda: len(provider.got) == 1)
        await provider.until(lambda: provider.gone == 1)
        writer.close()


# --- fairness --------------------------------------------------------------------------------------------------------


async def test_a_tenant_with_many_turns_does_not_hold_up_another() -> None:
    """Its turns and the other's are served in turn, though the other came last."""
    gate = asyncio.Event()

    async def waits(exchange: Exchange) -> None:
        await gate.wait()
        await streams(stream_of("chat", says("chat", HELLO)))(exchange)

    keys = (key("ann"), key("bob"))
    async with behind(waits, max_concurrent=1, keys=keys) as (provider, url):
        turns = [asyncio.create_task(_turn(url, "sk-ann", "ann")) for _ in range(6)]
        await provider.until(lambda: len(provider.got) == 1)
        async with opened(url, key="sk-bob") as bob:
            await bob.create("bob", model="m", store=False)
            await bob.connection.ping()
            gate.set()
            assert (await bob.answer()).response is not None
            served = [json.dumps(got.json) for got in provider.got]
        await asyncio.gather(*turns)
    assert ["bob" in body for body in served].index(True) <= 2


async def _turn(url: str, secret: str, text: str) -> None:
    async with opened(url, key=secret) as socket:
        await socket.turn(text, model="m", store=False)


# --- discretion ------------------------------------------------------------------------------------------------------


async def test_neither_content_nor_keys_are_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("ACME_KEY", "sk-hidden")
    echo = {"error": {"message": "You said: hidden words. Your key: sk-hidden."}}
    cut = stream_of("chat", says("chat", "hidden words"))[:700]
    plays = (
        refuses(500, echo),
        refuses(400, echo),
        refuses(401, echo),
        resets,
        streams(cut),
        streams(b"data: hidden\n\n"),
    )
    async with behind(*plays, key_env="ACME_KEY") as (provider, url):
        for transport in TRANSPORTS * 2:
            await ask(url, transport, "hidden words")
    assert provider.got[0].headers["authorization"] == "Bearer sk-hidden"
    assert "action=try upstream=acme" in caplog.text
    assert "hidden" not in caplog.text
