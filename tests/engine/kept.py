"""What a local model keeps, looked at from outside between two of its steps, and a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import msgspec

from segue.engine.upstream import LocalUpstream
from segue.engine.worker import Worker
from segue.protocol.ids import ResponseId

T = TypeVar("T")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Kept(msgspec.Struct, frozen=True):
    """A sequence that is kept: whose, where, and its tokens."""

    tenant: str
    tier: str
    tokens: tuple[int, ...]


async def look(upstream: LocalUpstream) -> list[Kept]:
    """Return what is kept of turns that are over, when everything that was asked for before is done."""
    await between_steps(upstream, lambda worker: None)  # what was cancelled or is idle goes in the step behind this
    return await between_steps(
        upstream,
        lambda worker: [
            Kept(one.tenant, one.tier, tuple(one.tokens))
            for one in worker.sequences
            if not one.pins  # no turn works on it
        ],
    )


async def between_steps(upstream: LocalUpstream, do: Callable[[Worker], T]) -> T:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def act(worker: Worker) -> None:
        loop.call_soon_threadsafe(done.set_result, do(worker))

    upstream._engine.call_between_steps(act)  # noqa: SLF001 - between two steps there is no other way in
    return await done


def prompts(upstream: LocalUpstream) -> set[ResponseId]:
    """Return the responses whose prompts are kept."""
    renderer = upstream._renderer  # noqa: SLF001 - nothing else tells what is cached
    assert renderer is not None
    return set(renderer.cached)
