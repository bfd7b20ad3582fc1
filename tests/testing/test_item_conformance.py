"""The checks of items notice a store that breaks a rule. The stores themselves: `test_store_conformance`."""

from __future__ import annotations

import pytest

from segue.protocol.ids import ResponseId
from segue.stores.memory import MemoryStore
from segue.testing.item_conformance import ITEM_CHECKS, items_go_with_their_response


class _Timeless(MemoryStore):
    """Finds also what has expired."""

    async def find_item(self, tenant: str, item_id: str, now: float) -> ResponseId | None:
        assert now >= 0
        return await super().find_item(tenant, item_id, 0.0)


async def test_a_store_that_finds_the_dead_is_found_out() -> None:
    with pytest.raises(AssertionError):
        await items_go_with_their_response(_Timeless())


def test_each_check_has_a_sentence_of_its_own() -> None:
    texts = [check.__doc__ for check in ITEM_CHECKS]
    assert None not in texts
    assert len(set(texts)) == len(texts)
