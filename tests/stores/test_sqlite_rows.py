"""Rows that nobody names any more: what stays for whom, as SQL sees it. The conformance suite has the rules."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from segue.history.conversations import ConversationMove
from segue.stores.sqlite import SqliteStore
from segue.testing.store_samples import (
    ALICE,
    NOW,
    sample_conversation,
    sample_conversation_id,
    sample_id,
    sample_record,
    sample_step,
)

TALK = sample_conversation_id("talk")


def rows_of(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    rows = [ident for (ident,) in connection.execute("SELECT id FROM records ORDER BY seq")]
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()
    return rows


async def test_rows_go_with_the_last_that_needs_them(tmp_path: Path) -> None:
    path = tmp_path / "segue.db"
    store = await SqliteStore.open(path, synchronous="NORMAL")
    await store.create_conversation(sample_conversation("talk"), sample_step("one"))
    await store.append_to_conversation(TALK, sample_record("two", "one"))
    await store.append(sample_record("fork", "one"))
    assert await store.delete(ALICE, sample_id("two"), NOW)
    assert rows_of(path) == [sample_id("one"), sample_id("two"), sample_id("fork")]
    move = ConversationMove(from_id=sample_id("two"), to_id=sample_id("one"), at=NOW)
    await store.move_conversation(ALICE, TALK, move)
    assert rows_of(path) == [sample_id("one"), sample_id("fork")]
    assert await store.delete_conversation(ALICE, TALK)
    assert rows_of(path) == [sample_id("one"), sample_id("fork")]
    assert await store.delete(ALICE, sample_id("fork"), NOW)
    assert rows_of(path) == []
    await store.aclose()


async def test_what_is_taken_out_leaves_the_disk(tmp_path: Path) -> None:
    """As what is deleted does, soon after."""
    path = tmp_path / "segue.db"
    store = await SqliteStore.open(path, synchronous="NORMAL")
    await store.create_conversation(sample_conversation("talk"), sample_step("a secret of theirs"))
    assert b"a secret of theirs" in files_of(path)
    await store.move_conversation(ALICE, TALK, ConversationMove(from_id=sample_id("a secret of theirs"), at=NOW))
    await store.describe_conversation(ALICE, TALK, b"{}", NOW)
    await store.sweep(NOW)  # comes after the emptying of the log
    assert b"a secret of theirs" not in files_of(path)
    assert b'"talk"' not in files_of(path)
    await store.aclose()


def files_of(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))
