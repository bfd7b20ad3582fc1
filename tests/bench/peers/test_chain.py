"""A chain measures its windows where they belong, and notes the least that the provider saw."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from segue.bench.meters.responses_turns import TurnReply
from segue.bench.peers.chain import ChainHolder, ChainPlan, HeldChain, make_turn, window_at
from segue.bench.peers.provider import SeenHistory
from segue.client.recovery import TurnFault

PLAN = ChainPlan(depths=(1, 4, 8), window=2, turn_bytes=100, warm_up=1, longest_s=60.0, model="m")


class Server:
    """Answers every turn, and shows the provider all of it or the last `most` items."""

    def __init__(self, most: int = 10_000, fails_at: int | None = None) -> None:
        self.creates: list[Mapping[str, Any]] = []
        self.depths: dict[str, int] = {}
        self._most = most
        self._fails_at = fails_at
        self._ids = itertools.count()

    async def turn(self, create: Mapping[str, Any]) -> TurnReply:
        self.creates.append(create)
        if len(self.creates) == self._fails_at:
            return TurnReply(ended="fault", fault=TurnFault(kind="refused", transport="http", status=500, code="oops"))
        depth = self.depths.get(create.get("previous_response_id", ""), 0) + 1
        name = f"resp_{next(self._ids)}"
        self.depths[name] = depth
        return TurnReply(ended="completed", response_id=name)

    def take(self, _: str) -> SeenHistory | None:
        depth = list(self.depths.values())[-1]
        return SeenHistory(min(depth, self._most), min(depth - 1, self._most), 1000 * depth)


async def hold(server: Server, plan: ChainPlan = PLAN) -> HeldChain:
    clock = itertools.count(0.0, 0.5)
    names = itertools.count()
    holder = ChainHolder(
        server, plan, take_seen=server.take, cpu_s=lambda: next(clock), names=lambda: f"{next(names):08}"
    )
    return await holder.hold()


async def test_windows_begin_at_their_depths() -> None:
    server = Server()
    chain = await hold(server)
    assert [(one.depth, len(one.turns), one.cpu_s) for one in chain.windows] == [(1, 2, 0.5), (4, 2, 0.5), (8, 2, 0.5)]
    assert [one.provider_bytes for one in chain.windows] == [(1000, 1000), (4000, 5000), (8000, 9000)]
    assert (chain.problem, chain.kept, chain.answered) == (None, True, 1 + 2 + 9)
    assert (chain.seen, chain.expected) == (17, 17)
    assert window_at([chain, chain], 4) == [chain.windows[1]] * 2


async def test_a_window_that_reaches_into_the_next_pushes_it() -> None:
    chain = await hold(Server(), replace(PLAN, depths=(4, 5), window=3, warm_up=0))
    assert [one.provider_bytes for one in chain.windows] == [(4000, 5000, 6000), (7000, 8000, 9000)]


async def test_the_least_that_was_seen_is_told() -> None:
    chain = await hold(Server(most=3))
    assert (chain.kept, chain.seen, chain.expected) == (False, 6, 17)
    assert [one.kept for one in chain.windows] == [True, False, False]
    assert (await hold(Server(most=0))).seen == 0


async def test_a_fault_ends_the_chain_and_leaves_what_was_measured() -> None:
    chain = await hold(Server(fails_at=6))
    assert chain.problem == "depth 3: 500 oops"
    assert [one.depth for one in chain.windows] == [1]
    assert chain.kept
    at_once = await hold(Server(fails_at=1))
    assert (at_once.problem, at_once.windows, at_once.kept) == ("depth 1: 500 oops", (), None)


async def test_a_response_without_an_id_ends_it() -> None:
    class Nameless(Server):
        async def turn(self, create: Mapping[str, Any]) -> TurnReply:
            return replace(await super().turn(create), response_id=None)

    assert (await hold(Nameless())).problem == "depth 1: there is no id"


async def test_the_time_is_bounded() -> None:
    chain = await hold(Server(), replace(PLAN, longest_s=-1.0))
    assert chain.problem == "the time was over at depth 1"


async def test_without_clocks_there_is_no_cpu_time() -> None:
    server = Server()
    holder = ChainHolder(server, PLAN, take_seen=lambda _: None, cpu_s=lambda: None, names=lambda: "00000000")
    chain = await holder.hold()
    assert [one.cpu_s for one in chain.windows] == [None] * 3
    assert chain.kept is False


@pytest.mark.parametrize("size", [1, 100, 5000])
def test_a_turn_has_the_size_asked_for(size: int) -> None:
    create = make_turn(replace(PLAN, turn_bytes=size), "0123abcd", 7, previous="resp_1")
    (text,) = [part["text"] for part in create["input"][0]["content"]]
    assert len(text) == max(size, len("mark-u-0123abcd-00007"))
    assert text.startswith("mark-u-0123abcd-00007")
    assert create["previous_response_id"] == "resp_1"
    assert "previous_response_id" not in make_turn(PLAN, "0123abcd", 7, previous=None)
