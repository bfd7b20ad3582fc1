"""Copies between a file and a database, and back: the same, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.stores.copying import CopyTally, copy_store
from segue.stores.postgres import postgres_copying
from segue.stores.postgres.postgres_copying import PostgresCopyEnd
from segue.stores.postgres.postgres_url import PostgresUrl
from segue.stores.postgres.store import PostgresStore
from segue.stores.sqlite import SqliteStore
from segue.stores.sqlite_copying import SqliteCopyEnd
from tests.stores.copies import check, content, fill

pytestmark = pytest.mark.postgres


def ignore(what: str, tally: CopyTally) -> None:
    pass


async def test_a_store_goes_into_the_database_and_back(
    database: PostgresUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In small pages; a second copy writes nothing."""
    monkeypatch.setattr(postgres_copying, "_FETCH", b"FETCH 4 FROM turns")
    store = await SqliteStore.open(tmp_path / "a.db")
    await fill(store)
    await store.aclose()
    first, middle, last = (
        await SqliteCopyEnd.open(tmp_path / "a.db"),
        await PostgresCopyEnd.open(database),
        await SqliteCopyEnd.open(tmp_path / "b.db"),
    )
    there = await copy_store(first, middle, ignore)
    back = await copy_store(middle, last, ignore)
    again = await copy_store(first, middle, ignore)
    assert (there.verified, back.verified, again.verified) == (True, True, True)
    assert there.source == back.target
    assert (again.written_turns, again.written_conversations) == (0, 0)
    assert await content(first) == await content(middle) == await content(last)
    for end in (first, middle, last):
        await end.aclose()
    for opened in (await PostgresStore.open(database), await SqliteStore.open(tmp_path / "b.db")):
        await check(opened)
        await opened.aclose()
