"""Conversations in SQLite: what they cost on disk. The rules are those of the conformance suite."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from segue.stores.interface import Store
from segue.stores.sqlite import SqliteStore
from segue.testing.conversation_conformance import CONVERSATION_CHECKS
from segue.testing.store_samples import ALICE, NOW, sample_conversation, sample_conversation_id, sample_record

TALK = sample_conversation_id("talk")


async def test_a_turn_of_a_conversation_costs_its_delta(tmp_path: Path) -> None:
    """The history is never written again, and one statement reads it."""
    statements: list[str] = []
    path = tmp_path / "segue.db"
    store = await SqliteStore.open(path, synchronous="NORMAL", trace=statements.append)
    await store.create_conversation(sample_conversation("talk"))
    item = b'{"type":"message","content":"%b"}' % (b"x" * 4096)
    for depth in range(200):
        record = sample_record(str(depth), str(depth - 1) if depth else None)
        await store.append_to_conversation(TALK, msgspec.structs.replace(record, input=(item,)))
    await store.aclose()  # which empties the log
    assert path.stat().st_size < 200 * (2 * 4096 + 1024)
    store = await SqliteStore.open(path, synchronous="NORMAL", trace=statements.append)
    statements.clear()
    chain = await store.conversation_chain(ALICE, TALK, NOW)
    assert chain is not None
    assert len(chain) == 200
    assert len(statements) == 1
    await store.aclose()


@pytest.mark.parametrize("check", CONVERSATION_CHECKS, ids=lambda check: check.__name__)
async def test_conversations_keep_their_rules(check: Callable[[Store], Awaitable[None]], tmp_path: Path) -> None:
    """Those of the conformance suite, which runs over all stores in `tests/testing`."""
    store = await SqliteStore.open(tmp_path / "segue.db", synchronous="NORMAL")
    await check(store)
    await store.aclose()
