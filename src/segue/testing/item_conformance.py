"""The conformance suite's part about items: whose an item is that a client names by its id.

Not here: the other checks, and how to run them (`store_conformance`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from segue.history.records import Record
from segue.protocol.items import MAX_ITEM_ID
from segue.stores.interface import ParentGone, Store
from segue.testing.store_samples import ALICE, BOB, NOW, sample_id, sample_record


async def an_item_is_found_by_the_id_that_its_author_gave_it(store: Store) -> None:
    """The response that made it is told, or that took it in; never another tenant's."""
    root = sample_record("root", given=["in", "é"], made=["out", "x" * MAX_ITEM_ID])
    await _append(store, root, sample_record("child", "root"))
    for ident in ("in", "é", "out", "x" * MAX_ITEM_ID):
        assert await store.find_item(ALICE, ident, NOW) == root.id
        assert await store.find_item(BOB, ident, NOW) is None
    assert await store.find_item(ALICE, "unknown", NOW) is None


async def a_history_that_is_sent_again_leaves_its_items_where_they_were(store: Store) -> None:
    """An item belongs to the first response that had it, even if a later one has it in its input."""
    first = sample_record("first", given=["in"], made=["out"])
    await _append(store, first, sample_record("second", given=["in", "out"], made=["more"]))
    assert [await store.find_item(ALICE, ident, NOW) for ident in ("in", "out")] == [first.id, first.id]
    assert await store.delete(ALICE, first.id, NOW)
    assert [await store.find_item(ALICE, ident, NOW) for ident in ("in", "out")] == [None, None]
    assert await store.find_item(ALICE, "more", NOW) == sample_id("second")


async def a_long_history_that_is_sent_again_too(store: Store) -> None:
    """However many items a record has."""
    given = [f"in {n}" for n in range(1200)]
    first, second = sample_record("first", given=given), sample_record("second", given=[*given, "new"])
    await _append(store, first, second)
    owners = [await store.find_item(ALICE, ident, NOW) for ident in [*given, "new"]]
    assert owners == [first.id] * len(given) + [second.id]


async def an_id_that_two_responses_gave_names_neither(store: Store) -> None:
    """Not every provider makes unique ids. A wrong item would be worse than none; tenants are apart in this too."""
    await _append(store, sample_record("one", made=["msg_0"]), sample_record("his", tenant=BOB, made=["msg_0"]))
    assert await store.find_item(ALICE, "msg_0", NOW) == sample_id("one")
    await _append(store, sample_record("two", made=["msg_0"]))
    assert await store.find_item(ALICE, "msg_0", NOW) is None
    assert await store.find_item(BOB, "msg_0", NOW) == sample_id("his")
    assert await store.delete(ALICE, sample_id("one"), NOW)
    assert await store.find_item(ALICE, "msg_0", NOW) == sample_id("two")


async def items_go_with_their_response(store: Store) -> None:
    """A deleted or expired response's items are not found, though a descendant still has them in its history."""
    await _append(store, sample_record("root", made=["deleted"]), sample_record("leaf", "root", made=["kept"]))
    await _append(store, sample_record("brief", given=["expired"], expires_at=NOW + 10))
    assert await store.find_item(ALICE, "expired", NOW + 9) == sample_id("brief")
    assert await store.find_item(ALICE, "expired", NOW + 10) is None
    while await store.sweep(NOW + 10):
        pass
    assert await store.delete(ALICE, sample_id("root"), NOW)
    found = [await store.find_item(ALICE, ident, NOW) for ident in ("expired", "deleted", "kept")]
    assert found == [None, None, sample_id("leaf")]
    await _append(store, sample_record("again", given=["expired", "deleted"]))
    assert await store.find_item(ALICE, "deleted", NOW) == sample_id("again")


async def a_refused_record_has_no_items(store: Store) -> None:
    """What was not written leaves nothing behind."""
    refused = sample_record("child", "unknown", given=["in"], made=["out"])
    (answer,) = await asyncio.gather(store.append(refused), return_exceptions=True)
    assert isinstance(answer, ParentGone)
    assert [await store.find_item(ALICE, ident, NOW) for ident in ("in", "out")] == [None, None]


ITEM_CHECKS: tuple[Callable[[Store], Awaitable[None]], ...] = (
    an_item_is_found_by_the_id_that_its_author_gave_it,
    a_history_that_is_sent_again_leaves_its_items_where_they_were,
    a_long_history_that_is_sent_again_too,
    an_id_that_two_responses_gave_names_neither,
    items_go_with_their_response,
    a_refused_record_has_no_items,
)


async def _append(store: Store, *records: Record) -> None:
    for record in records:
        await store.append(record)
