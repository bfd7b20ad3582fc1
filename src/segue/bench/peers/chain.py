"""Holds one long conversation through a server, by id, and measures windows of turns at several depths of it.

Depth N means that the measured turns begin with the Nth of the chain; at depth 1, each is the first of a new chain.
After each turn it looks at what the provider was shown. A fault or the end of its time ends the chain, and what was
measured until then stays. Not here: running the server (`running`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from segue.bench.endpoint.conversation import TurnRunner
from segue.bench.endpoint.verdicts import told
from segue.bench.meters.responses_turns import TurnReply
from segue.bench.peers.provider import SeenHistory, user_mark

Json = dict[str, Any]

_LINE = 'def answer(self, question: str) -> str: return f"{question} is being thought about"\n'


class _DoneTurn(NamedTuple):
    """A turn, the bytes of the request that the provider got for it, and whether that showed the whole history."""

    reply: TurnReply
    provider_bytes: int
    kept: bool


class ChainPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What one chain measures."""

    depths: tuple[int, ...]
    window: int
    turn_bytes: int
    warm_up: int
    longest_s: float
    model: str


class MeasuredWindow(msgspec.Struct, frozen=True, kw_only=True):
    """The turns of one window; `cpu_s` is that of the server for all of them."""

    depth: int
    turns: tuple[TurnReply, ...]
    cpu_s: float | None
    provider_bytes: tuple[int, ...]
    kept: bool
    """Whether the provider was shown the whole history in each of these turns."""


class HeldChain(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a chain. `seen` is what the provider saw in the turn where it saw least of what it should."""

    windows: tuple[MeasuredWindow, ...]
    problem: str | None = None
    kept: bool | None = None
    """Whether every request at the provider showed the whole history; None if no turn was answered."""
    seen: int = 0
    expected: int = 0
    out_of_time: bool = False
    """Whether the bound of time ended it."""
    answered: int = 0
    """All turns, those that were not measured too."""


class _ChainEnded(Exception):
    """A turn was not answered, or the time is over."""


class ChainHolder:
    """Holds one chain."""

    def __init__(
        self,
        runner: TurnRunner,
        plan: ChainPlan,
        *,
        take_seen: Callable[[str], SeenHistory | None],
        cpu_s: Callable[[], float | None],
        names: Callable[[], str],
    ) -> None:
        self._runner = runner
        self._plan = plan
        self._take_seen = take_seen
        self._cpu_s = cpu_s
        self._names = names
        self._until = time.monotonic() + plan.longest_s
        self._windows: list[MeasuredWindow] = []
        self._worst: tuple[int, int] | None = None  # seen, expected
        self._kept: bool | None = None
        self._answered = 0

    async def hold(self) -> HeldChain:
        """Measure all depths, as far as it goes."""
        problem: str | None = None
        try:
            await self._new_chains(self._plan.warm_up)
            await self._measure()
        except _ChainEnded as ended:
            problem = str(ended)
        seen, expected = self._worst or (0, 0)
        return HeldChain(
            windows=tuple(self._windows),
            problem=problem,
            kept=self._kept,
            seen=seen,
            expected=expected,
            out_of_time=time.monotonic() > self._until,
            answered=self._answered,
        )

    async def _measure(self) -> None:
        chain = self._names()
        previous: str | None = None
        number = 0
        for depth in sorted(self._plan.depths):
            if depth == 1:
                await self._measure_window(1, partial(self._new_chains, self._plan.window))
                continue
            ahead = max(0, depth - 1 - number)  # none, if the window before this one went so deep
            before = await self._go_on(chain, number, previous, ahead)
            previous, number = _last_id(before, previous), number + ahead
            done = await self._measure_window(depth, partial(self._go_on, chain, number, previous, self._plan.window))
            previous, number = _last_id(done, previous), number + self._plan.window

    async def _measure_window(self, depth: int, run: Callable[[], Awaitable[list[_DoneTurn]]]) -> list[_DoneTurn]:
        begun_s = self._cpu_s()
        done = await run()
        ended_s = self._cpu_s()
        self._windows.append(
            MeasuredWindow(
                depth=depth,
                turns=tuple(one.reply for one in done),
                cpu_s=None if begun_s is None or ended_s is None else ended_s - begun_s,
                provider_bytes=tuple(one.provider_bytes for one in done),
                kept=all(one.kept for one in done),
            )
        )
        return done

    async def _go_on(self, chain: str, number: int, previous: str | None, count: int) -> list[_DoneTurn]:
        """Add turns to a chain that has `number` of them."""
        done: list[_DoneTurn] = []
        for at in range(number + 1, number + count + 1):
            done.append(await self._turn(chain, at, previous))
            previous = done[-1].reply.response_id
        return done

    async def _new_chains(self, count: int) -> list[_DoneTurn]:
        return [await self._turn(self._names(), 1, None) for _ in range(count)]

    async def _turn(self, chain: str, number: int, previous: str | None) -> _DoneTurn:
        if time.monotonic() > self._until:
            raise _ChainEnded(f"the time was over at depth {number}")
        reply = await self._runner.turn(make_turn(self._plan, chain, number, previous=previous))
        if not reply.answered or reply.response_id is None:
            fault = "there is no id" if reply.fault is None else told(reply.fault)
            raise _ChainEnded(f"depth {number}: {fault}")
        self._answered += 1
        seen = self._look(chain, number)
        return _DoneTurn(reply, seen.body_bytes, seen.whole(number))

    def _look(self, chain: str, number: int) -> SeenHistory:
        """Return what the provider saw, and note it if it is the least so far."""
        seen = self._take_seen(chain) or SeenHistory(0, 0, 0)
        whole = seen.whole(number)
        self._kept = whole if self._kept is None else self._kept and whole
        shown, expected = seen.turns + seen.answers, 2 * number - 1
        if self._worst is None or shown * self._worst[1] <= self._worst[0] * expected:
            self._worst = (shown, expected)
        return seen


def _last_id(done: Sequence[_DoneTurn], before: str | None) -> str | None:
    return done[-1].reply.response_id if done else before


def make_turn(plan: ChainPlan, chain: str, number: int, *, previous: str | None) -> Json:
    """Make the create of one turn, with a text of so many bytes."""
    mark = user_mark(chain, number)
    text = f"{mark} {_LINE * (plan.turn_bytes // len(_LINE) + 1)}"[: max(plan.turn_bytes, len(mark))]
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    create: Json = {"model": plan.model, "store": True, "input": [item]}
    return create if previous is None else {**create, "previous_response_id": previous}


def window_at(chains: Sequence[HeldChain], depth: int) -> list[MeasuredWindow]:
    """Return the windows at one depth of several rounds."""
    return [window for chain in chains for window in chain.windows if window.depth == depth]
