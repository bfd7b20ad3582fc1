"""Streams as providers really send them, through a whole gateway: over each transport a client gets what they mean, in
its events and at their end.
"""

from __future__ import annotations

import json
from typing import get_args

import pytest

from segue.http.sse import write_event
from segue.protocol.problems import Code
from tests.dialects.golden import CHECKED, GOLDEN, dialect_of, outline, read
from tests.faults.clients import opened
from tests.faults.test_providers import APIS, TRANSPORTS, ask, behind, stream_of
from tests.integration.providers import Api, calls, says
from tests.upstreams.provider import Exchange, Play, streams

#: Those that mean the same whatever the request was: it has no custom tools.
READ = [name for name in CHECKED if "custom" not in name]


def _sent(name: str) -> bytes:
    events, _ = read(GOLDEN[name])
    return b"".join(write_event(event.type, event.data) for event in events)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("api", APIS)
async def test_each_stream_means_the_same_over_every_transport(api: Api, transport: str) -> None:
    """A failure is in the response, or over plain HTTP in its place; ids that were made here are not compared."""
    names = [name for name in READ if dialect_of(name) == api]
    async with behind(*(streams(_sent(name)) for name in names), api=api, attempts=1) as (provider, url):
        for name in names:
            expected = read(GOLDEN[name])[1]
            response = await ask(url, transport)
            if "error" in expected:
                code = (response.get("error") or response)["code"]
                ours = expected["error"][0] in get_args(Code)  # for another, HTTP needs one that has a status
                assert code == expected["error"][0] or (code in get_args(Code) and not ours), name
                continue
            assert response["status"] == expected["status"], name
            output = [outline(item) for item in response["output"]]
            assert [_without_id(item) for item in output] == [_without_id(item) for item in expected["output"]], name
    assert len(provider.got) == len(names)


def _without_id(item: dict[str, object]) -> dict[str, object]:
    """Leave out what a client does not see unless it asks, and what is made anew in every run."""
    call = item.get("call")
    known = {name: value for name, value in item.items() if name not in {"call", "returned"}}
    return {**known, "call": call[1:]} if isinstance(call, list) else known


def _falls_silent(data: bytes) -> Play:
    async def play(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunk(data)
        await exchange.gone.wait()

    return play


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("api", ["chat", "messages"])
async def test_an_answer_whose_stream_does_not_end_is_told_whole(
    monkeypatch: pytest.MonkeyPatch, api: Api, transport: str
) -> None:
    """Its connection is closed, and not used again."""
    monkeypatch.setattr("segue.upstreams.provider_stream._END_S", 0.05)
    whole = stream_of(api, calls(api, "call_1", "look", {"where": "here"}, "Hello."))
    silent = whole[: whole.rindex(b"data: [DONE]" if api == "chat" else b"event: message_stop")]
    async with behind(_falls_silent(silent), streams(whole), api=api, attempts=1) as (provider, url):
        one, two = await ask(url, transport), await ask(url, transport)
        assert [outline(item) for item in one["output"]] == [outline(item) for item in two["output"]]
        assert (one["status"], one["usage"]) == (two["status"], two["usage"])
        assert one["status"] == "completed"
        await provider.until(lambda: provider.gone >= 1)
    assert [got.connection for got in provider.got] == [0, 1]


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("api", APIS)
async def test_half_a_character_of_a_client_is_replaced(api: Api, transport: str) -> None:
    async with behind(streams(stream_of(api, says(api, "Hello."))), api=api) as (provider, url):
        assert (await ask(url, transport, "cut \ud83d"))["status"] == "completed"
    assert "cut \ufffd" in json.dumps(provider.got[0].json, ensure_ascii=False)


async def test_details_of_reasoning_go_back_as_they_came() -> None:
    async with behind(streams(_sent("chat/details_with_ids"))) as (provider, url), opened(url) as socket:
        first = await socket.turn("one", model="m", store=False)
        await socket.turn("two", model="m", store=False, previous_response_id=first["id"])
    (said,) = [message for message in provider.got[1].json["messages"] if message["role"] == "assistant"]
    assert [(detail["id"], detail["data"]) for detail in said["reasoning_details"]] == [
        ("tool_1", "AAA"),
        ("tool_2", "BBB"),
    ]
