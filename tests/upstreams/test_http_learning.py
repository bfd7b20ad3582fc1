"""A provider that refuses fields which the gateway added by itself: no turn is lost, and each is refused once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from segue.dialects.interface import NOTHING, Rendered, TurnRequest
from segue.dialects.refused_fields import SEALED_REASONING
from segue.dialects.render_cache import RenderCache
from segue.protocol.codec import encode
from segue.protocol.items import join
from segue.protocol.problems import Problem
from segue.upstreams.http import HttpUpstream, Provider, UpstreamRuntime
from segue.upstreams.retries import RetryPolicy
from tests.upstreams.http_turns import ANSWERS, answer, refusal, request
from tests.upstreams.plain_dialect import END, PlainDialect, fail, say
from tests.upstreams.provider import Exchange, Play, providing, refuses, streams
from tests.upstreams.provider import Provider as Server

OWN = ("stream_options", "prompt_cache_key")


class FieldsDialect(PlainDialect):
    """Adds these fields by itself. The model `mine` asks for the first of them; without it, `odd` cannot be asked."""

    def __init__(self, own: tuple[str, ...]) -> None:
        self._own = own

    def render(
        self, request: TurnRequest, cache: RenderCache, *, without: frozenset[str] = NOTHING
    ) -> Rendered | Problem:
        if request.model == "odd" and without:
            return Problem("unsupported_parameter", "This cannot be said.")
        asked = frozenset({OWN[0]} if request.model == "mine" else ())
        added = frozenset(self._own) - without - asked
        head = encode({"model": request.model, **dict.fromkeys(sorted(added | asked), 1)})[:-1]
        return Rendered((head, b',"items":', join(list(request.history.items())), b"}"), (), added)


def unknown(field: str, status: int = 400) -> Play:
    return refuses(status, {"error": {"message": f"Unknown parameter: '{field}'.", "param": field}})


def refusing(*fields: str) -> Play:
    """A provider that takes none of these, and names the first."""

    async def play(exchange: Exchange) -> None:
        named = next((field for field in fields if field in exchange.got.json), None)
        await (ANSWERS if named is None else unknown(named))(exchange)

    return play


@asynccontextmanager
async def upstream(
    url: str, attempts: int = 1, slots: int | None = None, own: tuple[str, ...] = OWN
) -> AsyncIterator[HttpUpstream]:
    retry = RetryPolicy(attempts=attempts, first_wait_s=0.001, longest_wait_s=0.001)
    provider = Provider(name="acme", base_url=url, retry=retry, slots=slots, max_concurrent=slots or 64)
    runtime = UpstreamRuntime(clock=lambda: 0.0, jitter=lambda: 1.0, render_cache=RenderCache(0))
    one = HttpUpstream(provider, FieldsDialect(own), runtime, models=["m"], key=None)
    await one.start()
    try:
        yield one
    finally:
        await one.aclose()


def sent(server: Server) -> list[tuple[str, ...]]:
    """Which of the two fields each request had."""
    return [tuple(name for name in OWN if name in got.json) for got in server.got]


async def test_a_field_that_is_refused_is_left_out_from_then_on(caplog: pytest.LogCaptureFixture) -> None:
    """The turn is not lost though it has one attempt only, and it is logged and counted once."""
    caplog.set_level(logging.INFO, "segue.upstreams")
    async with providing(refusing(OWN[0])) as provider, upstream(provider.url) as one:
        for _ in range(3):
            text, ended = await answer(one)
            assert (text, ended.status) == ("Hello", "completed")
        assert sent(provider) == [OWN, OWN[1:], OWN[1:], OWN[1:]]
        assert (dict(one.learned), dict(one.failures)) == ({OWN[0]: 1}, {})
    (record,) = [entry.getMessage() for entry in caplog.records if "action=learn" in entry.getMessage()]
    assert record == "action=learn upstream=acme model='m' left_out=stream_options"


async def test_one_after_the_other() -> None:
    async with providing(refusing(*OWN)) as provider, upstream(provider.url) as one:
        assert (await answer(one))[0] == (await answer(one))[0] == "Hello"
        assert sent(provider) == [OWN, OWN[1:], (), ()]
        assert dict(one.learned) == dict.fromkeys(OWN, 1)


async def test_each_model_learns_for_itself() -> None:
    async with providing(refusing(OWN[0])) as provider, upstream(provider.url) as one:
        for model in ("m", "n", "m", "n"):
            await answer(one, request(model=model))
        assert sent(provider) == [OWN, OWN[1:], OWN, OWN[1:], OWN[1:], OWN[1:]]


async def test_a_client_is_told_that_what_it_asked_for_is_refused() -> None:
    """Even after the same field of our own was."""
    async with providing(refusing(OWN[0])) as provider, upstream(provider.url) as one:
        await answer(one)
        assert (await refusal(one, request(model="mine"))).message.endswith("Unknown parameter: 'stream_options'.")
        assert sent(provider) == [OWN, OWN[1:], OWN]
        assert dict(one.learned) == {OWN[0]: 1}


async def test_what_does_not_help_is_not_learned() -> None:
    """The provider refuses the request without the field too, so that field was not the reason."""
    async with providing(unknown(OWN[0]), unknown("tools"), ANSWERS) as provider, upstream(provider.url) as one:
        assert (await refusal(one)).message.endswith("Unknown parameter: 'tools'.")
        await answer(one)
        assert sent(provider) == [OWN, OWN[1:], OWN]
        assert not one.learned


async def test_a_provider_that_goes_on_refusing_is_asked_once_for_each_field() -> None:
    """A refusal that names what is not there any more is a refusal."""
    plays = (unknown(OWN[0]), unknown(OWN[1]), unknown(OWN[0]))
    async with providing(*plays) as provider, upstream(provider.url, attempts=3) as one:
        assert (await refusal(one)).code == "upstream_rejected"
        assert sent(provider) == [OWN, OWN[1:], ()]


async def test_other_failures_are_tried_again_without_the_field() -> None:
    """And only the answer teaches."""
    plays = (unknown(OWN[0], 422), refuses(503), refuses(429), ANSWERS)
    async with providing(*plays) as provider, upstream(provider.url, attempts=3) as one:
        assert (await answer(one))[0] == "Hello"
        assert sent(provider) == [OWN, OWN[1:], OWN[1:], OWN[1:]]
        assert (dict(one.learned), sum(one.failures.values())) == ({OWN[0]: 1}, 2)


REFUSED = fail("upstream_rejected", f"Unknown parameter: '{OWN[0]}'.")


async def test_a_stream_that_only_refuses_is_a_refusal_too() -> None:
    """Some gateways announce a stream before they ask anybody."""
    async with providing(streams(REFUSED), ANSWERS) as provider, upstream(provider.url) as one:
        for _ in range(2):
            text, ended = await answer(one)
            assert (text, ended.status) == ("Hello", "completed")
        assert sent(provider) == [OWN, OWN[1:], OWN[1:]]
        assert (dict(one.learned), dict(one.failures)) == ({OWN[0]: 1}, {})


async def test_a_stream_that_goes_on_refusing_teaches_nothing() -> None:
    async with providing(streams(REFUSED)) as provider, upstream(provider.url) as one:
        text, ended = await answer(one)
        assert (text, ended.status) == ("", "failed")
        assert sent(provider) == [OWN, OWN[1:]]
        assert not one.learned


async def test_nothing_is_sent_again_once_an_answer_has_begun() -> None:
    play = streams(say("Hel"), REFUSED)
    async with providing(play) as provider, upstream(provider.url, attempts=3) as one:
        text, ended = await answer(one)
        assert (text, ended.status) == ("Hel", "failed")
        assert sent(provider) == [OWN]
        assert not one.learned


async def test_nothing_is_learned_from_reasoning_that_cannot_be_read() -> None:
    """It is one conversation's; the next turn with it is refused again, and others are not touched."""
    message = "The encrypted content gAAA could not be verified."
    unread = refuses(400, {"error": {"message": message, "code": "invalid_encrypted_content", "param": None}})
    plays = (unread, ANSWERS, ANSWERS)
    async with providing(*plays) as provider, upstream(provider.url, own=(SEALED_REASONING,)) as one:
        assert [(await answer(one))[0] for _ in range(2)] == ["Hello"] * 2
        assert [SEALED_REASONING in got.json for got in provider.got] == [True, False, True]
        assert not one.learned


