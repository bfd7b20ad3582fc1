"""What may be under way at once, over several gateways: never more than a limit, and no place is lost."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.config import Config
from segue.gateway.principal import Principal
from segue.gateway.quotas.concurrency import ConcurrencyLimiter
from segue.gateway.quotas.quotas import Quotas, Scope
from segue.protocol.problems import Refused
from segue.stores.live.interface import HeldPlaces, LiveUnavailable, WantedPlaces

LAPTOP, PHONE, BOB = Principal("alice", "k"), Principal("alice", "l"), Principal("bob")


LEASE_S = 9.0


class AllPlaces:
    """What all gateways share, in memory, and the time."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], Counter[int]] = {}
        self.asked = 0
        self.away = False
        self.now = 0.0
        self._ends_at: dict[tuple[str, str, int], float] = {}

    def hold(self, node: int, tenant: str, wanted: Sequence[WantedPlaces]) -> Sequence[HeldPlaces]:
        self.asked += 1
        if self.away:
            raise LiveUnavailable
        told = []
        for one in wanted:
            all_held = self.held.setdefault((tenant, one.name), Counter())
            for other in [other for other in all_held if self._ends_at[tenant, one.name, other] <= self.now]:
                del all_held[other]
            self._ends_at[tenant, one.name, node] = self.now + LEASE_S
            others = all_held.total() - all_held[node]
            all_held[node] = max(one.used, min(one.wanted, one.most - others))
            told.append(HeldPlaces(all_held[node], others))
        return told

    def total(self, name: str = "turns", tenant: str = "alice") -> int:
        return self.held.get((tenant, name), Counter()).total()


class Way:
    """The way of one gateway to what is shared: calls take their time, and keep their order.

    A gateway that stands still sends nothing, and takes nothing that comes, before it is awake.
    """

    lease_s = LEASE_S

    def __init__(self, places: AllPlaces, node: int, chance: random.Random) -> None:
        self.awake = asyncio.Event()
        self.awake.set()
        self.answered = asyncio.Event()
        self._places = places
        self._node = node
        self._chance = chance
        self._order = asyncio.Lock()

    async def hold(self, tenant: str, wanted: Sequence[WantedPlaces]) -> Sequence[HeldPlaces]:
        async with self._order:
            await self._rest()
            told = self._places.hold(self._node, tenant, wanted)
            self.answered.set()
            await self._rest()
            return told

    async def _rest(self) -> None:
        for _ in range(self._chance.randrange(4)):
            await asyncio.sleep(0)
        await self.awake.wait()


def gateways(places: AllPlaces, count: int = 2, *, seed: int = 0, **limits: object) -> list[ConcurrencyLimiter]:
    chance = random.Random(seed)
    return [gateway(Way(places, node, chance), places, **limits) for node in range(count)]


def gateway(way: Way, places: AllPlaces, **limits: object) -> ConcurrencyLimiter:
    config = msgspec.convert(
        {"limits": limits, "key": [{"name": "k", "tenant": "alice", "sha256": "0" * 64, "limits": {"turns": 2}}]},
        Config,
    )
    return ConcurrencyLimiter(Quotas(config), way, lambda: 1000.0, lambda: places.now)


def end(gateway: ConcurrencyLimiter, scopes: Sequence[Scope]) -> None:
    gateway.quotas.end(scopes, None, 1000.0)


async def settle(gateway: ConcurrencyLimiter, intervals: int = 2) -> None:
    """Let intervals go by. What is not used in a whole one is given back."""
    for _ in range(intervals):
        await gateway.settle()


async def refusal(gateway: ConcurrencyLimiter, principal: Principal) -> str:
    with pytest.raises(Refused) as caught:
        await gateway.begin(principal)
    assert caught.value.problem.code == "rate_limit_exceeded"
    return caught.value.problem.message


