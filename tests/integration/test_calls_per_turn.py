"""How many functions a turn calls in the gateway: what cannot be felt in one change is felt after fifty of them.

Counted are the calls that the gateway's own code and the libraries below it make and take, Python's and C's, beside
those of the event loop and of the test. Such a count is the same on every machine, where a time is not: times are
measured by `segue bench gateway`. A change that a turn needs may raise a bound here; say in its commit why.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import FrameType

import pytest

from segue.config import Config, ServerConfig
from segue.gateway.app import serving
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream
from tests.faults.isolation.wire import Target, Wire, connected, frame

#: By transport and by door, a few above what was counted last.
BOUNDS = {"json": 500, "sse": 570, "websocket": 450, "messages": 955, "chat": 685}

_ASKED: dict[str, tuple[str, dict[str, object]]] = {
    "json": ("/v1/responses", {"input": "x" * 200, "store": False}),
    "sse": ("/v1/responses", {"input": "x" * 200, "store": False, "stream": True}),
    "websocket": ("", {"type": "response.create", "input": "x" * 200, "store": False}),
    "messages": ("/v1/messages", {"messages": [{"role": "user", "content": "x" * 200}], "max_tokens": 100}),
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x" * 200}]}),
}

_TURNS = 5


class _Counter:
    """Counts calls while it is entered, but those of the event loop and of tests."""

    def __init__(self) -> None:
        self.calls = 0
        self._others = (
            asyncio.__path__[0],
            selectors.__file__,
            __file__.removesuffix("integration/test_calls_per_turn.py"),
        )

    def __enter__(self) -> None:
        sys.setprofile(self._count)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _count(self, frame: FrameType, event: str, _: object) -> None:
        if event in {"call", "c_call"} and not frame.f_code.co_filename.startswith(self._others):
            self.calls += 1


@asynccontextmanager
async def turns(transport: str) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """Run a gateway, and give what runs one turn there."""
    router = Router([ModelRule(ScriptedUpstream(), ["*"])])
    path, fields = _ASKED[transport]
    body = json.dumps({"model": "scripted", **fields}).encode()
    async with serving(Config(server=ServerConfig(port=0, store="memory:")), router) as (_, url):
        target = Target(url, "k")
        if transport == "websocket":
            async with connected(target, target.upgrade()) as wire:
                assert (await wire.reply_head())[0] == 101
                message = frame(body)
                yield lambda: until_completed(wire, message)
        else:
            request = target.post(body, path)
            async with connected(target, b"") as wire:
                yield lambda: replied(wire, request)


async def replied(wire: Wire, request: bytes) -> None:
    await wire.send(request)
    status, _ = await wire.reply()
    assert status == 200


async def until_completed(wire: Wire, message: bytes) -> None:
    await wire.send(message)
    while b'"type":"response.completed"' not in (await wire.message())[:60]:
        pass


@pytest.mark.parametrize("transport", list(BOUNDS))
async def test_a_turn_calls_few_functions(transport: str) -> None:
    counted: list[float] = []
    async with turns(transport) as turn:
        await turn()  # the first one is dearer
        for _ in range(3):  # what is done at intervals may come between
            counter = _Counter()
            with counter:
                for _ in range(_TURNS):
                    await turn()
            counted.append(counter.calls / _TURNS)
    assert min(counted) <= BOUNDS[transport]
