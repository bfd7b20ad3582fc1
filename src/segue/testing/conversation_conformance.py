"""What a store must do with conversations: these checks are part of the conformance suite (`store_conformance`).

Not here: what it must do with responses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from segue.history.conversations import ConversationMove
from segue.history.records import Record
from segue.protocol.ids import ConversationId, ResponseId
from segue.stores.interface import ConversationMoved, IdTaken, ParentGone, Store, StoreError, StoreSize
from segue.testing.store_samples import (
    ALICE,
    BOB,
    LATER,
    NOW,
    link_of,
    link_of_step,
    sample_conversation,
    sample_conversation_id,
    sample_id,
    sample_record,
    sample_step,
)

TALK = sample_conversation_id("talk")


async def a_conversation_reads_back_whole(store: Store) -> None:
    """Every field comes back as it was, of an empty one and of one that begins with items or with a response."""
    await _append(store, sample_record("root"))
    empty, begun = sample_conversation("talk"), sample_conversation("begun", "root")
    await store.create_conversation(empty)
    await store.create_conversation(begun)
    await store.create_conversation(sample_conversation("given"), sample_step("items"))
    assert await store.conversation(ALICE, TALK) == empty
    assert await store.conversation(ALICE, begun.id) == begun
    assert await store.conversation(ALICE, sample_conversation_id("given")) == sample_conversation("given", "items")
    assert await store.conversation_chain(ALICE, TALK, NOW) == []
    assert await store.conversation_chain(ALICE, begun.id, NOW) == [link_of(sample_record("root"))]


async def an_unknown_conversation_is_nothing(store: Store) -> None:
    """One that was never made, one of another tenant and a deleted one look the same."""
    await store.create_conversation(sample_conversation("talk"), sample_step("items"))
    await store.create_conversation(sample_conversation("gone"))
    assert await store.delete_conversation(ALICE, sample_conversation_id("gone"))
    for tenant, name in ((ALICE, "unknown"), (BOB, "talk"), (ALICE, "gone")):
        ident = sample_conversation_id(name)
        assert await store.conversation(tenant, ident) is None
        assert await store.conversation_chain(tenant, ident, NOW) is None
        assert not await store.describe_conversation(tenant, ident, b"{}", NOW)
        assert not await store.delete_conversation(tenant, ident)
        move = ConversationMove(from_id=sample_id("items") if tenant == ALICE else None, step=sample_step("x"), at=NOW)
        await _assert_refused(store.move_conversation(tenant, ident, move), ConversationMoved)
        await _assert_refused(store.append_to_conversation(ident, sample_record("x", tenant=tenant)), ConversationMoved)
        assert await store.record(tenant, sample_id("x"), NOW) is None
    assert await store.conversation(ALICE, TALK) == sample_conversation("talk", "items")


async def an_id_of_a_conversation_is_used_once(store: Store) -> None:
    """For one tenant; two may have the same."""
    await store.create_conversation(sample_conversation("talk"), sample_step("items"))
    await _assert_refused(store.create_conversation(sample_conversation("talk")), IdTaken)
    await store.create_conversation(sample_conversation("talk", tenant=BOB))
    assert await store.conversation(ALICE, TALK) == sample_conversation("talk", "items")
    assert await store.conversation_chain(BOB, TALK, NOW) == []


async def a_conversation_grows_by_responses_and_by_steps(store: Store) -> None:
    """Its chain has both, in the order in which they came. Nobody can ask for a step as for a response."""
    await store.create_conversation(sample_conversation("talk"))
    first, step, last = sample_record("first"), sample_step("added", "first"), sample_record("last", "added")
    await store.append_to_conversation(TALK, first)
    await store.move_conversation(ALICE, TALK, ConversationMove(from_id=first.id, step=step, at=NOW + 1))
    await store.append_to_conversation(TALK, last)
    links = [link_of(first), link_of_step(step), link_of(last)]
    assert await store.conversation_chain(ALICE, TALK, NOW) == links
    assert await store.chain(ALICE, last.id, NOW) == links
    assert await store.record(ALICE, last.id, NOW) == last
    assert await store.chain(ALICE, step.id, NOW) is None
    assert await store.record(ALICE, step.id, NOW) is None
    assert not await store.delete(ALICE, step.id, NOW)
    assert (await store.size()).records == len([first, last])
    changed = msgspec.structs.replace(sample_conversation("talk", "last"), changed_at=NOW + 1)
    assert await store.conversation(ALICE, TALK) == changed


async def a_fork_leaves_a_conversation_where_it_is(store: Store) -> None:
    """A response of it can be continued by its id, as any other."""
    await store.create_conversation(sample_conversation("talk"))
    await store.append_to_conversation(TALK, sample_record("root"))
    await _append(store, sample_record("fork", "root"))
    assert await _chain_ids(store, TALK) == [sample_id("root")]


async def what_has_moved_is_not_overwritten(store: Store) -> None:
    """Whoever expects a conversation to point elsewhere changes nothing."""
    await store.create_conversation(sample_conversation("talk"))
    await store.append_to_conversation(TALK, sample_record("first"))
    await _assert_refused(store.append_to_conversation(TALK, sample_record("late")), ConversationMoved)
    move = ConversationMove(from_id=None, step=sample_step("step"), at=NOW)
    await _assert_refused(store.move_conversation(ALICE, TALK, move), ConversationMoved)
    await _assert_refused(store.append(sample_record("child", "step")), ParentGone)
    gone = ConversationMove(from_id=sample_id("first"), step=sample_step("step", "unknown"), at=NOW)
    await _assert_refused(store.move_conversation(ALICE, TALK, gone), ParentGone)
    taken = ConversationMove(from_id=sample_id("first"), step=sample_step("first", "first"), at=NOW)
    await _assert_refused(store.move_conversation(ALICE, TALK, taken), IdTaken)
    assert await _chain_ids(store, TALK) == [sample_id("first")]
    assert (await store.size()).records == 1


async def two_that_move_at_once_do_not_both_win(store: Store) -> None:
    """Of appends that expect the same, one is stored."""
    await store.create_conversation(sample_conversation("talk"))
    appends = (store.append_to_conversation(TALK, sample_record(str(n))) for n in range(10))
    results = await asyncio.gather(*appends, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["ConversationMoved"] * 9 + ["NoneType"]
    assert (await store.size()).records == 1


async def a_conversation_keeps_what_expires_or_is_deleted(store: Store) -> None:
    """Its items stay; the ids of the responses resolve to nothing."""
    first, last = sample_record("first", expires_at=NOW + 5), sample_record("last", "first", expires_at=NOW + 5)
    await store.create_conversation(sample_conversation("talk"))
    await store.append_to_conversation(TALK, first)
    await store.append_to_conversation(TALK, last)
    assert await store.delete(ALICE, first.id, NOW)
    while await store.sweep(NOW + 5):
        pass
    dead = [link_of(first, alive=False), link_of(last, alive=False)]
    assert await store.conversation_chain(ALICE, TALK, NOW + 5) == dead
    assert await store.chain(ALICE, last.id, NOW + 5) is None
    assert (await store.size()).records == 0
    await store.append_to_conversation(TALK, sample_record("next", "last", expires_at=LATER))
    assert await _chain_ids(store, TALK) == [first.id, last.id, sample_id("next")]


async def a_move_back_frees_what_nobody_needs(store: Store) -> None:
    """A step that a conversation leaves is gone; a response stays until it is deleted, and so does what it needs."""
    await store.create_conversation(sample_conversation("talk"), sample_step("one"))
    await store.append_to_conversation(TALK, sample_record("two", "one"))
    to_three = ConversationMove(from_id=sample_id("two"), step=sample_step("three", "two"), at=NOW)
    await store.move_conversation(ALICE, TALK, to_three)
    other = ConversationMove(from_id=sample_id("three"), step=sample_step("other", "one"), at=NOW)
    await store.move_conversation(ALICE, TALK, other)
    assert await _chain_ids(store, TALK) == [sample_id("one"), sample_id("other")]
    await _assert_refused(store.append(sample_record("late", "three")), ParentGone)
    assert await store.chain(ALICE, sample_id("two"), NOW) is not None
    await store.move_conversation(ALICE, TALK, ConversationMove(from_id=sample_id("other"), at=NOW))
    assert await store.conversation_chain(ALICE, TALK, NOW) == []
    assert await store.delete(ALICE, sample_id("two"), NOW)
    await _assert_refused(store.append(sample_record("late", "one")), ParentGone)


async def deleting_a_conversation_frees_its_items(store: Store) -> None:
    """What its responses need stays until they are gone."""
    await store.create_conversation(sample_conversation("talk"), sample_step("one"))
    await store.append_to_conversation(TALK, sample_record("two", "one"))
    three = ConversationMove(from_id=sample_id("two"), step=sample_step("three", "two"), at=NOW)
    await store.move_conversation(ALICE, TALK, three)
    assert await store.delete_conversation(ALICE, TALK)
    await _assert_refused(store.append(sample_record("late", "three")), ParentGone)
    chain = [link_of_step(sample_step("one")), link_of(sample_record("two", "one"))]
    assert await store.chain(ALICE, sample_id("two"), NOW) == chain
    assert await store.delete(ALICE, sample_id("two"), NOW)
    assert await store.tenant_size(ALICE) == StoreSize(0, 0)


async def metadata_is_replaced(store: Store) -> None:
    """All of it, and the time of the last change never goes back."""
    await store.create_conversation(sample_conversation("talk"), sample_step("one"))
    assert await store.describe_conversation(ALICE, TALK, b'{"a":"b"}', NOW + 5)
    assert await store.describe_conversation(ALICE, TALK, b'{"c":"d"}', NOW)
    expected = msgspec.structs.replace(sample_conversation("talk", "one"), metadata=b'{"c":"d"}', changed_at=NOW + 5)
    assert await store.conversation(ALICE, TALK) == expected


async def conversations_are_erased(store: Store) -> None:
    """Those of one tenant: all, or those that were last changed before a time. Responses stay."""
    names = [f"talk {n}" for n in range(150)]
    for number, name in enumerate(names):
        await store.create_conversation(sample_conversation(name), sample_step(f"step {number}"))
    await store.append_to_conversation(sample_conversation_id(names[0]), sample_record("last", "step 0"))
    await store.create_conversation(sample_conversation("his", tenant=BOB))
    assert await store.describe_conversation(ALICE, sample_conversation_id(names[1]), b"{}", NOW + 9)
    assert await store.erase_conversations(ALICE, NOW) == 0
    assert await store.erase_conversations(ALICE, NOW + 9) == len(names) - 1
    assert await store.conversation(ALICE, sample_conversation_id(names[1])) is not None
    assert await store.erase_conversations(ALICE, None) == 1
    assert await store.conversation(BOB, sample_conversation_id("his")) is not None
    assert await store.erase(ALICE, None) == [sample_id("last")]
    assert await store.tenant_size(ALICE) == StoreSize(0, 0)


async def the_size_of_a_tenant_counts_conversations(store: Store) -> None:
    """Their metadata, their items, and something for each, or nobody could be kept from making millions."""
    await store.create_conversation(msgspec.structs.replace(sample_conversation("talk"), metadata=b"x" * 10_000))
    assert (await store.tenant_size(ALICE)).size_bytes > 10_000  # noqa: PLR2004 - the metadata
    assert await store.tenant_size(BOB) == StoreSize(0, 0)
    step = msgspec.structs.replace(sample_step("big"), input=(b'"%b"' % (b"x" * 50_000),))
    await store.move_conversation(ALICE, TALK, ConversationMove(from_id=None, step=step, at=NOW))
    assert (await store.tenant_size(ALICE)).size_bytes > 60_000  # noqa: PLR2004 - the metadata and the items
    assert await store.delete_conversation(ALICE, TALK)
    assert await store.tenant_size(ALICE) == StoreSize(0, 0)


async def a_closed_store_refuses_conversations(store: Store) -> None:
    """As it refuses all else."""
    await store.create_conversation(sample_conversation("talk"))
    await store.aclose()
    calls: list[Coroutine[Any, Any, object]] = [
        store.create_conversation(sample_conversation("late")),
        store.conversation(ALICE, TALK),
        store.conversation_chain(ALICE, TALK, NOW),
        store.move_conversation(ALICE, TALK, ConversationMove(from_id=None, at=NOW)),
        store.describe_conversation(ALICE, TALK, b"{}", NOW),
        store.delete_conversation(ALICE, TALK),
        store.erase_conversations(ALICE, None),
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(result, StoreError) for result in results), results


CONVERSATION_CHECKS: tuple[Callable[[Store], Awaitable[None]], ...] = (
    a_conversation_reads_back_whole,
    an_unknown_conversation_is_nothing,
    an_id_of_a_conversation_is_used_once,
    a_conversation_grows_by_responses_and_by_steps,
    a_fork_leaves_a_conversation_where_it_is,
    what_has_moved_is_not_overwritten,
    two_that_move_at_once_do_not_both_win,
    a_conversation_keeps_what_expires_or_is_deleted,
    a_move_back_frees_what_nobody_needs,
    deleting_a_conversation_frees_its_items,
    metadata_is_replaced,
    conversations_are_erased,
    the_size_of_a_tenant_counts_conversations,
    a_closed_store_refuses_conversations,
)


async def _append(store: Store, *records: Record) -> None:
    for record in records:
        await store.append(record)


async def _chain_ids(store: Store, conversation_id: ConversationId) -> list[ResponseId]:
    chain = await store.conversation_chain(ALICE, conversation_id, NOW)
    return [link.id for link in chain or []]


async def _assert_refused(call: Coroutine[Any, Any, object], kind: type[StoreError]) -> None:
    (answer,) = await asyncio.gather(call, return_exceptions=True)
    assert isinstance(answer, kind), f"{answer!r} instead of {kind.__name__}"
