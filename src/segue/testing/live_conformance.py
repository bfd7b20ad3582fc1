"""The conformance suite of what gateways share while turns run: rules that both forms must keep, as checks.

A check is a coroutine function that is given the parts of one node, new and empty, and raises `AssertionError` if a
rule is broken. It is used as `store_conformance` is. Not here: what only several nodes can show, which is tested at
the form that has several.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from segue.protocol.events import Event
from segue.protocol.ids import ResponseId
from segue.stores.event_logs import EventLogs, EventsGone
from segue.stores.idempotency_keys import Claim, Claims
from segue.stores.live.advisory_locks import AdvisoryLocks
from segue.stores.live.interface import Nodes, Notice


class LiveParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a check is given. The node is not started yet."""

    nodes: Nodes
    claims: Claims
    locks: AdvisoryLocks
    logs: EventLogs


LiveCheck = Callable[[LiveParts], Awaitable[None]]


async def _ignore(notice: Notice) -> None:
    """Act on nothing."""


async def a_started_node_has_a_lease(parts: LiveParts) -> None:
    """A node that was started lives, and knows its token and what data it shares."""
    nodes = parts.nodes
    await nodes.start(_ignore)
    assert nodes.held
    assert nodes.token > 0
    assert nodes.epoch
    assert [(one.node, one.token) for one in await nodes.living()] == [(nodes.id, nodes.token)]


async def a_notice_of_the_only_node_is_confirmed_at_once(parts: LiveParts) -> None:
    """Nobody else has to act."""
    await parts.nodes.start(_ignore)
    await parts.nodes.tell(Notice("deleted", "alice", ("resp_1",)))


async def a_node_that_leaves_lives_until_it_is_closed(parts: LiveParts) -> None:
    """What it has under way is still its own."""
    await parts.nodes.start(_ignore)
    await parts.nodes.drain()
    assert parts.nodes.held
    assert [one.draining for one in await parts.nodes.living()] == [True]


MINE, YOURS = Claim(ResponseId("resp_1"), b"1"), Claim(ResponseId("resp_2"), b"2\xff")


async def _claims(parts: LiveParts) -> Claims:
    await parts.nodes.start(_ignore)
    return parts.claims


async def the_first_has_a_key_until_it_gives_it_back(parts: LiveParts) -> None:
    """Then the next one may have it."""
    claims = await _claims(parts)
    assert await claims.claim("a", "k", MINE, 0) == MINE
    assert await claims.claim("a", "k", YOURS, 1e9) == MINE
    assert await claims.claim("a", "k", MINE, 0) == MINE
    await claims.release("a", "k", MINE.response_id)
    assert await claims.claim("a", "k", YOURS, 0) == YOURS


async def a_key_is_its_tenants_own(parts: LiveParts) -> None:
    """Another tenant's key of the same name is another one."""
    claims = await _claims(parts)
    await claims.claim("a", "k", MINE, 0)
    assert await claims.claim("b", "k", YOURS, 0) == YOURS
    assert await claims.claim("a", "l", YOURS, 0) == YOURS


async def only_who_has_a_claim_changes_it(parts: LiveParts) -> None:
    """Who had it before, and who never had it, changes nothing."""
    claims = await _claims(parts)
    await claims.claim("a", "k", MINE, 0)
    await claims.release("a", "k", YOURS.response_id)
    await claims.expire("a", "k", YOURS.response_id, at=0.001, now=0)
    await claims.release("a", "l", YOURS.response_id)
    assert not await claims.forward("a", "k", YOURS.response_id)
    assert not await claims.forward("a", "l", MINE.response_id)
    assert await claims.claim("a", "k", YOURS, 1) == MINE
    assert await claims.forward("a", "k", MINE.response_id)


