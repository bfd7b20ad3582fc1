"""The checks of lists notice a store that breaks a rule. The stores themselves: `test_store_conformance`."""

from __future__ import annotations

import pytest

from segue.protocol.ids import ResponseId
from segue.protocol.response_query import ResponseQuery
from segue.stores.memory import MemoryStore
from segue.testing.listing_conformance import (
    LISTING_CHECKS,
    a_list_has_no_dead_responses,
    pages_hold_each_response_once,
)


class _Timeless(MemoryStore):
    """Lists also what has expired."""

    async def list_responses(self, tenant: str, query: ResponseQuery, now: float) -> list[ResponseId] | None:
        assert now >= 0
        return await super().list_responses(tenant, query, 0.0)


class _Placeless(MemoryStore):
    """Begins every page with the first response."""

    def __init__(self) -> None:
        super().__init__()
        self._pages = 0

    async def list_responses(self, tenant: str, query: ResponseQuery, now: float) -> list[ResponseId] | None:
        self._pages += 1
        first = ResponseQuery(labels=query.labels, order=query.order, limit=query.limit)
        return [] if self._pages > 10 else await super().list_responses(tenant, first, now)


async def test_a_store_that_lists_the_dead_is_found_out() -> None:
    with pytest.raises(AssertionError):
        await a_list_has_no_dead_responses(_Timeless())


async def test_a_store_that_repeats_itself_is_found_out() -> None:
    with pytest.raises(AssertionError):
        await pages_hold_each_response_once(_Placeless())


def test_each_check_has_a_sentence_of_its_own() -> None:
    texts = [check.__doc__ for check in LISTING_CHECKS]
    assert None not in texts
    assert len(set(texts)) == len(texts)
