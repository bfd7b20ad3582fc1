"""Copies of stores: pages are bounded, digests do not depend on the order, and what differs is told."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.stores.copying import PAGE_BYTES, PAGE_TURNS, CopyTally, StoredTurn, copy_store, pages_of
from segue.stores.sqlite import SqliteStore
from segue.stores.sqlite_copying import SqliteCopyEnd
from segue.testing.store_conformance import ALICE, NOW, sample_id, sample_record
from segue.testing.store_samples import sample_conversation
from tests.stores.copies import check, content, fill


def ignore(what: str, tally: CopyTally) -> None:
    pass


@given(st.lists(st.integers(0, 2 * PAGE_BYTES), max_size=30))
def test_pages_are_bounded_and_hold_all(sizes: list[int]) -> None:
    pages = pages_of(sizes)
    assert [number for page in pages for number in page] == list(range(len(sizes)))
    assert all(len(page) == 1 or sum(sizes[number] for number in page) <= PAGE_BYTES for page in pages)


def test_a_page_has_a_bounded_number_of_turns() -> None:
    assert [len(page) for page in pages_of([1] * (2 * PAGE_TURNS + 1))] == [PAGE_TURNS, PAGE_TURNS, 1]


def turn(name: str) -> StoredTurn:
    record = sample_record(name)
    return StoredTurn(
        tenant=ALICE,
        id=record.id,
        parent_id=None,
        created_at=NOW,
        expires_at=NOW,
        head=record.head,
        echo=record.echo,
        calls=b"[]",
        input=b"[]",
        output=b"[]",
        native=None,
    )


def test_a_digest_tells_content_and_not_order() -> None:
    tallies = [CopyTally() for _ in range(3)]
    tallies[0].count([turn("a"), turn("b")])
    tallies[0].count([sample_conversation("talk")])
    tallies[1].count([sample_conversation("talk")])
    tallies[1].count([turn("b"), turn("a")])
    tallies[2].count([turn("a"), msgspec.structs.replace(turn("b"), native=b"x")])
    tallies[2].count([sample_conversation("talk")])
    assert tallies[0] == tallies[1]
    assert tallies[0].digest != tallies[2].digest
    assert (tallies[0].turns, tallies[0].conversations) == (2, 1)


async def test_a_copy_that_is_broken_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is not written twice; at the end both hold the same."""
    monkeypatch.setattr("segue.stores.sqlite_copying.PAGE_TURNS", 3)
    store = await SqliteStore.open(tmp_path / "a.db")
    await fill(store)
    await store.aclose()
    source, target = [await SqliteCopyEnd.open(tmp_path / name) for name in ("a.db", "b.db")]
    calls = 0

    def stop(what: str, tally: CopyTally) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        await copy_store(source, target, stop)
    assert len(await content(target)) == 6
    report = await copy_store(source, target, ignore)
    assert report.verified
    assert report.written_turns == report.source.turns - 6
    assert await content(source) == await content(target)
    again = await copy_store(source, target, ignore)
    assert (again.written_turns, again.written_conversations, again.verified) == (0, 0, True)
    for end in (source, target):
        await end.aclose()
    store = await SqliteStore.open(tmp_path / "b.db")
    await check(store)
    await store.aclose()


async def test_a_target_that_holds_more_is_told(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "b.db")
    await store.append(sample_record("stranger"))
    await store.aclose()
    source, target = [await SqliteCopyEnd.open(tmp_path / name) for name in ("a.db", "b.db")]
    report = await copy_store(source, target, ignore)
    assert (report.verified, report.source.turns, report.target.turns) == (False, 0, 1)
    assert [one.id for one in await content(target)] == [sample_id("stranger")]
    for end in (source, target):
        await end.aclose()
