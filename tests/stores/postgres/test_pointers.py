"""Conversations that two nodes change at once. The suite of all stores checks their rules; `test_connections` cuts."""

from __future__ import annotations

import asyncio

import pytest

from segue.history.conversations import ConversationMove
from segue.stores.interface import IdTaken, ParentGone
from segue.stores.postgres.postgres_url import PostgresUrl
from segue.stores.postgres.store import PostgresStore
from segue.testing.store_conformance import ALICE, NOW, sample_id, sample_record
from segue.testing.store_samples import sample_conversation, sample_conversation_id, sample_step

pytestmark = pytest.mark.postgres

TALK = sample_conversation_id("talk")


async def test_of_two_nodes_that_move_a_conversation_one_wins(database: PostgresUrl) -> None:
    """The other's turn is not stored."""
    stores = [await PostgresStore.open(database) for _ in range(2)]
    await stores[0].create_conversation(sample_conversation("talk"))
    parent = None
    for n in range(10):
        names = [f"{n}/{node}" for node in range(2)]
        appends = (stores[k].append_to_conversation(TALK, sample_record(name, parent)) for k, name in enumerate(names))
        results = await asyncio.gather(*appends, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["ConversationMoved", "NoneType"]
        parent = names[results.index(None)]
    assert (await stores[0].size()).records == len(await stores[1].conversation_chain(ALICE, TALK, NOW) or []) == 10
    for store in stores:
        await store.aclose()


async def test_of_two_that_make_a_conversation_one_wins_and_the_other_leaves_nothing(database: PostgresUrl) -> None:
    stores = [await PostgresStore.open(database) for _ in range(2)]
    makes = (stores[n].create_conversation(sample_conversation("talk"), sample_step(f"{n}")) for n in range(2))
    results = await asyncio.gather(*makes, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["IdTaken", "NoneType"]
    loser = sample_step(f"{1 - results.index(None)}")
    with pytest.raises(ParentGone):
        await stores[0].append(sample_record("child", f"{1 - results.index(None)}"))
    chain = await stores[0].conversation_chain(ALICE, TALK, NOW)
    assert chain is not None
    assert [link.id == loser.id for link in chain] == [False]
    for store in stores:
        await store.aclose()


async def test_an_emptied_conversation_frees_what_it_pointed_at(database: PostgresUrl) -> None:
    store = await PostgresStore.open(database)
    await store.create_conversation(sample_conversation("talk"), sample_step("step"))
    with pytest.raises(ParentGone):
        await store.move_conversation(
            ALICE, TALK, ConversationMove(from_id=sample_id("step"), to_id=sample_id("unknown"), at=NOW)
        )
    await store.move_conversation(ALICE, TALK, ConversationMove(from_id=sample_id("step"), at=NOW))
    with pytest.raises(ParentGone):
        await store.append(sample_record("child", "step"))
    with pytest.raises(IdTaken):
        await store.create_conversation(sample_conversation("talk"))
    await store.aclose()