async def test_turns_of_all_gateways_count_together() -> None:
    one, two = gateways(AllPlaces(), turns=3)
    running = [await one.begin(PHONE), await two.begin(PHONE), await two.begin(PHONE)]
    for gateway in (one, two):
        assert "3 turns are under way, the most for this tenant" in await refusal(gateway, PHONE)
    await one.begin(BOB)  # whoever else has a limit of its own
    end(one, running[0])
    await settle(one)
    await two.begin(PHONE)
    assert one.quotas.scopes(PHONE)[1].counts.refused == 1


async def test_the_limit_of_a_key_holds_beside_that_of_its_tenant() -> None:
    one, two = gateways(AllPlaces(), turns=3)
    await one.begin(LAPTOP)
    await two.begin(LAPTOP)
    assert "for this key" in await refusal(two, LAPTOP)
    await two.begin(PHONE)
    assert "for this tenant" in await refusal(one, PHONE)


async def test_connections_of_all_gateways_count_together() -> None:
    one, two = gateways(AllPlaces(), connections=1)
    async with one.connected(PHONE):
        with pytest.raises(Refused, match="1 connections are open"):
            async with two.connected(PHONE):
                raise AssertionError
    await settle(one)
    async with two.connected(PHONE):
        pass


async def test_a_place_that_is_free_again_needs_no_call_and_is_given_back_if_nobody_uses_it() -> None:
    places = AllPlaces()
    (one,) = gateways(places, 1, turns=3)
    end(one, await one.begin(PHONE))
    asked = places.asked
    end(one, await one.begin(PHONE))
    assert places.asked == asked
    await one.settle()  # it was used in this interval
    end(one, await one.begin(PHONE))
    assert (places.asked, places.total()) == (asked, 1)
    await settle(one)
    assert places.total() == 0
    asked = places.asked
    await settle(one, 100)
    assert places.asked == asked, "who has nothing says nothing"


async def test_of_a_large_limit_a_part_is_reserved_so_that_few_turns_ask() -> None:
    places = AllPlaces()
    (one,) = gateways(places, 1, turns=1000)
    for _ in range(100):
        await one.begin(PHONE)
    assert places.asked <= 4
    assert places.total() < 300
    await settle(one, 30)
    assert places.total() == 100, "a reserve that is not used is given back"


async def test_what_is_used_is_said_again_before_it_is_forgotten() -> None:
    places = AllPlaces()
    one, two = gateways(places, turns=1)
    await one.begin(PHONE)
    places.held.clear()  # it was lost
    places.now += 2.0
    await one.settle()
    await refusal(two, PHONE)
    places.held.clear()
    one.tell_again()
    await one.settle()
    await refusal(two, PHONE)


async def test_a_gateway_that_can_ask_nobody_counts_alone_and_says_afterwards_what_it_has() -> None:
    places = AllPlaces()
    one, two = gateways(places, turns=2)
    await one.begin(PHONE)
    places.away = True
    running = [await two.begin(PHONE), await two.begin(PHONE)]
    await refusal(two, PHONE)
    assert two.alone
    await two.settle()
    places.away = False
    await two.settle()
    assert (two.alone, places.total()) == (False, 3), "what runs is counted, whatever the limit is"
    end(two, running[0])
    await refusal(one, PHONE)


async def test_a_gateway_that_stood_still_has_no_place_left() -> None:
    places = AllPlaces()
    one, two = gateways(places, turns=1)
    end(one, await one.begin(PHONE))
    places.now += LEASE_S  # one stands still: its place is free
    running = await two.begin(PHONE)
    await refusal(one, PHONE)
    end(two, running)
    await settle(two)
    await one.begin(PHONE)


async def test_a_gateway_counts_its_places_as_lost_before_others_do() -> None:
    places = AllPlaces()
    (one,) = gateways(places, 1, turns=1)
    end(one, await one.begin(PHONE))
    places.now += LEASE_S * 0.9
    asked = places.asked
    await one.begin(PHONE)
    assert places.asked == asked + 1