async def a_claim_that_has_ended_holds_as_long_as_was_said(parts: LiveParts) -> None:
    """It is found until then, though its turn is over."""
    claims = await _claims(parts)
    for key in ("k", "l"):
        await claims.claim("a", key, MINE, 0)
        await claims.forward("a", key, MINE.response_id)
    await claims.expire("a", "k", MINE.response_id, at=100, now=0)
    await claims.expire("a", "l", MINE.response_id, at=0.02, now=0)
    await asyncio.sleep(0.05)
    await claims.purge(1)
    assert await claims.claim("a", "k", YOURS, 1) == MINE
    assert await claims.claim("a", "l", YOURS, 1) == YOURS


async def a_spent_key_is_for_repeats_alone(parts: LiveParts) -> None:
    """A turn that ran and came to nothing is found by repeats of the same request; to others its key is free."""
    claims = await _claims(parts)
    for key in ("k", "l", "m"):
        await claims.claim("a", key, MINE, 0)
        await claims.forward("a", key, MINE.response_id)
        await claims.spend("a", key, YOURS.response_id, at=100, now=0)
        assert await claims.claim("a", key, YOURS, 1) == MINE, "only who has the claim spends it"
        await claims.spend("a", key, MINE.response_id, at=100, now=0)
    again = Claim(YOURS.response_id, MINE.digest)
    assert await claims.claim("a", "k", again, 1, repeats=True) == MINE
    assert await claims.claim("a", "k", again, 1) == again
    assert await claims.claim("a", "k", MINE, 1, repeats=True) == again, "it is claimed anew"
    assert await claims.claim("a", "l", YOURS, 1, repeats=True) == YOURS, "another request is no repeat"
    assert await claims.claim("a", "m", YOURS, 1) == YOURS


async def the_keys_of_a_tenant_are_dropped_together(parts: LiveParts) -> None:
    """Those of others stay."""
    claims = await _claims(parts)
    for tenant, key in (("a", "k"), ("a", "l"), ("b", "k")):
        await claims.claim(tenant, key, MINE, 0)
    await claims.drop_tenant("a")
    held = [await claims.claim(tenant, key, YOURS, 0) for tenant, key in (("a", "k"), ("a", "l"), ("b", "k"))]
    assert held == [YOURS, YOURS, MINE]


async def _locks(parts: LiveParts) -> AdvisoryLocks:
    await parts.nodes.start(_ignore)
    return parts.locks


async def a_lock_has_one_holder_until_it_is_released(parts: LiveParts) -> None:
    """Others are refused, and no holder has to wait for them."""
    locks = await _locks(parts)
    assert await locks.take("a", "l", "one")
    assert not await locks.take("a", "l", "two")
    assert await locks.keeps("a", "l", "one")
    assert not await locks.keeps("a", "l", "two")
    await locks.release("a", "l", "one")
    assert not await locks.keeps("a", "l", "one")
    assert await locks.take("a", "l", "two")


async def a_lock_is_its_tenants_own(parts: LiveParts) -> None:
    """One of the same name of another tenant, or of another name, is another one."""
    locks = await _locks(parts)
    assert await locks.take("a", "l", "one")
    assert await locks.take("b", "l", "two")
    assert await locks.take("a", "m", "three")


async def only_its_holder_releases_a_lock(parts: LiveParts) -> None:
    """Who had it before releases nothing, and neither does who never had it."""
    locks = await _locks(parts)
    await locks.take("a", "l", "one")
    await locks.release("a", "l", "one")
    await locks.take("a", "l", "two")
    await locks.release("a", "l", "one")
    await locks.release("a", "m", "one")
    await locks.renew()
    assert await locks.keeps("a", "l", "two")
    assert not await locks.take("a", "l", "three")


async def of_many_who_take_a_lock_at_once_one_has_it(parts: LiveParts) -> None:
    """Whoever it is."""
    locks = await _locks(parts)
    taken = await asyncio.gather(*(locks.take("a", "l", str(number)) for number in range(20)))
    assert sum(taken) == 1


ONE, TWO = ResponseId("resp_1"), ResponseId("resp_2")


def _events(first: int, count: int, *, size: int = 10) -> list[Event]:
    return [Event("response.output_text.delta", b"x" * size, number) for number in range(first, first + count)]


