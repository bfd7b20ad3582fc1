"""What turns count in limits if nobody says what they used."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

import msgspec
import pytest

from segue.gateway.services import Services
from segue.gateway.turns.used_tokens import estimate_use
from segue.history.chains import History
from segue.protocol.events import Ended, OutputWriter
from segue.protocol.items import user_message
from segue.protocol.object_text import ObjectText
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import NativeBody, Settings, json_text
from segue.protocol.responses import Usage, usage
from segue.protocol.turns import TurnStream
from segue.testing.store_samples import sample_id
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.scripted import Fail, Refuse, ScriptedTurn, ScriptedUpstream, say
from tests.faults.doubles import Model
from tests.gateway.parts import caller, create, parts, respond

IDENT = sample_id("now")
LONG = "word " * 400


def asked(text: str = LONG, **fields: Any) -> UpstreamRequest:  # noqa: ANN401 - any field
    settings = Settings(model="m", instructions=json_text("x" * 400))
    request = UpstreamRequest("m", IDENT, "t", History(None, (user_message(text),)), settings)
    return msgspec.structs.replace(request, **fields)


def stream_of(deltas: int, *, ends: bool = False) -> TurnStream:
    stream, writer = TurnStream(IDENT, None, b"{}", 0.0), OutputWriter(IDENT)
    for _ in range(deltas):
        stream.feed(writer.text("word "))
    if ends:
        stream.feed(writer.end_item())
    return stream


def test_what_was_read_and_what_was_written_count() -> None:
    used = estimate_use(asked(), stream_of(30), failed=False)
    assert used is not None
    assert 600 < used.input_tokens < 680, "the history and the instructions"
    assert 30 <= used.output_tokens < 40
    whole = estimate_use(asked(), stream_of(500, ends=True), failed=False)
    assert whole is not None
    assert whole.output_tokens >= 500


def test_a_request_in_another_apis_words_counts_by_its_length() -> None:
    native = NativeBody(dialect="messages", body=ObjectText(b"{}", {}))
    assert estimate_use(asked("x", native=native, size_bytes=4000), stream_of(0), failed=False) == usage(1000, 0)


def test_what_failed_before_its_output_has_cost_nothing() -> None:
    assert estimate_use(asked(), stream_of(0), failed=True) is None
    assert estimate_use(asked(), stream_of(1), failed=True) is not None


def tokens(services: Services) -> tuple[int, int]:
    (counts,) = [scope.counts for _, _, scope in services.rules.quotas.counted()]
    return counts.input_tokens, counts.output_tokens


async def test_a_turn_that_is_cancelled_counts() -> None:
    """From the moment at which its upstream has begun it."""
    async with parts(ScriptedUpstream([say(*["word "] * 50)], pace_s=0.0001)) as services:
        async with aclosing(services.executor.run(create(LONG), caller(services)).events()) as batches:
            await anext(batches)
            await anext(batches)
        read, written = tokens(services)
        assert read > len(LONG) // 4
        assert written > 0


@pytest.mark.parametrize("known", [usage(7, 3), None])
async def test_what_an_upstream_tells_counts_as_it_is(known: Usage | None) -> None:
    """Else the estimate does, which no client is told."""

    async def told(request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        writer = OutputWriter(request.response_id)
        yield [*writer.text("word"), *writer.end_item(), Ended("completed", known)]

    async with parts(Model(told)) as services:
        made = await respond(services, create(LONG))
        assert made["usage"]["output_tokens"] == (3 if known else 0)
        counted = tokens(services)
        assert counted == (7, 3) if known else counted[0] > len(LONG) // 4


@pytest.mark.parametrize("step", [Fail("x", "y"), Refuse(Problem("rate_limit_exceeded", "not now"))])
async def test_a_turn_that_came_to_nothing_counts_nothing(step: Fail | Refuse) -> None:
    async with parts(ScriptedUpstream([ScriptedTurn((step,))])) as services:
        with suppress(Refused):
            await respond(services, create(LONG))
        assert tokens(services) == (0, 0)
