"""A file as one end of a copy: what it refuses, what a failed page leaves. `test_copying` copies one into another."""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec
import pytest

from segue.stores.interface import StoreError
from segue.stores.sqlite import SqliteStore
from segue.stores.sqlite_copying import SqliteCopyEnd
from segue.testing.store_conformance import sample_record
from segue.testing.store_samples import sample_conversation
from tests.stores.copies import content, fill


async def test_a_file_that_a_gateway_uses_is_refused(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "a.db")
    with pytest.raises(StoreError, match="is in use by process"):
        await SqliteCopyEnd.open(tmp_path / "a.db")
    await store.aclose()


async def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A turn whose parent is missing takes the page with it."""
    store = await SqliteStore.open(tmp_path / "a.db")
    await fill(store)
    await store.aclose()
    source, target = [await SqliteCopyEnd.open(tmp_path / name) for name in ("a.db", "b.db")]
    turns = await content(source)
    orphans = [turn for turn in turns if turn.parent_id is not None]
    roots = [turn for turn in turns if turn.parent_id is None]
    with pytest.raises(StoreError, match="does somebody else write to it"):
        await target.add_turns([roots[0], msgspec.structs.replace(orphans[0], parent_id=sample_record("x").id)])
    assert await content(target) == []
    with pytest.raises(StoreError, match="the target has no turn"):
        await target.add_conversations([sample_conversation("talk", "unknown")])
    assert await target.add_turns(roots) == len(roots)
    for end in (source, target):
        await end.aclose()


async def test_errors_of_the_file_are_explained(tmp_path: Path) -> None:
    end = await SqliteCopyEnd.open(tmp_path / "a.db")
    end._database.writer.execute("PRAGMA query_only = ON")  # noqa: SLF001 - as if the disk took nothing any more
    with pytest.raises(StoreError, match="check that this user may write the file"):
        await end.add_conversations([sample_conversation("talk")])
    await end.aclose()


async def test_an_end_that_cannot_be_opened_or_closed_leaves_no_thread(tmp_path: Path) -> None:
    (tmp_path / "a.db").write_bytes(b"this is no database, and long enough to be looked at as one: " * 20)
    with pytest.raises(StoreError):
        await SqliteCopyEnd.open(tmp_path / "a.db")
    end = await SqliteCopyEnd.open(tmp_path / "b.db")
    end._database.writer.close()  # noqa: SLF001 - so that it cannot be closed in good order
    with pytest.raises(StoreError):
        await end.aclose()
    for thread in threading.enumerate():
        if thread.name.startswith("segue-store-copy"):
            thread.join(20)
            assert not thread.is_alive()
