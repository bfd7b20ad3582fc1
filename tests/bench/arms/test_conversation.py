"""A conversation is the same over both transports; one of them sends everything again, the other what is new."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from segue.bench.arms.conversation import (
    ConversationError,
    ConversationPlan,
    ConversationTransport,
    MeasuredTurn,
    Question,
    continuing,
    hold,
    resending,
    total,
)
from segue.bench.arms.server import address_of
from segue.bench.meters.tcp import metered
from segue.config import Config, ServerConfig
from segue.gateway.app import serving
from segue.testing.scripted import Fail, Say, ScriptedTurn, ScriptedUpstream, Truncate, call, say
from segue.upstreams.router import ModelRule, Router

CONFIG = Config(server=ServerConfig(port=0, store="memory:"))
PLAN = ConversationPlan(
    "scripted", "Be brief.", (Question("One?", "About this. "), Question("Two?"), Question("Three?")), 9
)
TRANSPORTS = (resending, continuing)

Opened = Callable[[str], AbstractAsyncContextManager[ConversationTransport]]


async def held(
    opened: Opened, model: ScriptedUpstream, on_text: Callable[[str], None] = lambda _: None
) -> list[MeasuredTurn]:
    """Hold the conversation through a meter."""
    async with (
        serving(CONFIG, Router([ModelRule(model, ["scripted"])])) as (_, url),
        metered(*address_of(url)) as meter,
        opened(meter.url) as transport,
    ):
        return [turn async for turn in hold(PLAN, transport, meter, on_text)]


@pytest.mark.parametrize("opened", TRANSPORTS)
async def test_the_model_sees_the_same_conversation_whatever_is_sent(opened: Opened) -> None:
    model = ScriptedUpstream([say("First ", "answer."), say("Second."), ScriptedTurn((Say(("Third",)), Truncate()))])
    texts: list[str] = []
    turns = await held(opened, model, texts.append)
    model.assert_done()
    assert [turn.reply for turn in turns] == ["First answer.", "Second.", "Third"]
    assert texts == ["First ", "answer.", "Second.", "Third"]
    said = [[item for item in request.history.items() if b'"user"' in item] for request in model.requests]
    assert [len(items) for items in said] == [1, 2, 3]
    assert b"About this. One?" in said[-1][0]
    assert b"Three?" in said[-1][-1]
    assert all(0 < turn.ttft_s <= turn.time_s for turn in turns)


async def test_resending_grows_and_continuing_does_not() -> None:
    resent, continued = [await held(opened, ScriptedUpstream(delta_bytes=500)) for opened in TRANSPORTS]
    assert [one.reply for one in resent] == [one.reply for one in continued]
    sizes = [one.bytes_up_payload for one in resent]
    assert sizes[1] > sizes[0] + 4000
    assert sizes[2] > sizes[1] + 4000
    assert max(one.bytes_up_payload for one in continued) < 500
    for turns in (resent, continued):
        assert all(one.bytes_up_wire > one.bytes_up_payload for one in turns)
        assert all(one.bytes_down_wire > 4000 for one in turns)


async def test_a_turn_without_text_has_its_first_token_at_its_end() -> None:
    model = ScriptedUpstream([call("call_1", "look")])
    async with (
        serving(CONFIG, Router([ModelRule(model, ["scripted"])])) as (_, url),
        metered(*address_of(url)) as meter,
        resending(meter.url) as transport,
    ):
        turn = await anext(hold(PLAN, transport, meter, lambda _: None))
    assert (turn.reply, turn.ttft_s) == ("", turn.time_s)


@pytest.mark.parametrize("opened", TRANSPORTS)
async def test_a_turn_that_fails_is_an_error(opened: Opened) -> None:
    with pytest.raises(ConversationError, match="it broke"):
        await held(opened, ScriptedUpstream([ScriptedTurn((Fail("server_error", "it broke"),))]))


@pytest.mark.parametrize("opened", TRANSPORTS)
async def test_a_turn_that_is_refused_is_an_error(opened: Opened) -> None:
    with pytest.raises(ConversationError):
        await held(opened, ScriptedUpstream([]))


def test_a_sum_has_no_text() -> None:
    one = MeasuredTurn(1, 2, 3, 0.5, 1.0, 4, 5, "hello")
    assert total([one, one]) == MeasuredTurn(2, 4, 6, 1.0, 2.0, 8, 10, "")
    assert total([]) == MeasuredTurn(0, 0, 0, 0, 0, 0, 0, "")
