"""`truncation: "auto"` at upstreams that do not shorten a history themselves."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from threading import get_ident

import msgspec
import pytest

from segue.gateway.turns import item_scans, truncation
from segue.gateway.turns.truncation import TruncatingTurn, truncating
from segue.history.chains import History, Turn
from segue.history.truncation import Shortened, shorten
from segue.protocol.events import Ended
from segue.protocol.items import Item, user_message
from segue.protocol.object_text import ObjectText
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import NativeBody, Settings
from segue.protocol.responses import Failure, usage
from segue.testing.store_samples import sample_id
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.scripted import Fail, Refuse, ScriptedTurn, ScriptedUpstream, say
from tests.gateway.parts import TENANT, caller, collect, create, ident, parts, respond

TOO_LONG = Problem("context_length_exceeded", "prompt is too long: 9 tokens > 5 maximum")
AUTO = {"truncation": "auto"}


class Small:
    """A model whose context holds a number of items; it says so in one of two ways."""

    def __init__(self, holds: int, *, begins: bool = False) -> None:
        self.holds = holds
        self.begins = begins
        self.asked: list[UpstreamRequest] = []

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        self.asked.append(request)
        if len(list(request.history.items())) <= self.holds:
            yield ()
            yield (Ended("completed", warnings=("one of its own",)),)
        elif self.begins:
            yield ()
            yield (Ended("failed", error=Failure(TOO_LONG.code, TOO_LONG.message)),)
        else:
            raise Refused(TOO_LONG)


def asked_of(items: int, *, new: int = 1, mode: str = "auto") -> UpstreamRequest:
    said = tuple(user_message(f"{number:04}") for number in range(items))
    turn = Turn(id=sample_id("before"), parent=None, input=said[:-new], output=(), calls=frozenset(), stored=True)
    history = History(turn, said[-new:])
    return UpstreamRequest("m", sample_id("now"), "t", history, Settings(model="m", truncation=mode), held=True)


async def run(runs: TruncatingTurn, request: UpstreamRequest) -> Ended:
    async with aclosing(runs.stream(request)) as batches:
        events = [event async for batch in batches for event in batch]
    (ended,) = events
    assert isinstance(ended, Ended)
    return ended


@pytest.mark.parametrize("begins", [False, True])
async def test_the_oldest_items_go_until_the_rest_is_taken(*, begins: bool) -> None:
    model, request = Small(60, begins=begins), asked_of(101)
    ended = await run(TruncatingTurn(model), request)
    sizes = [len(list(asked.history.items())) for asked in model.asked]
    assert sizes == [101, 76, 51]
    newest = list(request.history.items())[-51:]
    assert list(model.asked[-1].history.items()) == newest
    assert [asked.held for asked in model.asked] == [True, False, False], "no upstream goes on from what is shorter"
    assert ended.status == "completed"
    assert ended.warnings[0] == "one of its own"
    assert "its 50 oldest items" in ended.warnings[1]


@pytest.mark.parametrize("begins", [False, True])
async def test_what_is_too_long_in_any_case_is_refused(*, begins: bool) -> None:
    """After a few tries; the new input stays."""
    model = Small(2, begins=begins)
    runs, request = TruncatingTurn(model), asked_of(50, new=3)
    if begins:
        ended = await run(runs, request)
        assert ended.error == Failure(TOO_LONG.code, TOO_LONG.message)
    else:
        with pytest.raises(Refused, match="too long"):
            await run(runs, request)
    assert len(model.asked) == 5
    assert list(model.asked[-1].history.items()) == list(request.history.input)


async def test_what_has_nothing_to_spare_is_asked_once() -> None:
    model = Small(0)
    with pytest.raises(Refused):
        await run(TruncatingTurn(model), asked_of(2))
    assert len(model.asked) == 2, "the older message can be spared"
    model.asked.clear()
    with pytest.raises(Refused):
        await run(
            TruncatingTurn(model), msgspec.structs.replace(asked_of(2), history=History(None, (user_message("x"),)))
        )
    assert len(model.asked) == 1


async def test_what_has_used_tokens_is_not_tried_again() -> None:
    """They would be paid twice, and told once."""
    ended, asked = Ended("failed", usage=usage(9, 1), error=Failure(TOO_LONG.code, TOO_LONG.message)), []

    class Dear:
        async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
            asked.append(request)
            yield ()
            yield (ended,)

    assert await run(TruncatingTurn(Dear()), asked_of(50)) == ended
    assert len(asked) == 1


async def test_another_refusal_is_passed_on() -> None:
    class Busy:
        async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
            if request.model:
                raise Refused(Problem("rate_limit_exceeded", "not now"))
            yield ()

    with pytest.raises(Refused) as refused:
        await run(TruncatingTurn(Busy()), asked_of(9))
    assert refused.value.problem.code == "rate_limit_exceeded"


def test_only_who_asks_for_it_gets_less() -> None:
    model, native = Small(1), NativeBody(dialect="messages", body=ObjectText(b"{}", {}))
    assert truncating(model, asked_of(2, mode="disabled")) is model
    assert truncating(model, msgspec.structs.replace(asked_of(2), native=native)) is model
    assert isinstance(truncating(model, asked_of(2)), TruncatingTurn)


async def test_long_histories_are_looked_through_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[int] = set()

    def noting(items: tuple[Item, ...], share: float, *, new: int) -> Shortened:
        threads.add(get_ident())
        return shorten(items, share, new=new)

    monkeypatch.setattr(truncation, "shorten", noting)
    monkeypatch.setattr(item_scans, "FEW_BYTES", 10)
    await run(TruncatingTurn(Small(60)), asked_of(101))
    assert get_ident() not in threads


async def test_the_stored_history_stays_whole() -> None:
    """A response says what its model did not see; whoever continues it has all of it."""
    refuse = ScriptedTurn((Refuse(TOO_LONG),))
    model = ScriptedUpstream([say("one"), say("two"), refuse, refuse, say("three")])
    async with parts(model) as services:
        one = await respond(services, create("first " * 9))
        two = await respond(services, create("second", previous_response_id=ident(one)))
        three = await respond(services, create("third", previous_response_id=ident(two), **AUTO))
        assert three["truncation"] == "auto"
        assert "oldest items" in three["warnings"][0]
        chain = await services.store.chain(TENANT, ident(three), services.clock())
        assert chain is not None
        assert len(chain) == 3
        assert len(list(model.requests[-1].history.items())) < 5


async def test_without_it_what_is_too_long_is_refused() -> None:
    model = ScriptedUpstream([say("one"), ScriptedTurn((Refuse(TOO_LONG),)), ScriptedTurn((Fail("x", "y"),))])
    async with parts(model) as services:
        one = await respond(services, create("first"))
        with pytest.raises(Refused, match="too long"):
            await collect(
                services.executor.run(create("2", previous_response_id=ident(one)), caller(services)).events()
            )