async def _collect(logs: EventLogs, after: int, tenant: str = "a", ident: ResponseId = ONE) -> list[int]:
    return [event.sequence_number async for batch in logs.follow(tenant, ident, after) for event in batch]


async def _logs(parts: LiveParts) -> EventLogs:
    await parts.nodes.start(_ignore)
    await parts.logs.open("a", ONE, shared=True)
    return parts.logs


async def _is_gone(reading: Awaitable[object]) -> bool:
    try:
        await reading
    except EventsGone:
        return True
    return False


async def a_follower_gets_what_it_lacks_and_then_what_comes(parts: LiveParts) -> None:
    """From every number on, before and after the end."""
    logs = await _logs(parts)
    await logs.append("a", ONE, _events(0, 7))
    following = [asyncio.create_task(_collect(logs, after)) for after in (-1, 3, 6)]
    await asyncio.sleep(0)
    await logs.append("a", ONE, _events(7, 3))
    await logs.append("a", ONE, _events(10, 1))
    await logs.end("a", ONE, 100)
    await logs.settled("a", ONE)
    for after, task in zip((-1, 3, 6), following, strict=True):
        assert await task == list(range(after + 1, 11)) == await _collect(logs, after)


async def what_is_not_there_is_gone(parts: LiveParts) -> None:
    """Another tenant's log, another response's, a number that no event has, and a log that was dropped."""
    logs = await _logs(parts)
    await logs.append("a", ONE, _events(0, 2))
    for tenant, ident, after in (("b", ONE, -1), ("a", TWO, -1), ("a", ONE, 2), ("b", TWO, 0)):
        assert await _is_gone(_collect(logs, after, tenant, ident))
    assert await logs.latest("b", ONE) is None
    await logs.drop("a", ONE)
    assert await _is_gone(_collect(logs, -1))


async def the_latest_event_that_shows_the_response_is_known(parts: LiveParts) -> None:
    """Whatever comes after it."""
    logs = await _logs(parts)
    created = Event("response.created", b'{"type":"response.created","response":{', 0, echo=b'{"a":1}')
    await logs.append("a", ONE, [created, *_events(1, 3)])
    assert await logs.latest("a", ONE) == created
    assert not await logs.runs_elsewhere("a", ONE)
    assert await logs.begun("a", ONE)


async def the_logs_of_a_tenant_are_dropped_together(parts: LiveParts) -> None:
    """Those of others stay."""
    logs = await _logs(parts)
    await logs.open("a", TWO, shared=False)
    await logs.open("b", ONE, shared=True)
    for tenant, ident in (("a", ONE), ("a", TWO), ("b", ONE)):
        await logs.append(tenant, ident, _events(0, 1))
    assert await logs.drop_tenant("a") == 2  # noqa: PLR2004 - as many as were opened
    assert await _is_gone(_collect(logs, -1))
    assert await _is_gone(_collect(logs, -1, "a", TWO))
    await logs.end("b", ONE, 100)
    assert await _collect(logs, -1, "b") == [0]


LIVE_CHECKS: list[Callable[[LiveParts], Coroutine[Any, Any, None]]] = [
    a_started_node_has_a_lease,
    a_notice_of_the_only_node_is_confirmed_at_once,
    a_node_that_leaves_lives_until_it_is_closed,
    the_first_has_a_key_until_it_gives_it_back,
    a_key_is_its_tenants_own,
    only_who_has_a_claim_changes_it,
    a_claim_that_has_ended_holds_as_long_as_was_said,
    a_spent_key_is_for_repeats_alone,
    the_keys_of_a_tenant_are_dropped_together,
    a_lock_has_one_holder_until_it_is_released,
    a_lock_is_its_tenants_own,
    only_its_holder_releases_a_lock,
    of_many_who_take_a_lock_at_once_one_has_it,
    a_follower_gets_what_it_lacks_and_then_what_comes,
    what_is_not_there_is_gone,
    the_latest_event_that_shows_the_response_is_known,
    the_logs_of_a_tenant_are_dropped_together,
]