async def test_what_ends_where_a_gateway_stood_still_makes_no_place_there() -> None:
    places = AllPlaces()
    one, two = gateways(places, turns=2)
    stale = [await one.begin(PHONE), await one.begin(PHONE)]
    places.now += LEASE_S
    running = await two.begin(PHONE), await two.begin(PHONE)
    await one.settle()
    assert places.total() == 4, "what runs is counted, though its places are lost"
    end(one, stale[0])
    await refusal(one, PHONE)
    end(one, stale[1])
    await refusal(one, PHONE)
    end(two, running[0])
    await settle(two)
    await one.begin(PHONE)
    await refusal(two, PHONE)


async def test_a_gateway_that_stood_still_while_it_asked_asks_again() -> None:
    places = AllPlaces()
    way = Way(places, 0, random.Random(0))
    one, two = gateway(way, places, turns=1), gateway(Way(places, 1, random.Random(0)), places, turns=1)
    asking = asyncio.create_task(one.begin(PHONE))
    await way.answered.wait()
    way.awake.clear()
    places.now += LEASE_S
    await two.begin(PHONE)
    way.awake.set()
    with pytest.raises(Refused):
        await asking
    assert places.total() == 1


async def test_one_gateway_alone_asks_nobody() -> None:
    alone = ConcurrencyLimiter(gateways(AllPlaces(), turns=1)[0].quotas, None, lambda: 1000.0)
    scopes = await alone.begin(PHONE)
    await refusal(alone, PHONE)
    end(alone, scopes)
    await alone.begin(PHONE)


async def test_a_limit_that_is_taken_away_gives_its_places_back() -> None:
    places = AllPlaces()
    (one,) = gateways(places, 1, turns=1000)
    await one.begin(PHONE)
    one.quotas.replace(Config())
    await settle(one)
    assert places.total() == 1, "what runs goes on to count"


async def test_a_turn_that_is_refused_for_another_reason_keeps_no_place() -> None:
    places = AllPlaces()
    (one,) = gateways(places, 1, turns=5, requests_per_minute=1)
    end(one, await one.begin(PHONE))
    await refusal(one, PHONE)
    await settle(one)
    assert places.total() == 0


async def test_a_caller_that_goes_away_while_it_asks_keeps_no_place() -> None:
    places = AllPlaces()
    (one,) = gateways(places, 1, turns=5)
    for rests in range(8):
        asking = asyncio.create_task(one.begin(PHONE))
        for _ in range(rests):
            await asyncio.sleep(0)
        asking.cancel()
        (begun,) = await asyncio.gather(asking, return_exceptions=True)
        if not isinstance(begun, BaseException):
            end(one, begun)
    await settle(one)
    assert places.total() == 0


