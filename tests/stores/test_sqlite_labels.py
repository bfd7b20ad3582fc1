"""Lists of responses in SQLite: what a page costs. The rules are those of the conformance suite."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from segue.history.records import Record
from segue.protocol.response_query import Label, ResponseQuery, metadata_label
from segue.stores import sqlite_labels
from segue.stores.interface import QueryTooBroad
from segue.stores.sqlite import SqliteStore
from segue.stores.sqlite_labels import find_labelled, pack_labels
from segue.testing.store_conformance import ALICE, NOW, sample_id, sample_record

ALL, EVEN, ODD = metadata_label("all", "1"), metadata_label("even", "1"), metadata_label("odd", "1")


def record_of(number: int, tenant: str = ALICE) -> Record:
    echo = msgspec.json.encode({"model": "m", "metadata": {"all": "1", "odd" if number % 2 else "even": "1"}})
    made = sample_record(str(number), tenant=tenant, echo=echo)
    return msgspec.structs.replace(made, created_at=NOW + number)


@pytest_asyncio.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    """A file with three hundred responses, and as many of another tenant."""
    path = tmp_path / "segue.db"
    store = await SqliteStore.open(path, synchronous="NORMAL")
    await asyncio.gather(*(store.append(record_of(n, tenant)) for n in range(300) for tenant in (ALICE, "bob")))
    await store.aclose()
    yield path


def steps_of(path: Path, query: ResponseQuery) -> int:
    """Count what SQLite does for a page, in steps of its virtual machine."""
    connection = sqlite3.connect(path)
    steps = 0

    def step() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection.set_progress_handler(step, 1)
    find_labelled(connection, ALICE, query, NOW)
    connection.close()
    return steps


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("labels", [(), (ALL,), (EVEN, ALL)])
async def test_a_page_costs_the_same_at_any_depth(path: Path, labels: tuple[Label, ...], order: str) -> None:
    """And nothing is read of what is on other pages."""
    query = msgspec.convert({"order": order, "limit": 5}, ResponseQuery)
    query = msgspec.structs.replace(query, labels=labels)
    first = steps_of(path, query)
    for number in (10, 150, 290):
        deep = steps_of(path, msgspec.structs.replace(query, after=sample_id(str(number))))
        assert deep < first + 40, "it looks up where it begins"
    assert first < 700


async def test_a_query_that_is_too_broad_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as that is known, and only if no label is rare; a shorter time may help."""
    monkeypatch.setattr(sqlite_labels, "SCAN_LIMIT", 100)
    store = await SqliteStore.open(path, synchronous="NORMAL")
    apart = ResponseQuery(labels=(EVEN, ODD))
    with pytest.raises(QueryTooBroad):
        await store.list_responses(ALICE, apart, NOW)
    shorter = msgspec.structs.replace(apart, created_before=NOW + 90)
    assert await store.list_responses(ALICE, shorter, NOW) == []
    for labels in ((ALL, EVEN, metadata_label("rare", "1")), (metadata_label("rare", "1"), ALL)):
        assert await store.list_responses(ALICE, ResponseQuery(labels=labels), NOW) == []
    whole = await store.list_responses(ALICE, ResponseQuery(limit=100), NOW)
    assert whole is not None
    assert len(whole) == 100
    await store.aclose()


async def test_labels_go_with_their_response(path: Path) -> None:
    store = await SqliteStore.open(path, synchronous="NORMAL")
    assert await store.delete(ALICE, sample_id("7"), NOW)
    await store.erase("bob", None)
    await store.aclose()
    assert labels_in(path) == 299 * 4, "each has four: its model, its metadata, and that which all have"


async def test_a_refused_record_leaves_no_label(path: Path) -> None:
    store = await SqliteStore.open(path, synchronous="NORMAL")
    before = labels_in(path)
    refused = msgspec.structs.replace(record_of(1000), parent_id=sample_id("unknown"))
    await asyncio.gather(store.append(refused), return_exceptions=True)
    await store.aclose()
    assert labels_in(path) == before


def labels_in(path: Path) -> int:
    connection = sqlite3.connect(path)
    (count,) = connection.execute("SELECT count(*) FROM labels").fetchone()
    connection.close()
    assert isinstance(count, int)
    return count


def test_a_label_takes_sixteen_bytes() -> None:
    packed = pack_labels([metadata_label("k" * 64, "v" * 512), ALL])
    assert len(packed) == 3 * 16
    assert packed.startswith(bytes(16))
