"""Turns at an `HttpUpstream` whose provider is on a loopback socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest

from segue.dialects.render_cache import RenderCache
from segue.history.chains import History
from segue.protocol.events import Ended, Event
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.items import Item, user_message
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import Settings
from segue.upstreams.http import HttpUpstream, Provider, UpstreamRuntime
from segue.upstreams.interface import Secret, UpstreamRequest
from segue.upstreams.retries import RetryPolicy
from tests.upstreams.plain_dialect import END, PlainDialect, say
from tests.upstreams.provider import streams

ID = new_response_id(bytes(ENTROPY_BYTES))
HI = user_message("Hi")
#: Tries follow each other at once.
AT_ONCE = RetryPolicy(attempts=3, first_wait_s=0.001, longest_wait_s=0.001)
ANSWERS = streams(say("Hel"), say("lo"), END)


def request(*items: Item, model: str = "m", tenant: str = "ann", credential: str | None = None) -> UpstreamRequest:
    secret = None if credential is None else Secret(credential)
    return UpstreamRequest(model, ID, tenant, History(None, items or (HI,)), Settings(model=model), secret)


@asynccontextmanager
async def upstream(url: str, key: str | None = None, **provider: object) -> AsyncIterator[HttpUpstream]:
    """A client for the provider at `url`."""
    configured = msgspec.convert({"name": "acme", "base_url": url, "retry": AT_ONCE, **provider}, Provider)
    runtime = UpstreamRuntime(clock=lambda: 0.0, jitter=lambda: 1.0, render_cache=RenderCache(0))
    one = HttpUpstream(configured, PlainDialect(), runtime, models=["m"], key=key)
    await one.start()
    try:
        yield one
    finally:
        await one.aclose()


async def answer(one: HttpUpstream, asked: UpstreamRequest | None = None) -> tuple[str, Ended]:
    """Run a turn; return its text and its end."""
    output: list[Event | Ended] = []
    async for batch in one.stream(asked or request()):
        output += batch
    *events, ended = output
    assert isinstance(ended, Ended)
    return text_of(events), ended


def text_of(output: Sequence[Event | Ended]) -> str:
    deltas = [one for one in output if isinstance(one, Event) and one.type == "response.output_text.delta"]
    return "".join(delta.data.split(b'"delta":"')[1].split(b'"')[0].decode() for delta in deltas)


async def refusal(one: HttpUpstream, asked: UpstreamRequest | None = None) -> Problem:
    """Run a turn that is refused."""
    with pytest.raises(Refused) as caught:
        await answer(one, asked)
    return caught.value.problem
