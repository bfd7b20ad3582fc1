"""Asking a provider how many tokens an input has: once, and with its answer or its refusal told."""

from __future__ import annotations

import pytest

from segue.protocol.problems import Problem, Refused, not_counted
from segue.upstreams.http import HttpUpstream
from tests.loop_clock import LoopClock
from tests.upstreams.http_turns import HI, request, upstream
from tests.upstreams.plain_dialect import PlainDialect
from tests.upstreams.provider import Play, hangs, providing, refuses, resets, streams

MODEL = "model-1"


async def refusal(one: HttpUpstream) -> Problem:
    with pytest.raises(Refused) as caught:
        await one.count_input(request(HI, model=MODEL))
    assert (one.admission.running, one.admission.waiting) == (0, 0)
    return caught.value.problem


async def test_a_provider_is_asked_for_the_number() -> None:
    """At its endpoint, with the fields that this takes, as the same client that runs turns."""
    async with providing(refuses(200, {"input_tokens": 7})) as provider, upstream(provider.url, "key") as one:
        assert await one.count_input(request(HI, HI, model=MODEL)) == 7
        assert await one.count_input(request(HI, model=MODEL)) == 7
    first, second = provider.got
    assert (first.method, first.target, first.headers["accept"]) == ("POST", "/count", "application/json")
    assert first.json.keys() == {"model", "items"}
    assert len(first.json["items"]) == 2
    assert "key" in first.headers["authorization"]
    assert first.connection == second.connection


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_a_provider_without_the_endpoint_does_not_count(status: int) -> None:
    async with providing(refuses(status, {"error": "Not Found"})) as provider, upstream(provider.url) as one:
        assert await refusal(one) == not_counted(MODEL)
    assert len(provider.got) == 1


@pytest.mark.parametrize(
    ("play", "code"),
    [
        (refuses(404, {"error": {"message": f"The model `{MODEL}` does not exist."}}), "model_not_found"),
        (refuses(429), "rate_limit_exceeded"),
        (refuses(400, {"error": {"message": "Bad tool."}}), "upstream_rejected"),
        (refuses(500), "upstream_error"),
        (refuses(200, {"tokens": 7}), "upstream_protocol_error"),
        (refuses(200, b"x" * 100_000), "upstream_protocol_error"),
        (streams(), "upstream_protocol_error"),
        (resets, "upstream_unreachable"),
    ],
)
async def test_a_refusal_is_told_at_once(play: Play, code: str) -> None:
    """The client can ask again; nothing hangs on the number."""
    async with providing(play) as provider, upstream(provider.url) as one:
        assert (await refusal(one)).code == code
    assert len(provider.got) == 1


async def test_a_provider_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = LoopClock(monkeypatch)
    async with providing(hangs) as provider, upstream(provider.url, first_byte_timeout_s=60.0) as one:
        problem = await clock.outlast(refusal(one), 60.0, after=provider.seen(1))
        assert problem.code == "upstream_timeout"
        await provider.until(lambda: provider.gone == 1)


async def test_an_api_without_an_endpoint_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PlainDialect, "counting", None)
    async with providing(hangs) as provider, upstream(provider.url) as one:
        assert await refusal(one) == not_counted(MODEL)
    assert provider.got == []