async def test_a_slot_stays_the_turns_own() -> None:
    async with providing(refusing(OWN[0])) as provider, upstream(provider.url, slots=2) as one:
        await answer(one)
        assert [got.json["id_slot"] for got in provider.got] == [0, 0]


async def test_turns_at_the_same_time_learn_the_same() -> None:
    async with providing(refusing(OWN[0])) as provider, upstream(provider.url) as one:
        texts = await asyncio.gather(*(answer(one) for _ in range(4)))
        assert {text for text, _ in texts} == {"Hello"}
        assert dict(one.learned) == {OWN[0]: 1}
        assert len(provider.got) <= 8


async def test_what_cannot_be_said_without_the_field_is_refused() -> None:
    """In the provider's words."""
    async with providing(refusing(OWN[0])) as provider, upstream(provider.url) as one:
        assert (await refusal(one, request(model="odd"))).message.endswith("Unknown parameter: 'stream_options'.")
        assert sent(provider) == [OWN]


async def test_a_turn_is_closed_whatever_was_learned() -> None:
    async with (
        providing(unknown(OWN[0]), streams(say("Hel"), say("lo"), END)) as provider,
        upstream(provider.url) as one,
    ):
        turn = one.stream(request())
        await anext(turn)
        await turn.aclose()
        assert sent(provider) == [OWN, OWN[1:]]
