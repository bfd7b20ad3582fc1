"""Lists of responses: what the suite of all stores does not check, the bound on what is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from segue.protocol.ids import ResponseId
from segue.protocol.response_query import Label, ResponseQuery, model_label
from segue.stores.interface import QueryTooBroad
from segue.stores.postgres import labels
from segue.stores.postgres.postgres_url import PostgresUrl
from segue.stores.postgres.store import PostgresStore
from segue.testing.store_conformance import ALICE, NOW, sample_id, sample_record

pytestmark = pytest.mark.postgres

RARE, FREQUENT, ABSENT = (Label("metadata[colour]", colour) for colour in ("red", "blue", "green"))


async def test_a_query_that_is_too_broad_is_refused_whichever_label_it_begins_with(
    database: PostgresUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One rare label is enough, wherever it stands. A page that is full was found in time."""
    monkeypatch.setattr(labels, "SCAN_LIMIT", 10)
    store = await PostgresStore.open(database)
    records = [
        sample_record(f"{n:02}", echo=b'{"model":"m","metadata":{"colour":"%b"}}' % (b"red" if n == 3 else b"blue"))
        for n in range(20)
    ]
    records = [msgspec.structs.replace(record, created_at=NOW + n) for n, record in enumerate(records)]
    await asyncio.gather(*(store.append(record) for record in records))

    async def find(*wanted: Label, limit: int = 20) -> Sequence[ResponseId] | None:
        return await store.list_responses(ALICE, ResponseQuery(labels=wanted, limit=limit), NOW)

    assert await find(model_label("m"), RARE) == [sample_id("03")]
    assert await find(RARE, model_label("m")) == [sample_id("03")]
    assert await find(model_label("m"), ABSENT) == []
    assert await find(model_label("m"), FREQUENT, limit=5) == [sample_id(f"{n:02}") for n in range(19, 14, -1)]
    with pytest.raises(QueryTooBroad):
        await find(model_label("m"), FREQUENT)
    assert len(await find() or []) == 20, "without a label, all match"
    await store.aclose()
