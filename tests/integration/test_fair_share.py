"""Turns have their share of the processor beside what threads compute: small ones are served while a large one is read.

It is an order of service, which is the same on a slow machine. Not here: how long they take, which
`tests.faults.test_isolation` measures.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time

import pytest

from segue.config import Config, KeyConfig, ServerConfig
from segue.gateway.app import serving
from segue.upstreams import time_slices
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream
from tests.faults.gateways import PATIENCE_S
from tests.faults.isolation.attacks import shape
from tests.faults.isolation.wire import Target, connected, create

_LARGE, _SMALL = "sk-large", "sk-small"
_KEYS = [KeyConfig(name=key, tenant=key, sha256=hashlib.sha256(key.encode()).hexdigest()) for key in (_LARGE, _SMALL)]


class _Clock:
    """The real clock, but a thread that rests does so until one more turn is served, however slow the machine is."""

    perf_counter = staticmethod(time.perf_counter)
    thread_time = staticmethod(time.thread_time)

    def __init__(self) -> None:
        self.rests = 0
        self.served = 0
        self._turn = threading.Condition()

    def sleep(self, _: float) -> None:
        with self._turn:
            self.rests += 1
            before = self.served
            assert self._turn.wait_for(lambda: self.served > before, PATIENCE_S)

    def serve(self) -> None:
        with self._turn:
            self.served += 1
            self._turn.notify()


async def test_small_turns_are_served_between_the_slices_of_a_large_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_slices, "time", clock := _Clock())
    router, config = Router([ModelRule(ScriptedUpstream(), ["*"])]), ServerConfig(port=0, store="memory:")
    async with serving(Config(server=config, key=_KEYS), router) as (_, url):
        large, small = Target(url, _LARGE), Target(url, _SMALL)
        async with connected(large, buffer_bytes=1 << 20) as other, connected(small) as wire:

            async def ask() -> None:
                await other.send(large.post(shape("messages")))
                assert (await other.reply())[0] == 200

            asking = asyncio.create_task(ask())
            while not asking.done():
                await wire.send(small.post(create(store=False)))
                assert (await wire.reply())[0] == 200
                clock.serve()
            await asking
    assert clock.served >= clock.rests > 10