class Crowd:
    """Turns that begin, end and are cancelled at several gateways in random order."""

    def __init__(self, seed: int, most: int, count: int) -> None:
        self.places = AllPlaces()
        self.nodes = gateways(self.places, count, seed=seed, turns=most)
        self._chance = random.Random(seed)
        self._most = most
        self._running: Counter[Principal] = Counter()

    async def run(self) -> None:
        settling = [asyncio.create_task(self._settle(node)) for node in self.nodes]
        for _ in range(6):
            count = self._most + self._chance.randrange(6)
            turns = [asyncio.create_task(self._turn(self._chance.choice(self.nodes))) for _ in range(count)]
            for turn in self._chance.sample(turns, count // 4):
                await asyncio.sleep(0)
                turn.cancel()
            ended = await asyncio.gather(*turns, return_exceptions=True)
            assert not [one for one in ended if isinstance(one, Exception)]
        await asyncio.gather(*settling)
        for node in self.nodes:
            await settle(node, 25)

    async def _turn(self, node: ConcurrencyLimiter) -> None:
        principal = self._chance.choice((LAPTOP, PHONE))
        try:
            scopes = await node.begin(principal)
        except Refused:
            return
        self._running[principal] += 1
        try:
            assert self._running.total() <= self._most
            assert self._running[LAPTOP] <= 2
            await self._rest(12)
        finally:
            self._running[principal] -= 1
            end(node, scopes)

    async def _settle(self, node: ConcurrencyLimiter) -> None:
        for _ in range(10):
            await node.settle()
            await self._rest(5)

    async def _rest(self, most: int) -> None:
        for _ in range(self._chance.randrange(most)):
            await asyncio.sleep(0)


async def test_who_asks_for_one_limit_keeps_what_it_has_of_the_other() -> None:
    places = AllPlaces()
    one, two = gateways(places, turns=6)
    running = [await one.begin(PHONE) for _ in range(4)]
    for scopes in running:
        end(one, scopes)
    asking = asyncio.create_task(one.begin(LAPTOP))  # its key has no place yet; the tenant has four
    await asyncio.sleep(0)
    begun = 1
    while one.quotas.scopes(PHONE)[1].running < 3:
        await one.begin(PHONE)  # needs no call
        begun += 1
    await asking
    while begun < 6:
        await two.begin(PHONE)
        begun += 1
    await refusal(two, PHONE)


class StandingCrowd:
    """Turns at several gateways of which one after the other stands still until its places are lost, and goes on.

    Of the turns that are asked for after that, no more run than may, whatever else still runs.
    """

    def __init__(self, seed: int, most: int, count: int) -> None:
        self._chance = random.Random(seed)
        self._most = most
        self.places = AllPlaces()
        self._ways = [Way(self.places, node, self._chance) for node in range(count)]
        self._nodes = [gateway(way, self.places, turns=most) for way in self._ways]
        self._stops = 0
        self._running: Counter[int] = Counter()

    async def run(self) -> None:
        turns = []
        for way in self._chance.choices(self._ways, k=4):
            turns += [asyncio.create_task(self._turn()) for _ in range(self._most + 3)]
            await self._rest(30)
            way.awake.clear()
            self._stops += 1
            for _ in range(int(LEASE_S) + 1):
                self.places.now += 1.0
                turns.append(asyncio.create_task(self._turn()))
                await self._settle()
            way.awake.set()
            self._stops += 1
        assert not [one for one in await asyncio.gather(*turns, return_exceptions=True) if isinstance(one, Exception)]
        for _ in range(25):
            await self._settle()

    async def _turn(self) -> None:
        number = self._chance.randrange(len(self._nodes))
        way, node = self._ways[number], self._nodes[number]
        await way.awake.wait()
        asked_in = self._stops
        try:
            scopes = await node.begin(PHONE)
        except Refused:
            return
        self._running[asked_in] += 1
        assert asked_in < self._stops or self._running[asked_in] <= self._most
        for _ in range(self._chance.randrange(4)):
            await self._rest(12)
            await way.awake.wait()
        self._running[asked_in] -= 1
        end(node, scopes)

    async def _settle(self) -> None:
        for way, node in zip(self._ways, self._nodes, strict=True):
            if way.awake.is_set():
                await node.settle()

    async def _rest(self, most: int) -> None:
        for _ in range(self._chance.randrange(most)):
            await asyncio.sleep(0)


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 5, 70]), st.integers(2, 4))
def test_of_what_is_begun_after_a_gateway_stood_still_never_more_than_the_limit_run(
    seed: int, most: int, count: int
) -> None:
    crowd = StandingCrowd(seed, most, count)
    asyncio.run(crowd.run())
    assert crowd.places.total() == 0


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 5, 70]), st.integers(2, 4))
def test_never_more_than_the_limit_run_and_no_place_is_lost(seed: int, most: int, count: int) -> None:
    crowd = Crowd(seed, most, count)
    asyncio.run(crowd.run())
    assert crowd.places.total() == 0
    assert crowd.places.total("key:k:turns") == 0
